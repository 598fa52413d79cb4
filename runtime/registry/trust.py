"""TLS towards a registry: the system's authorities or those of its own directory, and a certificate of ours."""

import ssl
from pathlib import Path

from swarmd.runtime.errors import Invalid
from swarmd.runtime.registry.settings import Settings


class Trust:
    """Contexts by host; files that have changed since are read again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._contexts: dict[tuple[str, bool], tuple[tuple[tuple[Path, int], ...], ssl.SSLContext]] = {}

    def context(self, host: str) -> ssl.SSLContext:
        """The context for a host[:port]; Invalid naming the file that can't be used."""
        verified = not self._settings.is_insecure(host)
        seen = tuple((path, path.stat().st_mtime_ns) for path in self._files(host))
        known = self._contexts.get((host, verified))
        if known is None or known[0] != seen:
            known = seen, _context([path for path, _ in seen], verified)
            self._contexts[host, verified] = known
        return known[1]

    def _files(self, host: str) -> list[Path]:
        if "/" in host or host in (".", ".."):
            return []
        return next((found for top in self._settings.certificates if (found := sorted((top / host).glob("*.*")))), [])


def _context(files: list[Path], verified: bool) -> ssl.SSLContext:
    authorities = [path for path in files if path.suffix == ".crt"]
    # As Docker does: a private authority is trusted beside the system's, not instead of them.
    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in authorities:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"{path} can't be used as an authority for a registry: {error}") from None
    for path in (path for path in files if path.suffix == ".cert"):
        key = path.with_suffix(".key")
        if not key.exists():
            raise Invalid(f"{path} can't be used for a registry: its key {key} is missing")
        try:
            context.load_cert_chain(path, key)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"{path} can't be used for a registry: {error}") from None
    return context
