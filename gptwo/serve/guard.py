"""What stands before every request: who may ask, from where, how much, and for how long."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from gptwo.serve.config import LOCAL_NAMES, ServeConfig
from gptwo.serve.faults import Fault
from gptwo.serve.served import Served

OPEN_PATHS = ("/health",)  # told without a key, and while stopping


def admit(request: Request, served: Served) -> None:
    """Raise a `Fault` for who may not ask: 403 for a foreign Host or Origin, 401, 503."""
    config = served.config
    host = request.headers.get("host", "")
    if not host_allowed(host, config):
        told = f"the Host {host[:80]!r} is not served; allow it with --hosts"
        raise Fault(403, told, param="host", code="host_not_allowed")
    origin = request.headers.get("origin")
    if origin is not None and origin not in config.origins and not same_origin(origin, host):
        told = f"pages of {origin[:80]!r} may not ask; allow them with --origins"
        raise Fault(403, told, param="origin", code="origin_not_allowed")
    if request.url.path in OPEN_PATHS or request.method == "OPTIONS":
        return
    if served.api_key:
        given = request.headers.get("authorization", "")
        kind, _, key = given.partition(" ")
        matches = hmac.compare_digest(key.strip().encode("latin-1"), served.api_key.encode())
        if kind.lower() != "bearer" or not matches:
            told = "the API key is wrong" if given else "an API key is needed"
            raise Fault(401, told, param="authorization", code="invalid_api_key")
    if served.stopping:
        raise Fault(503, "the server is stopping", code="stopping")


def host_allowed(host: str, config: ServeConfig) -> bool:
    """Whether a request may name `host`. A page whose name was made to point at this machine (DNS
    rebinding) sends its own name. Where others may reach us a key is needed, and any name will do
    unless some are given."""
    name = _without_port(host.lower())
    if name in LOCAL_NAMES or name in config.hosts:
        return True
    return not config.is_local and not config.hosts


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` was served by us, as far as the request tells."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdigit() or not port) and not name.endswith(":") else host


async def body_of(request: Request, config: ServeConfig) -> bytes:
    """The body; raises a `Fault`: 413 when it is too large, 408 when it comes too slowly."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > config.body_bytes:
        raise _too_large(config)
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        told = f"the body is {kind[:80]!r}, expected application/json"
        raise Fault(415, told, param="content-type")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(config.client_seconds):
            async for part in request.stream():
                size += len(part)
                if size > config.body_bytes:
                    raise _too_large(config)
                parts.append(part)
    except TimeoutError:
        told = f"the body did not come within {config.client_seconds:g} s"
        raise Fault(408, told, code="request_timeout") from None
    return b"".join(parts)


def _too_large(config: ServeConfig) -> Fault:
    told = f"the body is larger than the {config.body_bytes:,} bytes that are allowed"
    return Fault(413, told, code="body_too_large")


def leaving(request: Request) -> Callable[[], Awaitable[Any]]:
    """Waits until the client has gone; for when the body has been read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return watch
