"""Link files -> one table of links worth fetching (paper section 2.1: at least 3 karma)."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import Manifest, atomic_write, fingerprint_inputs, sha256_file, stage
from gptwo.errors import DataError, UsageError
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.records import Link
from gptwo.urls import canonical_key, host_of, on_domain
from gptwo.web.blocklists import BLOCKED, is_not_text, is_wikipedia, url_fault
from gptwo.web.config import LinksConfig
from gptwo.web.submissions import Submission, read_submissions

COLUMNS = [
    ("url", pa.string()),
    ("key", pa.string()),
    ("score", pa.int32()),
    ("date", pa.string()),
    ("source", pa.string()),
]
LINKS = pa.schema(COLUMNS)
DROPPED = pa.schema([*COLUMNS, ("reason", pa.string())])
GROUP_ROWS = 50_000  # of dropped links, written together
CHECK_LINES = 1000  # between looks at whether to stop
MIN_SCORE = -(2**31)  # of a link without one, beside a link with one


def collect_links(
    files: list[Path], out: Path, config: LinksConfig, reporter: Reporter = SILENT
) -> Manifest:
    """Filter and de-duplicate `files` into out/links.parquet (by key) and out/dropped.parquet.

    The fingerprint is that of the kept links; what is dropped is written in the order it came.
    """
    if not files:
        raise UsageError("no link file is given", remedy="name a Reddit dump or a list of URLs")
    inputs = fingerprint_inputs(files)
    with stage(out, kind="links", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        with (
            atomic_write(made.folder / "dropped.parquet") as handle,
            pq.ParquetWriter(handle, DROPPED, compression="zstd") as dropped,
        ):
            choice = _Choice(config, dropped)
            with reporter.bar("links", None, "submissions") as bar:
                for path in files:
                    choice.read_file(path, bar, reporter)
            choice.flush()
            reasons = dict(sorted(choice.reasons.items()))
            if not choice.kept:
                why = ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())
                names = ", ".join(str(path) for path in files[:3]) + (", ..." if files[3:] else "")
                raise DataError(
                    f"{names}: no link of {choice.read:,} is kept ({why})",
                    remedy="give other files, or loosen the rules",
                )
        rows = [_row(choice.kept[key]) for key in sorted(choice.kept)]
        with atomic_write(made.folder / "links.parquet") as handle:
            pq.write_table(pa.Table.from_pylist(rows, LINKS), handle, compression="zstd")
        return made.commit(
            counts={"read": choice.read, "kept": len(rows), "dropped": reasons},
            fingerprint=sha256_file(made.folder / "links.parquet"),
        )


@dataclass
class _Choice:
    """What is kept and what is not, so far. Only what is kept stays in memory."""

    config: LinksConfig
    writer: pq.ParquetWriter
    kept: dict[str, Link] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    read: int = 0
    waiting: list[dict] = field(default_factory=list)  # dropped, not yet written

    def __post_init__(self) -> None:
        own = map(str.lower, self.config.blocked_domains)
        self.domains = BLOCKED[self.config.preset] | frozenset(own)
        self.subreddits = frozenset(map(str.lower, self.config.blocked_subreddits))

    def read_file(self, path: Path, bar: Bar, reporter: Reporter) -> None:
        bad = count = 0
        example = ""
        for count, submission in enumerate(read_submissions(path), 1):
            if count % CHECK_LINES == 0:
                reporter.check()
            bar.advance()
            if submission.fault:
                bad += 1
                example = example or submission.fault[:200]
            self.take(submission, path.name)
        self.read += count
        if bad > max(1, self.config.max_bad_share * count):
            raise DataError(
                f"{path}: {bad:,} of {count:,} lines cannot be read ({example})",
                remedy="restore the file, or raise max_bad_share",
            )

    def take(self, submission: Submission, source: str) -> None:
        """Keep a submission's link, or note why not. Of one key the best link stays."""
        url = submission.url
        reason = "unreadable" if submission.fault else self.why_not(submission)
        key = "" if reason and url_fault(url) else canonical_key(url)
        link = Link(url=url, key=key, score=submission.score, date=submission.date, source=source)
        if reason:
            self.drop(link, reason)
            return
        other = self.kept.get(key)
        if other is not None:
            link, worse = sorted((link, other), key=_rank)
            self.drop(worse, "duplicate")
        self.kept[key] = link

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

    def drop(self, link: Link, reason: str) -> None:
        self.reasons[reason] += 1
        self.waiting.append({**_row(link), "reason": reason})
        if len(self.waiting) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.Table.from_pylist(self.waiting, DROPPED))
            self.waiting = []


def _row(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in LINKS.names}


def _rank(link: Link) -> tuple:
    """Sorts the better of two links first: higher score, then the smaller address, day, file.

    Nothing is left to the order of the files.
    """
    score = MIN_SCORE if link.score is None else link.score
    return (-score, len(link.url), link.url, link.date, link.source)
