"""One link -> one outcome: robots.txt, delays, redirects, retries."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from gptwo.web.address import Address, address_of
from gptwo.web.blocklists import url_fault
from gptwo.web.config import CrawlConfig
from gptwo.web.hosts import Host, Hosts
from gptwo.web.request import TEXT_TYPES, Answer, Client, Wanted
from gptwo.web.robots import MAX_ROBOTS_BYTES, MAX_ROBOTS_REDIRECTS, Rules, rules_of

REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better next time
FREE_RETRIES = 100  # before `retry_share` counts
ROBOTS = Wanted(bytes=MAX_ROBOTS_BYTES, cut=True)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of a link.

    Attributes:
        hops: redirects on the way, each an address and its answer.
        tries: requests for pages in all, retries included; 0 where a rule forbade the first.
    """

    url: str
    final_url: str
    answer: Answer
    hops: tuple[tuple[str, Answer], ...] = ()
    tries: int = 0


class Fetcher:
    """Fetches links; knows each host's robots.txt and when it may be asked again."""

    def __init__(self, config: CrawlConfig, client: Client) -> None:
        self.config, self.client = config, client
        self.retries = 0  # spent in all
        self._hosts = Hosts(config)

    async def fetch(self, url: str, *, more: bool = True) -> Fetched:
        """Follow one link to its page, hop by hop; `more` links of its host will follow."""
        at, hops, tries = address_of(url), [], 0
        own, seen = at.host, {at.url}

        def ended(answer: Answer) -> Fetched:
            return Fetched(url=url, final_url=at.url, answer=answer, hops=tuple(hops), tries=tries)

        for _ in range(self.config.max_redirects + 1):
            with self._hosts.use(at.host) as host:
                refusal = (await self._rules_for(at, host)).refusal(at.url)
                if refusal:
                    return ended(refusal)
                wanted = Wanted(
                    bytes=self.config.max_bytes, types=TEXT_TYPES, more=more and at.host == own
                )
                answer, n = await self._persist(host, at, wanted)
                tries += n
            target = _target(at.url, answer)
            if not target:
                return ended(_judged(answer))
            hops.append((at.url, answer))
            if url_fault(target):
                return ended(Answer(outcome="bad-redirect", detail=target[:200]))
            at = address_of(target)
            if at.url in seen:
                return ended(Answer(outcome="redirect-loop", detail="leads back to itself"))
            seen.add(at.url)
        return ended(
            Answer(outcome="redirect-loop", detail=f"more than {self.config.max_redirects} hops")
        )

    async def _persist(self, host: Host, at: Address, wanted: Wanted) -> tuple[Answer, int]:
        """Ask until there is an answer or a budget of retries is used up; with the requests made.

        A host that did not answer several requests is not asked any more.
        """
        wait, tries = self.config.retry_seconds, 0
        while True:
            async with self._hosts.turn(host):
                if host.failures >= self.config.host_failures and host.last is not None:
                    return replace(host.last, detail=f"host given up: {host.last.detail}"), tries
                answer = await self.client.get(at, wanted)
                tries += 1
            busy = answer.status in BUSY
            again = (answer.passing or busy) and tries <= self.config.retries
            if not again or not self._may_retry(host):
                host.judge(answer)
                return answer, tries
            pause = min(_retry_after(answer, wait), self.config.max_delay_seconds)
            host.free_at = max(host.free_at, time.monotonic() + pause)
            wait *= 2

    def _may_retry(self, host: Host) -> bool:
        """Take one from the retries that a host and the whole crawl have."""
        most = FREE_RETRIES + self.config.retry_share * self.client.requests
        if host.retries >= self.config.host_retries or self.retries >= most:
            return False
        host.retries += 1
        self.retries += 1
        return True

    async def _rules_for(self, at: Address, host: Host) -> Rules:
        """The rules of an address's host and port, asked for once."""
        rules = host.rules.get(at.authority)
        if rules is None:
            async with host.asking:
                rules = host.rules.get(at.authority)
                if rules is None:
                    rules = host.rules[at.authority] = await self._ask_rules(at, host)
        return rules

    async def _ask_rules(self, at: Address, host: Host) -> Rules:
        """RFC 9309: redirects of robots.txt are followed, to other hosts too."""
        asked, answer = at.robots, Answer(outcome="not-asked")
        for _ in range(MAX_ROBOTS_REDIRECTS + 1):
            with self._hosts.use(asked.host) as asked_host:
                answer, _ = await self._persist(asked_host, asked, ROBOTS)
            target = _target(asked.url, answer)
            if not target or url_fault(target):
                break
            asked = address_of(target)
        rules = rules_of(answer, self.config.user_agent)
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
        return replace(answer, outcome=f"http-{answer.status}")
    return answer
