"""Starts a container, and says with the exit code of a shell why it could not be."""

from __future__ import annotations

from swarmd.swarmctl.client import Client, Refusal

_NOT_FOUND = ("not found", "no such file", "does not exist", "there is no")
_NOT_RUNNABLE = ("permission denied", "is a directory", "not executable", "exec format", "may not be run")


def start(client: Client, id: str) -> None:
    try:
        client.post(f"/containers/{id}/start")
    except Refusal as refusal:
        raise failure(refusal) from None


def failure(refusal: Refusal) -> Refusal:
    """The same sentence: 126 for a program that cannot be run, 127 for none, 125 for anything else."""
    text = str(refusal)
    cannot_run = any(words in text.lower() for words in _NOT_RUNNABLE)
    code = 126 if cannot_run else 127 if any(words in text for words in _NOT_FOUND) else 125
    return Refusal(text, refusal.status, code if refusal.status in (400, 404, 500) else 125)
