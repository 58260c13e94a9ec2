"""wikipedia: the paper left it out, because evaluation sets are made of it (section 2.1)."""

from collections.abc import Callable

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import Draft
from gptwo.urls import host_of


def wikipedia(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Drop what lies on an excluded host, or was linked there before a redirect (section 2.1)."""
    for number, draft in enumerate(drafts):
        at(number)
        for url in (draft.url, draft.final_url):
            host = host_of(url)
            if host and not draft.reason and excluded(host, config.excluded_hosts):
                draft.drop("excluded-host", host)


def excluded(host: str, names: tuple[str, ...]) -> bool:
    """Whether a host has one of the names among its labels, as en.wikipedia.org has wikipedia."""
    return any(f".{name}." in f".{host}." for name in names)
