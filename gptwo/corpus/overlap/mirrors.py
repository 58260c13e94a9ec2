"""Whose addresses hold Wikipedia's text: Wikipedia itself, its mirrors, pages within pages.

A list of names is never whole: `wikipedia_dump` finds the others by their words.
"""

import re
from urllib.parse import unquote, urlsplit

from gptwo.urls import host_of, on_domain

# Sites that show Wikipedia's articles, copied, translated by machine, or as the ground of their own
# (forks); none that only quotes it or holds much else. wikiwand.com is among WebText's 1000 top
# domains, so links that lead there are fetched: that is why this list is not that of the links.
_MIRRORS = """
    absoluteastronomy.com alchetron.com alegsaonline.com dbpedia.org de-academic.com deacademic.com
    deletionpedia.org en-academic.com en.academic.ru enacademic.com
    encyclopedia.thefreedictionary.com esacademic.com everipedia.com everipedia.org explained.today
    fact-index.com fracademic.com gpedia.com hmong.wiki infogalactic.com justapedia.org
    kids.kiddle.co knowpia.com linkfang.org newworldencyclopedia.org revolvy.com
    schools-wikipedia.org second.wiki thefullwiki.org thereaderwiki.com veropedia.com wapedia.mobi
    wiki2.org wikibrief.org wikimili.com wikinfo.org wikivisually.com wikiwand.com wikizero.com
    wikizero.org zxc.wiki
"""
MIRRORS = frozenset(_MIRRORS.split())

# An archive, a translator or a proxy that has an article's address in its own.
_WITHIN = re.compile(r"(?:^|[/=:.@])wikipedia\.org(?::\d+)?/(?:wiki|w|zh-[a-z]+)(?:/|$)")


def copies_wikipedia(url: str) -> str:
    """The host, or the address within the address, that makes a URL a copy of Wikipedia; or "".

    >>> copies_wikipedia("https://www.wikiwand.com/en/GPT-2")
    'www.wikiwand.com'
    >>> copies_wikipedia("https://en-wikipedia-org.translate.goog/wiki/GPT-2")
    'en-wikipedia-org.translate.goog'
    """
    host = host_of(url)
    if on_domain(host, MIRRORS) or _is_proxied(host):
        return host
    parts = urlsplit(url) if host else None
    if parts is None or "wikipedia" not in url.lower():
        return ""
    inner = f"{parts.path}?{parts.query}"
    for _ in range(2):  # an address in a query may be quoted once more
        inner = unquote(inner)
    return "wikipedia.org within an address" if _WITHIN.search(inner.lower()) else ""


def _is_proxied(host: str) -> bool:
    """Google's translator and library proxies write dots as hyphens: en-m-wikipedia-org.proxy."""
    first, _, rest = host.partition(".")
    return bool(rest) and f"-{first}".endswith("-wikipedia-org")
