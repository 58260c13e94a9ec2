"""Settings of the web room."""

import re
from dataclasses import dataclass
from datetime import date
from math import inf

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
    """How pages are asked for. A budget of 0 is no limit."""

    user_agent: str = "gptwo/0.1 (text corpus for language model research)"
    concurrency: int = 512  # hosts visited at once; one request at a time each
    host_delay_seconds: float = 1.0  # between requests to one host; robots.txt may ask for more
    max_delay_seconds: float = 30.0  # a longer crawl delay or Retry-After is cut to this
    page_seconds: float = 20.0  # for one request, from its name's address to the last byte
    max_redirects: int = 5
    max_bytes: int = 10_000_000  # of one body
    retries: int = 2  # of one request, after faults that may pass
    retry_seconds: float = 0.5  # before the first retry; doubles
    host_retries: int = 10  # of all requests to one host
    retry_share: float = 0.1  # of all requests that may be retries
    host_failures: int = 5  # requests without an answer, one after the other, end a host
    host_pages: int = 0  # links of one host that are asked for
    host_bytes: int = 0  # of bodies from one host
    total_pages: int = 0  # links that are asked for in all
    total_bytes: int = 0  # of bodies in all
    total_seconds: float = 0.0  # of one run of the command
    dns_seconds: float = 300.0  # that a host's addresses are remembered
    segment_links: int = 20_000  # in one WARC file
    segment_bytes: int = 256_000_000  # of one WARC file, as written
    allow_private: bool = False  # open loopback and private networks

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_bytes", "host_failures", "segment_links", "segment_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < inf:
                raise ValueError(f"{name} must be finite and not negative, found {value}")
        if not re.fullmatch(r"[A-Za-z_-]+[\x20-\x7e]*", self.user_agent):
            raise ValueError(
                f"user_agent must begin with a name for robots.txt, found {self.user_agent!r}"
            )
        if not self.page_seconds > 0:
            raise ValueError(f"page_seconds must be positive, found {self.page_seconds}")
