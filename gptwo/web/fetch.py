"""One link -> one outcome: robots.txt, delays, redirects, retries."""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from gptwo.urls import authority, host_of, wire_url
from gptwo.web.blocklists import url_fault
from gptwo.web.config import CrawlConfig
from gptwo.web.request import TEXT_TYPES, Answer, Client, Headers
from gptwo.web.robots import MAX_ROBOTS_BYTES, MAX_ROBOTS_REDIRECTS, Rules, rules_of

REDIRECTS = (301, 302, 303, 307, 308)
BROKEN = ("timeout", "connection", "truncated")  # outcomes that may be better next time


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


@dataclass
class _Host:
    """When a host may be asked again, and by whom: one request at a time."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at: float = 0.0
    delay_seconds: float = 0.0


class Fetcher:
    """Fetches links; knows each host's robots.txt and when it may be asked again."""

    def __init__(self, config: CrawlConfig, connect_to: str = "") -> None:
        self.config = config
        self._client = Client(config, connect_to)
        self._hosts: defaultdict[str, _Host] = defaultdict(_Host)
        self._rules: dict[str, Rules] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def close(self) -> None:
        await self._client.close()

    async def fetch(self, url: str) -> Fetched:
        """Follow one link to its page, hop by hop."""
        final = wire_url(url)
        seen = {final}
        for _ in range(self.config.max_redirects + 1):
            refusal = (await self._rules_for(final)).refusal(final)
            if refusal:
                return Fetched(url=url, final_url=final, answer=refusal)
            answer = await self._persist(final, self.config.max_bytes, TEXT_TYPES)
            target = _target(final, answer)
            if not target:
                return Fetched(
                    url=url,
                    final_url=final,
                    answer=_judged(answer),
                    request_headers=self._client.headers(final),
                )
            if url_fault(target):
                bad = Answer(outcome="bad-redirect", status=answer.status, detail=target[:200])
                return Fetched(url=url, final_url=final, answer=bad)
            final = wire_url(target)
            if final in seen:
                break
            seen.add(final)
        return Fetched(url=url, final_url=final, answer=Answer(outcome="redirect-loop"))

    async def _persist(
        self, url: str, max_bytes: int, types: tuple[str, ...] = (), *, cut: bool = False
    ) -> Answer:
        """Ask until there is an answer or the retries are used up."""
        host, wait = self._hosts[host_of(url)], self.config.retry_seconds
        for _ in range(self.config.retries):
            async with self._turn(host):
                answer = await self._client.get(url, max_bytes, types, cut=cut)
            busy = answer.status == 429 or answer.status >= 500
            if answer.outcome not in BROKEN and not busy:
                return answer
            pause = min(_retry_after(answer, wait), self.config.max_delay_seconds)
            host.free_at = max(host.free_at, time.monotonic() + pause)
            wait *= 2
        async with self._turn(host):
            return await self._client.get(url, max_bytes, types, cut=cut)

    @asynccontextmanager
    async def _turn(self, host: _Host) -> AsyncIterator[None]:
        """Wait until a host is asked by nobody else and its delay is over."""
        async with host.turn:
            wait = host.free_at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                yield
            finally:
                delay = max(self.config.host_delay_seconds, host.delay_seconds)
                host.free_at = time.monotonic() + min(delay, self.config.max_delay_seconds)

    async def _rules_for(self, url: str) -> Rules:
        """The rules of a URL's host and port, asked for once."""
        name = authority(url)
        async with self._asking[name]:
            if name not in self._rules:
                self._rules[name] = await self._ask_rules(url)
        return self._rules[name]

    async def _ask_rules(self, url: str) -> Rules:
        """RFC 9309: redirects of robots.txt are followed, to other hosts too."""
        asked = f"{urlsplit(url).scheme}://{authority(url)}/robots.txt"
        answer = Answer(outcome="not-asked")
        for _ in range(MAX_ROBOTS_REDIRECTS + 1):
            answer = await self._persist(asked, MAX_ROBOTS_BYTES, cut=True)
            target = _target(asked, answer)
            if not target or url_fault(target):
                break
            asked = wire_url(target)
        rules = rules_of(answer, self.config.user_agent)
        host = self._hosts[host_of(url)]
        host.delay_seconds = max(host.delay_seconds, rules.delay_seconds)
        return rules


def _target(url: str, answer: Answer) -> str:
    """Where a redirect leads, as an absolute address; "" for what is none."""
    location = answer.header(b"location") if answer.status in REDIRECTS else ""
    if not location:
        return ""
    with suppress(UnicodeDecodeError):  # many servers send the address as it is, in UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        return urljoin(url, location).replace(" ", "%20")
    except ValueError:
        return location  # an address that cannot be parsed: its fault is named by the caller


def _retry_after(answer: Answer, otherwise: float) -> float:
    """Seconds that a busy server asks to wait, given as a number or as a date."""
    asked = answer.header(b"retry-after")
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    try:
        until = parsedate_to_datetime(asked)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return otherwise


def _judged(answer: Answer) -> Answer:
    """A whole response that is not a page is called by its status."""
    if answer.outcome == "ok" and answer.status != 200:
        return Answer(outcome=f"http-{answer.status}", status=answer.status)
    return answer
