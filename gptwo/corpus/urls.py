"""What a document's URL decides: whether it is Wikipedia's, and its side of the split."""

import hashlib
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.pool import Task
from gptwo.corpus.shards import read_shard, write_shard

_TRACKING = ("utm_", "fbclid", "gclid", "mc_cid", "mc_eid")


def wikipedia_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Drop what lies on an excluded host, or was linked there before a redirect (section 2.1)."""
    drafts = read_shard(task.input)
    for number, draft in enumerate(drafts):
        at(number)
        for url in (draft.url, draft.final_url):
            host = host_of(url)
            if host and not draft.reason and excluded(host, config.excluded_hosts):
                draft.drop("excluded-host", host)
    write_shard(task.output, drafts)


def host_of(url: str) -> str:
    """Lower-case host name of a URL, "" when it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def excluded(host: str, names: tuple[str, ...]) -> bool:
    """Whether a host has one of the names among its labels, as en.wikipedia.org has wikipedia."""
    return any(f".{name}." in f".{host}." for name in names)


def split_key(url: str) -> str:
    """What two spellings of an address share: no scheme, `www.`, fragment or tracking fields."""
    try:
        parts = urlsplit(url)
        host = host_of(url).removeprefix("www.")
    except ValueError:
        return url
    fields = [
        field
        for field in parse_qsl(parts.query, keep_blank_values=True)
        if not field[0].lower().startswith(_TRACKING)
    ]
    query = urlencode(sorted(fields))
    return host + (unquote(parts.path).rstrip("/") or "/") + (f"?{query}" if query else "")


def split_of(identity: str, url: str, config: CorpusConfig) -> str:
    """`"train"`, `"valid"` or `"test"`, by a hash of the URL, or of the id where there is none.

    It depends on nothing else, so a document stays on its side whatever joins the corpus later.
    """
    key = split_key(url) if url else identity
    number = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest())
    share = number / 2**64
    if share < config.test_share:
        return "test"
    return "valid" if share < config.test_share + config.valid_share else "train"
