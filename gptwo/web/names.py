"""Names of hosts -> addresses, remembered for a while.

The system's resolver blocks, up to half a minute where a name server is dead, so each question has
a thread of its own. These are not waited for when a crawl ends.
"""

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

MOST_QUESTIONS = 512  # open at one time
MOST_NAMES = 20_000  # remembered
UNKNOWN_SECONDS = 60.0  # that "no such name" is remembered

Lookup = Callable[[str], list[str]]


class UnknownNameError(OSError):
    """A name that has no address; `passing` where that may be different soon."""

    def __init__(self, why: str, *, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing


def look_up(host: str) -> list[str]:
    """What the system says; raises UnknownNameError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        passing = isinstance(error, OSError) and error.errno == socket.EAI_AGAIN
        why = f"{host} cannot be resolved: {error}"
        raise UnknownNameError(why, passing=passing) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Names:
    """The addresses of hosts, each asked for once in `seconds`."""

    def __init__(self, seconds: float, lookup: Lookup | None = None) -> None:
        self._seconds, self._lookup = seconds, lookup or look_up
        self._known: OrderedDict[str, tuple[float, list[str] | str]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[list[str]]] = {}
        self._free = asyncio.Semaphore(MOST_QUESTIONS)

    async def addresses(self, host: str) -> list[str]:
        """Raises UnknownNameError. Who asks while a question is open waits for the same answer."""
        until, answer = self._known.get(host, (0.0, []))
        if time.monotonic() < until:
            self._known.move_to_end(host)
            if isinstance(answer, str):
                raise UnknownNameError(answer, passing=False)
            return answer
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = asyncio.ensure_future(self._ask(host))
            asking.add_done_callback(lambda done: self._remember(host, done))
        return await asyncio.shield(asking)  # who gives up does not take the answer from others

    async def _ask(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | Exception) -> None:
            if not answer.done():
                if isinstance(found, Exception):
                    answer.set_exception(found)
                else:
                    answer.set_result(found)

        def ask() -> None:
            try:
                found: list[str] | Exception = self._lookup(host)
            except Exception as error:
                found = error
            with suppress(RuntimeError):  # the crawl is over
                loop.call_soon_threadsafe(settle, found)

        async with self._free:
            try:
                threading.Thread(target=ask, name=f"name {host}", daemon=True).start()
            except RuntimeError as error:  # this machine has no room for one more
                raise UnknownNameError(f"{host}: {error}", passing=True) from error
            return await answer

    def _remember(self, host: str, done: "asyncio.Future[list[str]]") -> None:
        self._asking.pop(host, None)
        if done.cancelled():
            return
        error, now = done.exception(), time.monotonic()
        if error is None:
            self._known[host] = (now + self._seconds, done.result())
        elif isinstance(error, UnknownNameError) and not error.passing:
            self._known[host] = (now + UNKNOWN_SECONDS, str(error))
        else:  # the next retry may have an answer
            return
        self._known.move_to_end(host)
        while len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)
