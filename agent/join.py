"""Joins a cluster: checks the manager's root certificate against the token, and only then speaks with it."""

import os
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from time import time as now

import aiohttp

from swarmd.agent.host import JOIN_PORT, split_port
from swarmd.proto import join_token, tls
from swarmd.proto.ca_pb2 import Identity, JoinRequest
from swarmd.proto.errors import BY_GRPC_CODE, Denied, FailedPrecondition, Internal, Invalid, SwarmdError, Unavailable

MAX_CLOCK_SKEW = 30 * 60  # s; certificates are backdated by an hour, and may be valid for one
TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)


async def join(remotes: Sequence[str], request: JoinRequest) -> Identity:
    """Ask the managers one after the other; what one refuses is not asked of the next."""
    token = join_token.parse(request.token)
    if not remotes:
        raise Invalid("name a manager to join: its address, and port 2377")
    problem: SwarmdError = Unavailable("no manager was asked")
    for remote in remotes:
        host, port = split_port(remote)
        url = f"https://{f'[{host}]' if ':' in host else host}:{port or JOIN_PORT}"
        try:
            return await _ask(url, token, request)
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = Unavailable(f"can't join by {remote}: {_reason(error)}")
    raise problem


def _reason(error: Exception) -> str:
    hint = f"is a manager running there, and its port {JOIN_PORT} open?"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no address is known for that name"
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno and error.errno > 0:
        return f"{os.strerror(error.errno).lower()}; {hint}"
    if isinstance(error, TimeoutError):
        return f"it did not answer in time; {hint}"
    return f"what answers is no join endpoint ({str(error).lower() or type(error).__name__}); {hint}"


async def _ask(url: str, token: join_token.JoinToken, request: JoinRequest) -> Identity:
    root = await _trusted_root(url, token)
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT) as session,
        session.post(
            f"{url}/v1/join",
            data=request.SerializeToString(),
            ssl=tls.https_client_context(root),
            server_hostname=tls.MANAGER_NAME,
        ) as answer,
    ):
        await _raise_for(answer)
        return Identity.FromString(await answer.read())


async def _trusted_root(url: str, token: join_token.JoinToken) -> bytes:
    """The cluster's root certificate, if it is the one that the token pins."""
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT) as session,
        session.get(f"{url}/v1/root", ssl=tls.unverified_context()) as answer,
    ):
        await _raise_for(answer)
        root = await answer.read()
        if not token.pins(root):
            raise Denied(f"the join token is of another cluster than that of {url.removeprefix('https://')}")
        _check_clock(answer.headers.get("Date", ""), url)
        return root


def _check_clock(date: str, url: str) -> None:
    """Certificates would not be valid yet, or not any more, on a host whose clock is off."""
    if not date:
        return
    ahead = now() - parsedate_to_datetime(date).timestamp()
    if abs(ahead) > MAX_CLOCK_SKEW:
        direction = "ahead of" if ahead > 0 else "behind"
        raise FailedPrecondition(
            f"this node's clock is {_span(abs(ahead))} {direction} that of the manager at "
            f"{url.removeprefix('https://')}, so its certificates would not be valid: set the clock and join again"
        )


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if value]
    return " ".join(parts[:2])


async def _raise_for(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 200:
        return
    kind = BY_GRPC_CODE.get(answer.headers.get("Swarmd-Error", ""), Internal)
    raise kind((await answer.text()).strip() or f"the manager answered {answer.status}")
