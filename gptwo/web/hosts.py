"""What is known of each host while it is visited: its rules, its turn, its failures."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from gptwo.web.config import CrawlConfig
from gptwo.web.request import Answer
from gptwo.web.robots import Rules

IDLE_HOSTS = 1000  # remembered besides those that are visited
LOOKS = 16  # at old hosts, for one that may be forgotten


@dataclass
class Host:
    """When a host may be asked again, and by whom: one request at a time."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)  # for robots.txt
    rules: dict[str, Rules] = field(default_factory=dict)  # by host and port
    free_at: float = 0.0
    delay_seconds: float = 0.0
    retries: int = 0  # spent
    failures: int = 0  # requests without an answer, one after the other
    last: Answer | None = None  # the last of these
    users: int = 0

    def judge(self, answer: Answer) -> None:
        """Count requests that nobody answered."""
        self.last = answer if answer.unreached else None
        self.failures = self.failures + 1 if answer.unreached else 0


class Hosts:
    """Hosts by name. Few of the idle ones are kept, so memory does not follow their number."""

    def __init__(self, config: CrawlConfig) -> None:
        self.config = config
        self._known: OrderedDict[str, Host] = OrderedDict()
        self._most = 4 * config.concurrency + IDLE_HOSTS

    def __len__(self) -> int:
        return len(self._known)

    @contextmanager
    def use(self, name: str) -> Iterator[Host]:
        host = self._known.setdefault(name, Host())
        self._known.move_to_end(name)
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            if len(self._known) > self._most:
                self._forget()

    def _forget(self) -> None:
        """Drop hosts that were not used for long, but none that is to be left alone for now."""
        for _ in range(LOOKS):
            name, host = next(iter(self._known.items()))
            if host.users or host.free_at > time.monotonic():
                self._known.move_to_end(name)
            else:
                del self._known[name]
                return

    @asynccontextmanager
    async def turn(self, host: Host) -> AsyncIterator[None]:
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
