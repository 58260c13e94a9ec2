"""One link -> one outcome: robots.txt, delays, redirects, caps, retries."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import httpcore2
from protego import Protego

from gptwo.web.config import CrawlConfig
from gptwo.web.network import GuardedBackend, PrivateAddressError
from gptwo.web.urls import host_of, url_fault

TEXT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_ROBOTS_BYTES = 512_000  # as much as RFC 9309 asks for
REDIRECTS = (301, 302, 303, 307, 308)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one request gave: a response, or an outcome that is not "ok"."""

    outcome: str
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    detail: str = ""

    def header(self, name: bytes) -> str:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[-1].decode("latin-1").strip() if found else ""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of a link."""

    url: str
    final_url: str
    answer: Answer
    request_headers: Headers = field(default_factory=list)

    @property
    def payload_hash(self) -> str:
        return hashlib.sha256(self.answer.body).hexdigest() if self.answer.outcome == "ok" else ""


class Fetcher:
    """Fetches links; knows each host's robots.txt and when it may be asked again."""

    def __init__(self, config: CrawlConfig, connect_to: str = "") -> None:
        self.config = config
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=config.concurrency * 2,
            max_keepalive_connections=config.concurrency,
            network_backend=GuardedBackend(
                allow_private=config.allow_private, connect_to=connect_to
            ),
        )
        self._robots: dict[str, asyncio.Future[Protego | bool]] = {}
        self._free_at: dict[str, float] = {}

    async def close(self) -> None:
        await self._pool.aclose()

    async def fetch(self, url: str) -> Fetched:
        """Follow one link to its page, hop by hop."""
        final, seen = url, {url}
        for _ in range(self.config.max_redirects + 1):
            if not await self._allowed(final):
                return Fetched(url=url, final_url=final, answer=Answer(outcome="robots"))
            answer = await self._persist(final)
            target = answer.header(b"location") if answer.status in REDIRECTS else ""
            if not target:
                return Fetched(
                    url=url,
                    final_url=final,
                    answer=_judged(answer),
                    request_headers=self._headers(final),
                )
            final = urljoin(final, target).split("#")[0]
            if url_fault(final):
                bad = Answer(outcome="bad-redirect", status=answer.status, detail=final[:200])
                return Fetched(url=url, final_url=url, answer=bad)
            if final in seen:
                break
            seen.add(final)
        return Fetched(url=url, final_url=final, answer=Answer(outcome="redirect-loop"))

    async def _persist(self, url: str) -> Answer:
        """Ask until there is an answer or the retries are used up."""
        wait, answer = self.config.retry_seconds, Answer(outcome="not-asked")
        for attempt in range(self.config.retries + 1):
            await self._take_turn(host_of(url))
            answer = await self._request(url, self.config.max_bytes, TEXT_TYPES)
            again = answer.outcome in ("timeout", "connection", "truncated") or (
                answer.status == 429 or answer.status >= 500
            )
            if not again or attempt == self.config.retries:
                break
            asked = answer.header(b"retry-after")
            pause = float(asked) if asked.isdigit() else wait
            await asyncio.sleep(min(pause, self.config.max_delay_seconds))
            wait *= 2
        return answer

    async def _take_turn(self, host: str) -> None:
        """Wait until `host` may be asked again and reserve the next turn after this one."""
        delay = self.config.host_delay_seconds
        known = self._robots.get(host)
        rules = known.result() if known is not None and known.done() else None
        if isinstance(rules, Protego):
            delay = max(delay, float(rules.crawl_delay(self.config.user_agent) or 0))
        now = time.monotonic()
        turn = max(now, self._free_at.get(host, 0.0))
        self._free_at[host] = turn + min(delay, self.config.max_delay_seconds)
        if turn > now:
            await asyncio.sleep(turn - now)

    async def _allowed(self, url: str) -> bool:
        rules = await self._rules(url)
        return rules if isinstance(rules, bool) else rules.can_fetch(url, self.config.user_agent)

    async def _rules(self, url: str) -> Protego | bool:
        """A host's rules: none (True) where robots.txt is missing, closed (False) where it fails.

        RFC 9309: 4xx means everything is allowed, 5xx and no answer that nothing is.
        """
        host = urlsplit(url).netloc.lower()
        name = host_of(url)
        if name in self._robots:
            return await self._robots[name]
        future: asyncio.Future[Protego | bool] = asyncio.get_running_loop().create_future()
        self._robots[name] = future
        try:
            answer = await self._request(
                f"{urlsplit(url).scheme}://{host}/robots.txt", MAX_ROBOTS_BYTES, ()
            )
            if answer.outcome == "private-address":
                future.set_result(True)  # the page itself is refused the same way
            elif answer.status == 200:
                future.set_result(Protego.parse(answer.body.decode("utf-8", "replace")))
            else:
                future.set_result(300 <= answer.status < 500)
        except BaseException:
            future.set_result(False)
            raise
        return future.result()

    def _headers(self, url: str) -> Headers:
        return [
            (b"Host", urlsplit(url).netloc.encode("idna" if not url.isascii() else "ascii")),
            (b"User-Agent", self.config.user_agent.encode()),
            (b"Accept", b"text/html,application/xhtml+xml,text/plain;q=0.8"),
            (b"Accept-Encoding", b"gzip"),
        ]

    async def _request(self, url: str, max_bytes: int, types: tuple[str, ...]) -> Answer:
        """One GET. `types` lists the content types worth reading; none for any."""
        seconds = self.config.page_seconds
        limits = {"connect": seconds, "read": seconds, "write": seconds, "pool": None}
        status, headers = 0, []
        try:
            async with (
                asyncio.timeout(seconds),
                self._pool.stream(
                    "GET", _ascii(url), headers=self._headers(url), extensions={"timeout": limits}
                ) as response,
            ):
                status, headers = response.status, list(response.headers)
                answer = Answer(outcome="ok", status=status, headers=headers)
                kind = answer.header(b"content-type").split(";")[0].strip().lower()
                if status == 200 and types and kind and kind not in types:
                    return Answer(outcome="content-type", status=status, detail=kind)
                body = bytearray()
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        detail = f"over {max_bytes:,} bytes"
                        return Answer(outcome="too-large", status=status, detail=detail)
                return Answer(outcome="ok", status=status, headers=headers, body=bytes(body))
        except PrivateAddressError as error:
            return Answer(outcome="private-address", detail=str(error))
        except (TimeoutError, httpcore2.TimeoutException):
            return Answer(outcome="timeout", status=0, detail=f"over {seconds}s")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            outcome = "truncated" if status else "connection"
            return Answer(outcome=outcome, status=0, detail=str(error)[:200])
        except (ValueError, httpcore2.UnsupportedProtocol) as error:
            return Answer(outcome="bad-url", detail=str(error)[:200])


def _judged(answer: Answer) -> Answer:
    """A whole response that is not a page is called by its status."""
    if answer.outcome == "ok" and answer.status != 200:
        return Answer(outcome=f"http-{answer.status}", status=answer.status)
    return answer


def _ascii(url: str) -> str:
    """An address as it goes over the wire: punycode host, percent-encoded path."""
    from urllib.parse import quote

    if url.isascii():
        return url
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode()
    port = f":{parts.port}" if parts.port else ""
    query = f"?{quote(parts.query, safe='=&%+/?:@!$,;')}" if parts.query else ""
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    return f"{parts.scheme}://{host}{port}{path}{query}"
