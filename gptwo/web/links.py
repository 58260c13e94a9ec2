"""Link files -> one table of links worth fetching (paper section 2.1: at least 3 karma)."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import Manifest, atomic_write, fingerprint_inputs, stage
from gptwo.errors import DataError
from gptwo.progress import SILENT, Reporter
from gptwo.records import Link
from gptwo.web.config import LinksConfig
from gptwo.web.submissions import Submission, read_submissions
from gptwo.web.urls import (
    BLOCKED,
    canonical_key,
    host_of,
    is_not_text,
    is_wikipedia,
    on_domain,
    url_fault,
)

COLUMNS = [
    ("url", pa.string()),
    ("key", pa.string()),
    ("score", pa.int32()),
    ("date", pa.string()),
    ("source", pa.string()),
]
LINKS = pa.schema(COLUMNS)
DROPPED = pa.schema([*COLUMNS, ("reason", pa.string())])


def collect_links(
    files: list[Path], out: Path, config: LinksConfig, reporter: Reporter = SILENT
) -> Manifest:
    """Filter and de-duplicate `files` into out/links.parquet (by key) and out/dropped.parquet."""
    inputs = fingerprint_inputs(files)
    with stage(out, kind="links", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        kept: dict[str, Link] = {}
        dropped: list[tuple[Link, str]] = []
        read = 0
        with reporter.bar("links", None, "submissions") as bar:
            for path in files:
                bad = count = 0
                for count, submission in enumerate(read_submissions(path), 1):
                    if count % 1000 == 0:
                        reporter.check()
                    bar.advance()
                    read += 1
                    bad += bool(submission.fault)
                    _take(submission, path.name, config, kept, dropped)
                _check_bad(path, bad, count, config)
        if not kept:
            raise DataError(f"no link of {read:,} is kept", remedy="look at the rules (--dry-run)")
        rows = sorted(kept.values(), key=lambda link: link.key)
        _write(made.folder / "links.parquet", [asdict(link) for link in rows], LINKS)
        lost = [{**asdict(link), "reason": reason} for link, reason in dropped]
        lost.sort(key=lambda row: (row["key"], row["url"], row["reason"], row["score"] or 0))
        _write(made.folder / "dropped.parquet", lost, DROPPED)
        reasons = dict(sorted(Counter(reason for _, reason in dropped).items()))
        return made.commit(counts={"read": read, "kept": len(rows), "dropped": reasons})


def _check_bad(path: Path, bad: int, count: int, config: LinksConfig) -> None:
    if bad > max(1, config.max_bad_share * count):
        raise DataError(
            f"{path}: {bad:,} of {count:,} lines cannot be read",
            remedy="restore the file, or raise max_bad_share",
        )


def _take(
    submission: Submission,
    source: str,
    config: LinksConfig,
    kept: dict[str, Link],
    dropped: list[tuple[Link, str]],
) -> None:
    """Keep a submission's link, or note why not. Of one key the best score stays."""
    reason = "unreadable" if submission.fault else why_not(submission, config)
    key = "" if reason in ("unreadable", *_FAULTS) else canonical_key(submission.url)
    link = Link(
        url=submission.url, key=key, score=submission.score, date=submission.date, source=source
    )
    if reason:
        dropped.append((link, reason))
        return
    other = kept.get(key)
    if other is None:
        kept[key] = link
        return
    worse, better = sorted((other, link), key=_worth)
    kept[key] = better
    dropped.append((worse, "duplicate"))


_FAULTS = ("url-length", "url-malformed")


def _worth(link: Link) -> tuple:
    """Sorts the better of two links last: higher score, then the smaller address and day."""
    return (link.score or 0, [-ord(c) for c in link.url], [-ord(c) for c in link.date])


def why_not(submission: Submission, config: LinksConfig) -> str:
    """The first rule a submission breaks, or ""."""
    if submission.is_self:
        return "self"
    if submission.over_18:
        return "over-18"
    if submission.score is not None and submission.score < config.min_score:
        return "low-score"
    fault = url_fault(submission.url)
    if fault:
        return fault
    if submission.date and not (
        (not config.first_day or submission.date >= config.first_day)
        and (not config.last_day or submission.date <= config.last_day)
    ):
        return "date"
    if submission.subreddit in {name.lower() for name in config.blocked_subreddits}:
        return "subreddit"
    host = host_of(submission.url)
    if is_wikipedia(host):
        return "wikipedia"
    if on_domain(host, BLOCKED[config.preset] | frozenset(config.blocked_domains)):
        return "domain"
    return "not-text" if is_not_text(submission.url) else ""


def _write(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    with atomic_write(path) as handle:
        pq.write_table(pa.Table.from_pylist(rows, schema), handle, compression="zstd")
