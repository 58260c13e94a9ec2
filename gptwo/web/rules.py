"""Which submissions have a link worth fetching. The kernel links.c decides the plain ones alike."""

from datetime import date

from gptwo.urls import canonical_key, host_of, on_domain
from gptwo.web.blocklists import BLOCKED, NOT_TEXT, WIKIPEDIA, is_not_text, is_wikipedia, url_fault
from gptwo.web.config import LinksConfig
from gptwo.web.submissions import Submission

# Why a link is dropped, in the order of the rules; the place in the tuple is the kernel's code.
REASONS = (
    "",
    "unreadable",
    "self",
    "over-18",
    "low-score",
    "url-length",
    "url-malformed",
    "date",
    "subreddit",
    "wikipedia",
    "domain",
    "not-text",
)
CODES = {reason: code for code, reason in enumerate(REASONS)}
ABSENT = -(2**31)  # in the place of a score or a day that a submission lacks
EPOCH = date(1970, 1, 1).toordinal()

# code (0: kept), url, key ("" where no rule needed one), score, day since 1970
Row = tuple[int, str, str, int, int]


class Rules:
    """The rules of a LinksConfig, ready to be asked."""

    def __init__(self, config: LinksConfig) -> None:
        self.config = config
        own = (_bare(name) for name in config.blocked_domains)
        self.domains = BLOCKED[config.preset] | (frozenset(own) - {""})
        self.subreddits = frozenset(map(str.lower, config.blocked_subreddits))

    def for_kernel(self) -> tuple[int, int, int, str, str, str, str]:
        """The same for the kernel: numbers, and lists of words, one a line."""
        lists = (self.subreddits, WIKIPEDIA, self.domains, NOT_TEXT)
        first, last = self.config.first_day, self.config.last_day
        return (
            self.config.min_score,
            day_number(first) if first else ABSENT,
            day_number(last) if last else -ABSENT - 1,
            *("\n".join(sorted(words)) for words in lists),  # type: ignore[return-value]
        )

    def row(self, submission: Submission) -> Row:
        """A submission judged."""
        reason = "unreadable" if submission.fault else self.why_not(submission)
        asked = CODES[reason] > CODES["url-malformed"] or not reason
        key = canonical_key(submission.url) if asked else ""
        score = ABSENT if submission.score is None else submission.score
        day = day_number(submission.date) if submission.date else ABSENT
        return CODES[reason], submission.url, key, score, day

    def why_not(self, submission: Submission) -> str:
        """The first rule a submission breaks, or ""."""
        if submission.is_self:
            return "self"
        if submission.over_18:
            return "over-18"
        if submission.score is not None and submission.score < self.config.min_score:
            return "low-score"
        fault = url_fault(submission.url)
        if fault:
            return fault
        if submission.date and not (
            (not self.config.first_day or submission.date >= self.config.first_day)
            and (not self.config.last_day or submission.date <= self.config.last_day)
        ):
            return "date"
        if submission.subreddit in self.subreddits:
            return "subreddit"
        host = host_of(submission.url)
        if is_wikipedia(host):
            return "wikipedia"
        if on_domain(host, self.domains):
            return "domain"
        return "not-text" if is_not_text(submission.url) else ""


def day_number(day: str) -> int:
    """`day_number("1970-01-02") == 1`"""
    return date.fromisoformat(day).toordinal() - EPOCH


def _bare(domain: str) -> str:
    """A domain as a host is compared: lower case, punycode, whatever surrounded it gone."""
    address = domain.strip().lower()
    return host_of(address if "://" in address else f"//{address}").removeprefix("www.")
