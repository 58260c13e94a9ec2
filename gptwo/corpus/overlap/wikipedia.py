"""wikipedia: the paper left it out, because evaluation sets are made of it (section 2.1).

Found by the address, of Wikipedia or of a site that copies it, and by the words of a dump.
"""

from collections.abc import Callable
from pathlib import Path

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.overlap.encyclopedia import WORDS, most_of, open_encyclopedia, overlaps
from gptwo.corpus.overlap.mirrors import copies_wikipedia
from gptwo.corpus.shards import Draft
from gptwo.urls import host_of


def wikipedia(
    drafts: list[Draft],
    config: CorpusConfig,
    at: Callable[[int], None],
    *,
    index: Path | None = None,
) -> None:
    """Drop what lies on an excluded host or a mirror, or was linked there before a redirect
    (section 2.1), and what shares its words with the dump of an index."""
    for number, draft in enumerate(drafts):
        at(number)
        for url in (draft.url, draft.final_url):
            host = host_of(url)
            if host and not draft.reason and excluded(host, config.excluded_hosts):
                draft.drop("excluded-host", host)
            mirror = copies_wikipedia(url) if config.wikipedia_mirrors else ""
            if mirror and not draft.reason:
                draft.drop("wikipedia-mirror", mirror)
    if index:
        _drop_by_words([draft for draft in drafts if not draft.reason], config, index)


def _drop_by_words(drafts: list[Draft], config: CorpusConfig, index: Path) -> None:
    known = open_encyclopedia(index)
    found = overlaps([draft.text for draft in drafts], known)
    for draft, overlap in zip(drafts, found, strict=True):
        if overlap.share >= config.wikipedia_share:
            share = f"{overlap.share:.2f} of {overlap.asked:,} {WORDS}-grams"
            draft.drop("wikipedia-text", f"{share}, {most_of(overlap, known)}".removesuffix(", "))


def excluded(host: str, names: tuple[str, ...]) -> bool:
    """Whether a host has one of the names among its labels, as en.wikipedia.org has wikipedia."""
    return any(f".{name}." in f".{host}." for name in names)
