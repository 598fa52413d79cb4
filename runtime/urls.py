"""What keeps a file of a URL from coming, in words."""

import os

import aiohttp


def why(error: Exception) -> str:
    """The reason of an exception of aiohttp's, to stand behind the URL and a colon."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "no address is known for its host: check the name and the DNS"
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            return f"the certificate of its host is not trusted ({reason})"
        case aiohttp.ClientConnectorError() if error.errno and error.errno > 0:
            return f"its host can't be reached: {os.strerror(error.errno).lower()}"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "this is no address that begins with http:// or https://"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "its host broke the connection off in the middle: try again"
        case TimeoutError():
            return "its host does not answer in time"
        case _:
            return str(error) or type(error).__name__
