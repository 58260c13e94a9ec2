"""What a host asks of crawlers (robots.txt, RFC 9309)."""

import re
import zlib
from dataclasses import dataclass

from protego import Protego

from gptwo.web.request import Answer

MAX_ROBOTS_BYTES = 512_000  # as much as RFC 9309 asks to read; the rest is cut
MAX_ROBOTS_REDIRECTS = 5


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of one host; without any, everything is allowed."""

    robot: str = ""
    parsed: Protego | None = None
    closed: Answer | None = None  # why nothing may be fetched at all

    def refusal(self, url: str) -> Answer | None:
        """What takes the place of a page that may not be fetched; None for one that may."""
        if self.parsed is not None and not self.parsed.can_fetch(url, self.robot):
            return Answer(outcome="robots", detail="disallowed by robots.txt")
        return self.closed

    @property
    def delay_seconds(self) -> float:
        return float(self.parsed.crawl_delay(self.robot) or 0) if self.parsed else 0.0


def rules_of(answer: Answer, user_agent: str) -> Rules:
    """Read the answer to a request for robots.txt.

    Missing (4xx) means that everything is allowed; failing (5xx, "slow down", no answer) that
    nothing is, for the host may have rules that we cannot see.
    """
    if answer.outcome != "ok":
        detail = f"robots.txt: {answer.detail}"
        return Rules(closed=Answer(outcome=answer.outcome, detail=detail))
    if answer.status >= 500 or answer.status == 429:
        detail = f"robots.txt answers {answer.status}"
        return Rules(closed=Answer(outcome="robots", detail=detail))
    if answer.status != 200:
        return Rules()
    try:
        text = _plain(answer).decode("utf-8-sig", "replace")
    except zlib.error as error:
        detail = f"robots.txt: {error}"
        return Rules(closed=Answer(outcome="robots", detail=detail))
    return Rules(robot=robot_name(user_agent), parsed=Protego.parse(text))


def robot_name(user_agent: str) -> str:
    """The product token that groups of robots.txt name: "gptwo" of "gptwo/0.1 (a comment)"."""
    return re.split(r"[^A-Za-z_-]", user_agent, maxsplit=1)[0]


def _plain(answer: Answer) -> bytes:
    if answer.header(b"content-encoding").lower() not in ("gzip", "x-gzip"):
        return answer.body
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(answer.body, MAX_ROBOTS_BYTES)
