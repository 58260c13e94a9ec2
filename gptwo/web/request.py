"""One request -> one answer: what came back within the caps, or why nothing did."""

import asyncio
import errno
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

import aiohttp
from aiohttp.connector import Connection

from gptwo.errors import ResourceError
from gptwo.web.address import Address
from gptwo.web.config import CrawlConfig
from gptwo.web.names import Lookup, Names, UnknownNameError
from gptwo.web.network import Guard, PrivateAddressError, connector

TEXT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_HEADER_BYTES = 65_536  # of one line of the head
SPENT_BYTES = 32_768  # of a body nobody wants, read to keep the connection
SPENT_SECONDS = 1.0
UNREACHED = frozenset(("dns", "refused", "connection", "timeout", "tls"))  # no answer at all
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # faults of this machine
OWN_HEADERS = ("Accept", "Accept-Encoding", "User-Agent")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(kw_only=True, slots=True)
class Answer:
    """What one request gave: a response, or an outcome that is not "ok"."""

    outcome: str
    status: int = 0
    version: str = "1.1"
    reason: str = ""
    headers: Headers = ()
    body: bytes = b""  # as it came, compressed or not; of status 200 only
    detail: str = ""
    date: str = ""  # when it came, ISO 8601
    address: str = ""  # that it came from
    seconds: float = 0.0  # from the request to the last byte
    request: Mapping[str, str] = field(default_factory=dict)  # headers that were sent
    passing: bool = False  # a fault that may be gone at the next try

    @property
    def unreached(self) -> bool:
        """Whether the fault may lie on our side: nothing came back."""
        return not self.status and self.outcome in UNREACHED

    def header(self, name: bytes) -> str:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[-1].decode("latin-1").strip() if found else ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of an answer.

    Attributes:
        types: content types worth reading; none for any.
        cut: a body over `bytes` is cut there, otherwise it is an outcome of its own.
        more: whether the host will be asked again soon, so that its connection is kept.
    """

    bytes: int
    types: tuple[str, ...] = ()
    cut: bool = False
    more: bool = True


class Client:
    """Sends requests over connections that are kept open and guarded. Lives in a running loop."""

    def __init__(
        self, config: CrawlConfig, connect_to: str = "", lookup: Lookup | None = None
    ) -> None:
        self.config = config
        self.requests = 0
        self.answered_at = 0.0  # when anything last came back, by the monotonic clock
        self.answered_by: Address | None = None
        self._headers = {
            "User-Agent": config.user_agent,
            "Accept": "text/html,application/xhtml+xml,text/plain;q=0.8",
            "Accept-Encoding": "gzip",
        }
        self._guard = Guard(
            Names(config.dns_seconds, lookup),
            allow_private=config.allow_private,
            connect_to=connect_to,
        )
        self._session = aiohttp.ClientSession(
            connector=connector(self._guard),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=_Response,
            timeout=aiohttp.ClientTimeout(),
            skip_auto_headers=OWN_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, at: Address, wanted: Wanted) -> Answer:
        """One GET. Raises ResourceError where this machine has no room for one more connection."""
        self.requests += 1
        began, heads = time.monotonic(), []
        try:
            async with asyncio.timeout(self.config.page_seconds):
                answer = await self._ask(at, wanted, heads)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            answer = _fault(error, heads, self.config.page_seconds)
        answer.seconds = time.monotonic() - began
        return answer

    async def _ask(self, at: Address, wanted: Wanted, heads: list[int]) -> Answer:
        """`heads` gets the status as soon as it is known."""
        headers = {"Host": at.authority, **self._headers}
        if not wanted.more:
            headers["Connection"] = "close"
        async with self._session.get(
            at.dialled(self._guard.dial(at.host)), headers=headers, allow_redirects=False
        ) as response:
            heads.append(response.status)
            self.answered_at, self.answered_by = time.monotonic(), at
            answer = _begun(response)
            if response.status != 200:
                if wanted.more:
                    await _spend(response)
                return answer
            kind = answer.header(b"content-type").split(";")[0].strip().lower()
            if wanted.types and kind and kind not in wanted.types:
                answer.outcome, answer.detail = "content-type", kind[:200]
                return answer
            body = bytearray()
            while chunk := await response.content.readany():
                body += chunk
                if len(body) > wanted.bytes:
                    break
            if len(body) > wanted.bytes and not wanted.cut:
                answer.outcome, answer.detail = "too-large", f"over {wanted.bytes:,} bytes"
            else:
                answer.body = bytes(body[: wanted.bytes])
            return answer


class _LostError(aiohttp.ClientError):
    """A connection that ended before an answer.

    As an error of the library's own it would make a session ask again at once, untold.
    """


class _Response(aiohttp.ClientResponse):
    """Remembers where it came from: a short one has let go of its connection before we look."""

    peer = ""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol, transport = connection.protocol, connection.transport
        found = transport.get_extra_info("peername") if transport else None
        self.peer = str(found[0]) if found else ""
        try:
            started = await super().start(connection)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _LostError(str(error)) from error
        if protocol is not None and "Connection" in self.request_info.headers:  # "close"
            protocol.force_close()
            if connection.closed:  # all has come: it is kept for the next request already
                protocol.close()
        return started


def _begun(response: aiohttp.ClientResponse) -> Answer:
    """All but the body."""
    version = response.version
    return Answer(
        outcome="ok",
        status=response.status,
        version=f"{version.major}.{version.minor}" if version else "1.1",
        reason=response.reason or "",
        headers=response.raw_headers,
        date=now(),
        address=getattr(response, "peer", ""),
        request=response.request_info.headers,
    )


async def _spend(response: aiohttp.ClientResponse) -> None:
    """Read a short body that nobody wants: the connection can be used again then."""
    if (response.content_length or SPENT_BYTES + 1) <= SPENT_BYTES:
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(SPENT_SECONDS):
                await response.read()


def _fault(error: Exception, heads: list[int], seconds: float) -> Answer:
    """What to call a request without a whole response."""
    status, detail = heads[0] if heads else 0, str(error)[:200]
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = getattr(cause, "errno", None)
    if number in OURS:
        raise ResourceError(
            f"no room for one more connection: {cause}",
            remedy="set a smaller concurrency, or raise the limit of open files (ulimit -n)",
        ) from error
    if isinstance(cause, PrivateAddressError):
        return Answer(outcome="private-address", detail=str(cause))
    if isinstance(cause, UnknownNameError):
        return Answer(outcome="dns", detail=str(cause)[:200], passing=cause.passing)
    if isinstance(error, TimeoutError) or isinstance(cause, TimeoutError):
        return Answer(outcome="timeout", status=status, detail=f"over {seconds}s", passing=True)
    if isinstance(error, aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorCertificateError):
        return Answer(outcome="tls", detail=detail)
    if number == errno.ECONNREFUSED:
        return Answer(outcome="refused", detail=detail)
    if heads:
        return Answer(outcome="truncated", status=status, detail=detail, passing=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return Answer(outcome="bad-http", detail=detail)
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return Answer(outcome="bad-url", detail=detail)
    return Answer(outcome="connection", detail=detail, passing=True)


def now() -> str:
    """The time as WARC wants it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
