"""Logins at registries, kept as Docker's CLI keeps them and where it does: config.json in $DOCKER_CONFIG or ~/.docker.

A password is in `auths`, or with a program docker-credential-NAME that `credHelpers` (of one registry) or `credsStore`
(of all others) names: it is told get, store or erase, and speaks JSON.
"""

from __future__ import annotations

import os
from binascii import Error, a2b_base64, b2a_base64

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.jsontext import dumps, indented, loads
from swarmd.swarmctl.references import HUB, domain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"
_HUBS = ("", HUB, "index.docker.io", "registry-1.docker.io")
_TOKEN = "<token>"  # the name under which helpers keep an identity token


def key_of(server: str) -> str:
    """What a registry is called in config.json."""
    host = _host(server)
    return HUB_KEY if host in _HUBS else host


def _host(server: str) -> str:
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


class Logins:
    def __init__(self) -> None:
        self.path = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")

    def get(self, server: str) -> dict[str, str]:
        """What the Engine API wants of a login; empty without one."""
        key, config = key_of(server), self._read()
        if helper := self._helper(config, key):
            return _asked(helper, key)
        auths = config.get("auths") or {}
        found = auths.get(key) or next((value for name, value in auths.items() if key_of(name) == key), None)
        if not isinstance(found, dict):
            return {}
        user, _, password = _plain(found.get("auth") or "", self.path).partition(":")
        login = {
            "username": user or found.get("username", ""),
            "password": password.strip("\0") or found.get("password", ""),
            "identitytoken": found.get("identitytoken", ""),
            "registrytoken": found.get("registrytoken", ""),
        }
        given = {name: str(value) for name, value in login.items() if value}
        return given | {"serveraddress": key} if given else {}

    def header(self, image: str) -> dict[str, str]:
        """Of a request that concerns an image's registry; none without a login there."""
        login = self.get(domain(image))
        return {"X-Registry-Auth": encoded(login)} if login else {}

    def of_all(self) -> dict[str, str]:
        """Of a request that may concern any registry: a build, whose base images only the daemon knows."""
        config = self._read()
        keys = {key_of(name) for name in (*(config.get("auths") or {}), *(config.get("credHelpers") or {}))}
        found = {key: login for key in sorted(keys) if (login := self.get(key))}
        return {"X-Registry-Config": encoded(found)} if found else {}

    def put(self, server: str, login: dict[str, str]) -> str:
        """Keep it; return where."""
        key, config = key_of(server), self._read()
        if helper := self._helper(config, key):
            token = login.get("identitytoken", "")
            secret = {"ServerURL": key, "Username": _TOKEN if token else login["username"]}
            _run(helper, "store", dumps({**secret, "Secret": token or login["password"]}))
            config["auths"] = {**(config.get("auths") or {}), key: {}}
            self._write(config)
            return f"with docker-credential-{helper}"
        if token := login.get("identitytoken", ""):
            entry = {"auth": _base64(f"{login['username']}:"), "identitytoken": token}
        else:
            entry = {"auth": _base64(f"{login['username']}:{login['password']}")}
        config["auths"] = {**(config.get("auths") or {}), key: entry}
        self._write(config)
        return f"in {self.path}, readable for whoever can read that"

    def erase(self, server: str) -> bool:
        """Whether there was one."""
        key, config = key_of(server), self._read()
        auths = dict(config.get("auths") or {})
        names = [name for name in auths if key_of(name) == key]
        if helper := self._helper(config, key):
            _run(helper, "erase", key)
        for name in names:
            del auths[name]
        if names:
            self._write(config | {"auths": auths})
        return bool(names)

    @staticmethod
    def _helper(config: dict[str, Any], key: str) -> str:
        helpers = config.get("credHelpers") or {}
        return str(helpers.get(key) or helpers.get(_host(key)) or config.get("credsStore") or "")

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                found = loads(file.read() or b"{}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as problem:
            raise Refusal(f"{self.path} cannot be read: {problem}: mend or remove it") from None
        if not isinstance(found, dict):
            raise Refusal(f"{self.path} is no JSON object: mend or remove it")
        return found

    def _write(self, config: dict[str, Any]) -> None:
        place = os.path.realpath(self.path)
        try:
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            fresh = f"{place}.{os.getpid()}"
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(indented(config) + "\n")
            os.replace(fresh, place)
        except OSError as problem:
            raise Refusal(f"{self.path} cannot be written: {(problem.strerror or '').lower()}") from None


def encoded(login: Mapping[str, object]) -> str:
    """As a header: base64url of JSON."""
    return _base64(dumps(login)).replace("+", "-").replace("/", "_")


def _base64(text: str) -> str:
    return b2a_base64(text.encode(), newline=False).decode()


def _plain(text: str, path: str) -> str:
    try:
        return a2b_base64(text).decode()
    except (Error, ValueError):
        raise Refusal(f"{path} has an 'auth' that is no base64: log in again") from None


def _asked(helper: str, key: str) -> dict[str, str]:
    answer = _run(helper, "get", key, absent_is_fine=True)
    if not answer:
        return {}
    try:
        found = loads(answer)
        name, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"docker-credential-{helper} gave no credentials for {key}, but: {answer[:100]!r}") from None
    if name == _TOKEN:
        return {"identitytoken": secret, "serveraddress": key}
    return {"username": name, "password": secret, "serveraddress": key}


def _run(helper: str, verb: str, text: str, *, absent_is_fine: bool = False) -> str:
    import subprocess

    program = f"docker-credential-{helper}"
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Refusal(f"{helper!r} in config.json is no name of a credential helper")
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, text=True, check=False)
    except OSError as problem:
        raise Refusal(f"{program} cannot be run: {(problem.strerror or '').lower()}; config.json names it") from None
    said = (done.stdout + done.stderr).strip()
    if done.returncode and not (absent_is_fine and "credentials not found" in said):
        raise Refusal(f"{program} {verb} failed: {said or f'exit code {done.returncode}'}")
    return "" if done.returncode else done.stdout
