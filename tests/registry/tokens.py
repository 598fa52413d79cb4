"""A token server, by the distribution project's specification, whose tokens docker-registry believes."""

import base64
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.registry.distribution import PASSWORD, USER

ISSUER, SERVICE, IDENTITY = "tests", "tests registry", "identity-of-tester"


@dataclass
class TokenServer:
    """Knows USER: may do everything; anybody else may pull what is below open/."""

    certificate: tuple[Path, Path]
    life: float | None = 300.0  # s that it says
    stale: int = 0  # so many tokens of the next are long expired, whatever it says
    asked: list[dict[str, str]] = field(default_factory=list)
    scopes: list[tuple[str, ...]] = field(default_factory=list)
    faults: list[web.Response] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/token", self._get)
        app.router.add_post("/token", self._post)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.realm = "http://{}:{}/token".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    def settings(self) -> dict[str, Any]:
        """The `auth` of a registry that sends its clients here."""
        bundle = str(self.certificate[0].with_name("ca.crt"))
        return {"token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}

    async def _get(self, request: web.Request) -> web.Response:
        user = ""
        if given := request.headers.get("Authorization", "").removeprefix("Basic "):
            user, _, password = base64.b64decode(given).decode().partition(":")
            if (user, password) != (USER, PASSWORD):
                self.asked.append(dict(request.query))
                return web.json_response({"details": "incorrect username or password"}, status=401)
        return self._answer(user, dict(request.query), tuple(request.query.getall("scope", ())))

    async def _post(self, request: web.Request) -> web.Response:
        fields = dict(parse_qsl(await request.text()))
        if fields.get("refresh_token") != IDENTITY:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return self._answer(USER, fields, tuple(fields.get("scope", "").split()))

    def _answer(self, user: str, fields: dict[str, str], scopes: tuple[str, ...]) -> web.Response:
        self.asked.append(fields)
        self.scopes.append(scopes)
        if self.faults:
            return self.faults.pop(0)
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else ["pull"] if name.startswith("open/") else []
            access.append(
                {"type": kind, "name": name, "actions": [one for one in actions.split(",") if one in allowed]}
            )
        answer: dict[str, Any] = {"token": self._signed(user, access)}
        if self.life is not None:
            answer["expires_in"] = self.life
        if fields.get("offline_token") == "true":
            answer["refresh_token"] = IDENTITY
        return web.json_response(answer)

    def _signed(self, user: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        ends = now + 300
        if self.stale:
            self.stale -= 1
            ends = now - 3600
        certificate = x509.load_pem_x509_certificate(self.certificate[0].read_bytes())
        chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": ends, "nbf": now - 7200, "iat": now - 7200,
            "jti": str(len(self.asked)), "access": access,
        }  # fmt: skip
        text = f"{_encoded({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_encoded(claims)}"
        key = serialization.load_pem_private_key(self.certificate[1].read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
