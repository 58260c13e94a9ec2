"""Building the demo web: its pages, its link table, and the truth about both."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import Manifest, atomic_write, stage
from gptwo.demo.config import DemoConfig
from gptwo.demo.pages import LOREM, article_page, document, foreign_page, link_list, thin
from gptwo.demo.prose import Article, articles, sources
from gptwo.progress import SILENT, Reporter

HOSTS = [f"{name}-{i:02d}.example" for i in range(12) for name in ("gazette", "herald", "journal")]
# Names and paths say nothing of a page's fate: the pipeline sees them and is not to be told.
MIRRORS = [f"digest-{i}.example" for i in range(4)]
WIKIPEDIA = "en.wikipedia.org"
SHORTENER = "go.example"
SLOW_PAGES, SILENT_PAGES = 4, 3
FIRST_SECOND = 1_500_000_000  # 14 July 2017, inside WebText's time

# Share of the articles that meet each fate; the rest are plain originals. The first group is
# reached and kept, the second leaves the pipeline at the stage named.
KEPT = {"redirect": 0.03, "mirror": 0.06, "near-copy": 0.06, "tracking-duplicate": 0.05}
LOST = {
    "low-score": ("links", 0.04),
    "wikipedia": ("links", 0.01),
    "wikipedia-redirect": ("wikipedia", 0.01),
    "robots": ("crawl", 0.02),
    "broken-404": ("crawl", 0.01),
    "broken-500": ("crawl", 0.005),
    "broken-truncated": ("crawl", 0.005),
    "thin": ("rules|extract|language", 0.02),
}
# Pages without an article behind them, as shares of the number of articles.
EXTRA = {
    "non-english": ("language", 0.03),
    "boilerplate": ("rules|extract|language", 0.02),
    "not-html": ("links|crawl", 0.01),
    "self-post": ("links", 0.01),
    "over-18": ("links", 0.01),
}
TRUTH = pa.schema(
    [
        ("url", pa.string()),
        ("kind", pa.string()),
        ("host", pa.string()),
        ("group", pa.string()),
        ("text", pa.string()),
        ("expected_stage", pa.string()),
        ("domain", pa.string()),
    ]
)
SITE = pa.schema(
    [
        ("host", pa.string()),
        ("path", pa.string()),
        ("status", pa.int32()),
        ("content_type", pa.string()),
        ("behaviour", pa.string()),
        ("location", pa.string()),
        ("body", pa.binary()),
    ]
)


def build_demo_web(out: Path, config: DemoConfig, reporter: Reporter = SILENT) -> Manifest:
    """Write out/links.jsonl, out/site.parquet and out/truth.parquet; kind "demoweb"."""
    with stage(out, kind="demoweb", config=asdict(config), inputs=sources()) as made:
        if made.done:
            return made.done
        web = _Web(Random(config.seed))
        stock = articles()
        web.rng.shuffle(stock)
        web.fill(stock[: config.pages or None], reporter)
        with atomic_write(out / "links.jsonl", "w") as handle:
            handle.writelines(json.dumps(link) + "\n" for link in web.link_table())
        _write(out / "site.parquet", web.site, SITE)
        _write(out / "truth.parquet", web.truth, TRUTH)
        kinds: dict[str, int] = {}
        for row in web.truth:
            kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
        details = {"label": "synthetic web, real prose", "hosts": len(HOSTS)}
        counts = {"pages": len(web.site), "links": len(web.links), "kinds": kinds}
        return made.commit(counts=counts, details=details)


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    with atomic_write(path) as handle:
        pq.write_table(pa.Table.from_pylist(rows, schema), handle, compression="zstd")


@dataclass
class _Web:
    """The web while it grows."""

    rng: Random
    site: list[dict[str, Any]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)

    def fill(self, stock: list[Article], reporter: Reporter) -> None:
        """Give every article its fate, then add the pages that have no article."""
        n = len(stock)
        fates = [k for k, share in KEPT.items() for _ in range(max(1, round(share * n)))]
        fates += [k for k, (_, share) in LOST.items() for _ in range(max(1, round(share * n)))]
        fates += ["slow-ok"] * SLOW_PAGES + ["slow-timeout"] * SILENT_PAGES
        with reporter.bar("demo web", n, "articles") as bar:
            for i, article in enumerate(stock):
                self.place(article, fates[i] if i < len(fates) else "original", i)
                bar.advance()
        for kind, (_, share) in EXTRA.items():
            for i in range(max(1, round(share * n))):
                self.place_extra(kind, i)
        for host in HOSTS:
            self.page(host, "/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain")

    def place(self, article: Article, fate: str, i: int) -> None:
        """Put one article on the web."""
        host = HOSTS[i % len(HOSTS)]
        path = f"/{article.year}/{article.slug}.html"
        if fate == "robots":
            path = "/private" + path
        elif fate.startswith("wikipedia"):
            host, path = WIKIPEDIA, f"/wiki/{article.slug}"
        elif fate == "slow-timeout":
            host = f"annals-{i % SILENT_PAGES}.example"
        html = article_page(article, host, HOSTS.index(host) if host in HOSTS else 0, self.rng)
        if fate == "thin":
            html = thin(article)
        self.answer(host, path, html, fate)
        url = f"http://{host}{path}"
        if fate in LOST or fate == "slow-timeout":
            self.lose(article, fate, url, host, path)
        else:
            self.keep(article, fate, url, host, path, html)

    def answer(self, host: str, path: str, html: str, fate: str) -> None:
        """What the server says for an article's own address."""
        behaviour = {"broken-truncated": "truncated", "slow-ok": "slow", "slow-timeout": "never"}
        status = {"broken-404": 404, "broken-500": 500}.get(fate, 200)
        charset = "windows-1252" if self.rng.random() < 0.1 else "utf-8"
        if charset != "utf-8":
            html = html.replace('<meta charset="utf-8">', "")
        self.page(
            host,
            path,
            html.encode(charset, "xmlcharrefreplace"),
            f"text/html; charset={charset}",
            status=status,
            behaviour=behaviour.get(fate, ""),
        )

    def lose(self, article: Article, fate: str, url: str, host: str, path: str) -> None:
        if fate == "wikipedia-redirect":
            short = f"/w/{article.slug}"
            self.page(SHORTENER, short, "", "text/html", status=302, location=url)
            url, host = f"http://{SHORTENER}{short}", SHORTENER
        stage_name = LOST[fate][0] if fate in LOST else "crawl"
        text = article.text if fate not in ("broken-404", "broken-500", "thin") else None
        self.know(url, fate, host, text, stage_name, domain=article.domain)
        self.link(url, score=self.rng.randint(-3, 2) if fate == "low-score" else None)

    def keep(self, article: Article, fate: str, url: str, host: str, path: str, html: str) -> None:
        group = article.slug if fate in ("mirror", "near-copy") else None
        kind = fate if fate in ("redirect", "slow-ok") else "original"
        linked, linked_host = url, host
        if fate == "redirect":
            self.page(SHORTENER, f"/a/{article.slug}", "", "text/html", status=301, location=url)
            linked, linked_host = f"http://{SHORTENER}/a/{article.slug}", SHORTENER
        self.know(linked, kind, linked_host, article.text, "kept", group, article.domain)
        self.link(linked)
        if fate == "tracking-duplicate":
            tracked = f"{url}?utm_source=feed&utm_medium=rss"
            self.know(tracked, fate, host, article.text, "links", domain=article.domain)
            self.link(tracked, score=3)  # the clean address has the better claim
        elif fate == "mirror":
            mirror = self.rng.choice(MIRRORS)
            self.page(mirror, path, html.encode(), "text/html; charset=utf-8")
            copy = f"http://{mirror}{path}"
            self.know(copy, fate, mirror, article.text, "exact-dedup", group, article.domain)
            self.link(copy)
        elif fate == "near-copy":
            changed = self.altered(article)
            other = self.rng.choice(MIRRORS)
            copied = article_page(changed, other, self.rng.randrange(4), self.rng)
            self.page(other, path, copied.encode(), "text/html; charset=utf-8")
            copy = f"http://{other}{path}"
            self.know(copy, fate, other, changed.text, "near-dedup", group, article.domain)
            self.link(copy)

    def altered(self, article: Article) -> Article:
        """A near-copy: a few words changed, a short paragraph gone."""
        paragraphs = list(article.paragraphs)
        if len(paragraphs) > 2:
            shortest = min(range(len(paragraphs)), key=lambda i: len(paragraphs[i]))
            if len(paragraphs[shortest].split()) < 80:
                del paragraphs[shortest]
        for _ in range(4):
            i = self.rng.randrange(len(paragraphs))
            words = paragraphs[i].split()
            words[self.rng.randrange(len(words))] = "indeed"
            paragraphs[i] = " ".join(words)
        return replace(article, paragraphs=tuple(paragraphs))

    def place_extra(self, kind: str, i: int) -> None:
        """A page that no article stands behind."""
        host, path = HOSTS[i % len(HOSTS)], f"/notes/{len(self.site)}"
        html, content_type = document("Note", ""), "text/html; charset=utf-8"
        if kind == "non-english":
            html = foreign_page(("fr", "de", "es")[i % 3], i, self.rng)
        elif kind == "boilerplate":
            lorem = document(f"Draft {i}", f"<article>{f'<p>{LOREM}</p>' * 30}</article>")
            html = link_list(self.rng) if i % 2 else lorem
        elif kind == "not-html":
            path += ".bin" if i % 2 else ""
            content_type = "application/octet-stream"
        self.page(host, path, html.encode(), content_type)
        url = f"http://{host}{path}"
        self.know(url, kind, host, None, EXTRA[kind][0])
        self.link(url, is_self=kind == "self-post", over_18=kind == "over-18")

    def page(
        self,
        host: str,
        path: str,
        body: bytes | str,
        content_type: str,
        *,
        status: int = 200,
        behaviour: str = "",
        location: str = "",
    ) -> None:
        self.site.append(
            {
                "host": host,
                "path": path,
                "status": status,
                "content_type": content_type,
                "behaviour": behaviour,
                "location": location,
                "body": body.encode() if isinstance(body, str) else body,
            }
        )

    def know(
        self,
        url: str,
        kind: str,
        host: str,
        text: str | None,
        stage_name: str,
        group: str | None = None,
        domain: str = "",
    ) -> None:
        self.truth.append(
            {
                "url": url,
                "kind": kind,
                "host": host,
                "group": group,
                "text": text,
                "expected_stage": stage_name,
                "domain": domain,
            }
        )

    def link(
        self, url: str, *, score: int | None = None, is_self: bool = False, over_18: bool = False
    ) -> None:
        self.links.append(
            {
                "url": url,
                "score": self.rng.randint(3, 4000) if score is None else score,
                "is_self": is_self,
                "over_18": over_18,
                "created_utc": FIRST_SECOND + self.rng.randrange(10_000_000),
                "subreddit": self.rng.choice(("history", "politics", "programming", "reddit.com")),
            }
        )

    def link_table(self) -> list[dict[str, Any]]:
        """The submissions in the order of their dates, as in a dump."""
        return sorted(self.links, key=lambda link: (link["created_utc"], link["url"]))
