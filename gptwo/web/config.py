"""Settings of the web room."""

import re
from dataclasses import dataclass
from datetime import date

PRESETS = ("webtext", "openwebtext")


@dataclass(frozen=True, kw_only=True)
class LinksConfig:
    """Which links are kept (paper section 2.1)."""

    min_score: int = 3  # karma; links without a score pass
    first_day: str = ""  # ISO dates of the submission, both inclusive; empty for no limit
    last_day: str = ""
    blocked_subreddits: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()  # besides the preset's
    preset: str = "webtext"  # block nothing that WebText contained; or "openwebtext"
    max_bad_share: float = 0.01  # more unreadable lines than this is an error

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {PRESETS}, found {self.preset!r}")
        if abs(self.min_score) >= 2**31:  # no score is further from 0
            raise ValueError(f"min_score must have 32 bits, found {self.min_score}")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share must be in [0, 1], found {self.max_bad_share}")
        for name in ("first_day", "last_day"):
            if getattr(self, name):
                date.fromisoformat(getattr(self, name))  # compared as text with ISO days


@dataclass(frozen=True, kw_only=True)
class CrawlConfig:
    """How pages are asked for."""

    user_agent: str = "gptwo/0.1 (text corpus for language model research)"
    concurrency: int = 64  # hosts visited at once; one request at a time each
    host_delay_seconds: float = 1.0  # between requests to one host; robots.txt may ask for more
    max_delay_seconds: float = 30.0  # a longer crawl delay or Retry-After is cut to this
    page_seconds: float = 20.0  # for one request, from connect to the last byte
    retries: int = 2  # after time-outs, broken connections, 429 and 5xx
    retry_seconds: float = 0.5  # before the first retry; doubles
    max_redirects: int = 5
    max_bytes: int = 10_000_000  # of one body
    segment_links: int = 500  # links committed together
    allow_private: bool = False  # open loopback and private networks

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_bytes", "segment_links"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("host_delay_seconds", "retries", "retry_seconds", "max_redirects"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        if not re.fullmatch(r"[A-Za-z_-]+[\x20-\x7e]*", self.user_agent):
            raise ValueError(
                f"user_agent must begin with a name for robots.txt, found {self.user_agent!r}"
            )
        if not self.page_seconds > 0:
            raise ValueError(f"page_seconds must be positive, found {self.page_seconds}")
