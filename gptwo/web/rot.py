"""Link rot: what became of links, in few classes, by the year in which people shared them."""

from collections import Counter
from collections.abc import Iterable
from urllib.parse import urlsplit

from gptwo.urls import canonical_key

SAME, MOVED, HOME = "same", "moved", "home"

# The order in which a table shows them.
CLASSES = {
    "alive": "the page is there",
    "moved": "it is elsewhere now",
    "home": "a redirect from a page to a site's front page: a soft 404, most of the time",
    "gone": "404 or 410",
    "denied": "any other 4xx",
    "failing": "5xx",
    "dns": "the name has no address any more",
    "refused": "nobody listens",
    "timeout": "no answer in time",
    "broken": "the connection, its certificate or the answer is damaged",
    "loop": "redirects that lead nowhere",
    "robots": "not asked: robots.txt forbids it or fails",
    "not-text": "another type of content, or too large",
    "private": "leads into a private network",
    "not-asked": "a budget was used up",
}
_CLASS_OF = {
    "http-404": "gone",
    "http-410": "gone",
    "dns": "dns",
    "refused": "refused",
    "timeout": "timeout",
    "redirect-loop": "loop",
    "bad-redirect": "loop",
    "robots": "robots",
    "content-type": "not-text",
    "too-large": "not-text",
    "private-address": "private",
    "not-asked": "not-asked",
}
_ALIVE = {SAME: "alive", MOVED: "moved", HOME: "home"}


def place_of(url: str, final_url: str) -> str:
    """Whether a link led to its own address (in any spelling), elsewhere, or to a front page."""
    try:
        if canonical_key(url) == canonical_key(final_url):
            return SAME
    except ValueError:
        return MOVED
    begin, end = urlsplit(url), urlsplit(final_url)
    deep = begin.path.strip("/") or begin.query
    return HOME if deep and not end.path.strip("/") and not end.query else MOVED


def rot_class(outcome: str, place: str = SAME) -> str:
    """The class of an outcome; of "ok" by where the link led."""
    if outcome == "ok":
        return _ALIVE.get(place, "alive")
    if outcome in _CLASS_OF:
        return _CLASS_OF[outcome]
    if outcome.startswith("http-4"):
        return "denied"
    if outcome.startswith("http-5"):
        return "failing"
    return "loop" if outcome.startswith("http-3") else "broken"


def rot_by_year(rows: Iterable[tuple[str, str, str, int]]) -> dict[str, dict[str, int]]:
    """(year, outcome, place, links) -> links by year and class, years and classes in order."""
    years: dict[str, Counter[str]] = {}
    for year, outcome, place, links in rows:
        years.setdefault(year, Counter())[rot_class(outcome, place)] += links
    return {
        year: {name: years[year][name] for name in CLASSES if years[year][name]}
        for year in sorted(years)
    }


def rot_table(years: dict[str, dict[str, int]]) -> list[str]:
    """The table as lines of text: shares of each year's links, in percent, and of all."""
    total: Counter[str] = Counter()
    for counts in years.values():
        total.update(counts)
    shown = [name for name in CLASSES if total[name]]
    lines = [f"{'link rot':<8} {'links':>11} " + " ".join(f"{name:>9}" for name in shown)]
    rows = [*years.items(), ("all", total)] if len(years) != 1 else [("all", total)]
    for year, counts in rows:
        links = sum(counts.values())
        shares = " ".join(f"{counts.get(name, 0) / max(links, 1):>9.1%}" for name in shown)
        lines.append(f"{year or 'no date':<8} {links:>11,} {shares}")
    return lines
