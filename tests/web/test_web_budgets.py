"""crawl: what it spends on hosts, pages, retries and memory, and what it tells of them."""

import asyncio
import gzip
import json
import socket
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from web_site import (
    Site,
    hang,
    link_folder,
    moved,
    ok,
    outcomes,
    records,
    reply,
    rows,
    run_crawl,
    send_then_close,
)

from gptwo.errors import DataError, Interrupted
from gptwo.progress import Reporter
from gptwo.web.config import CrawlConfig, LinksConfig
from gptwo.web.fetch import Fetched
from gptwo.web.frontier import Frontier
from gptwo.web.hosts import Hosts
from gptwo.web.links import collect_links
from gptwo.web.outage import Outages
from gptwo.web.request import Answer
from gptwo.web.rot import CLASSES, place_of, rot_class, rot_table

# Budgets


def fill(site: Site, hosts: int = 3, pages: int = 6) -> list[str]:
    urls = [f"http://h{i}.example/{j}" for i in range(hosts) for j in range(pages)]
    site.pages |= {url[7:]: ok("x" * 1000) for url in urls}
    return urls


@pytest.mark.parametrize(
    ("budget", "least", "most"),
    [
        ({"total_pages": 5}, 5, 5),
        ({"total_bytes": 4500}, 5, 7),  # those under way are let through
        ({"host_pages": 2}, 6, 6),
        ({"host_bytes": 2500}, 9, 9),
        ({"total_seconds": 1e-9}, 0, 3),
    ],
)
def test_budgets(site: Site, tmp_path: Path, budget: dict, least: int, most: int) -> None:
    urls = fill(site)
    if "total_seconds" in budget:
        site.delay_seconds = 0.5
    manifest = run_crawl(site, tmp_path, urls, **budget)
    found = outcomes(tmp_path / "pages")
    asked = [url for url in urls if found[url] == "ok"]
    assert least <= len(asked) <= most and set(found) == set(urls)
    assert manifest.counts["outcomes"]["not-asked"] == len(urls) - len(asked)
    assert manifest.counts["link_rot"]["not-asked"] == len(urls) - len(asked)
    if "total_seconds" not in budget:  # those under way were given up
        assert sorted(site.urls()) == sorted(url[7:] for url in asked)
    row = rows(tmp_path / "pages")[next(url for url in urls if url not in asked)]
    assert (row["detail"], row["bytes"], row["requests"]) == ("a budget was used up", 0, 0)


@pytest.mark.parametrize("budget", [{"host_pages": 4}, {"total_pages": 11}, {"host_bytes": 3500}])
def test_budgets_hold_over_a_stop(site: Site, tmp_path: Path, budget: dict) -> None:
    urls, reporter = fill(site), Reporter(quiet=True)

    def stop(connection: socket.socket) -> None:
        reporter.stop_requested = True
        hang(connection)

    page, site.pages["h1.example/3"] = site.pages["h1.example/3"], stop
    with pytest.raises(Interrupted):
        run_crawl(site, tmp_path, urls, reporter, concurrency=1, **budget)
    site.pages["h1.example/3"] = page
    run_crawl(site, tmp_path, urls, concurrency=1, **budget)
    found = Counter(outcomes(tmp_path / "pages").values())
    assert found["ok"] == (11 if "total_pages" in budget else 12)
    assert max(Counter(site.urls()).values()) == 2, "the page that hung, and no other"


def test_a_host_that_is_dead_does_not_eat_the_crawl(site: Site, tmp_path: Path) -> None:
    """After some requests without an answer the rest of its links are not asked for."""
    urls = [f"http://dead.example/{i:02d}" for i in range(40)]
    site.pages |= {url[7:]: hang for url in urls}
    site.pages |= {f"dead.example/{i:02d}": ok() for i in range(3)}
    began = time.monotonic()
    run_crawl(site, tmp_path, urls, page_seconds=1.0, retries=1, host_failures=4, host_retries=2)
    found = rows(tmp_path / "pages")
    assert Counter(row["outcome"] for row in found.values()) == {"timeout": 37, "ok": 3}
    assert len(site.urls()) == 3 + 4 + 2, "four without an answer, two retries in all"
    given_up = [row for row in found.values() if row["detail"].startswith("host given up")]
    assert len(given_up) == 33 and all(row["requests"] == 0 for row in given_up)
    assert time.monotonic() - began < 60, "40 links of a second each, twice"


def test_a_host_that_fails_now_and_then_is_not_given_up(site: Site, tmp_path: Path) -> None:
    urls = [f"http://a.example/{i}" for i in range(20)]
    site.pages |= {url[7:]: send_then_close(b"") if i % 2 else ok() for i, url in enumerate(urls)}
    run_crawl(site, tmp_path, urls, retries=0, host_failures=2)
    assert Counter(outcomes(tmp_path / "pages").values()) == {"ok": 10, "connection": 10}


def test_retries_have_a_budget_in_all(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwo.web.fetch.FREE_RETRIES", 4)
    urls = [f"http://h{i}.example/" for i in range(20)]
    site.pages |= {url[7:]: reply(503) for url in urls}
    run_crawl(site, tmp_path, urls, retries=3, retry_share=0.1, retry_seconds=0.0)
    retried = len(site.urls()) - 20
    assert 4 <= retried <= 4 + 0.1 * (40 + retried) + 1


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (reply(500), True), (reply(502), True), (reply(504), True), (reply(408), True),
        (reply(425), True), (send_then_close(b""), True), (hang, True),
        (reply(501), False), (reply(505), False), (reply(403), False), (reply(410), False),
        (send_then_close(b"no http\r\n\r\n"), False),
    ],
)  # fmt: skip
def test_which_faults_are_worth_a_retry(
    site: Site, tmp_path: Path, answer: object, again: bool
) -> None:
    site.pages["a.example/page"] = [answer, ok()]
    run_crawl(site, tmp_path, ["http://a.example/page"], page_seconds=0.3)
    row = rows(tmp_path / "pages")["http://a.example/page"]
    assert (row["outcome"] == "ok") == again and row["requests"] == 1 + again


# Hosts and links, in little memory


def test_hosts_are_forgotten_but_none_that_is_in_use() -> None:
    async def run() -> None:
        hosts = Hosts(CrawlConfig(concurrency=1))
        most = 4 + 1000
        with hosts.use("busy.example"):
            with hosts.use("waits.example") as waits:
                waits.free_at = time.monotonic() + 99
            for i in range(3 * most):
                with hosts.use(f"{i}.example") as host:
                    host.retries = i
            assert len(hosts) <= most
            with hosts.use("waits.example") as again:
                assert again is waits
            assert "busy.example" in hosts._known
            with hosts.use("0.example") as old, hosts.use(f"{3 * most - 1}.example") as new:
                assert (old.retries, new.retries) == (0, 3 * most - 1)

    asyncio.run(run())


def test_links_are_grouped_by_host_the_longest_first(tmp_path: Path) -> None:
    urls = [
        "http://a.example/",
        "http://a.example-b.net/",
        "http://a.example/x",
        "http://a.example/y",
    ]
    urls += [f"http://b.example/{i}" for i in range(5)]
    urls += ["http://www.a.example/z", "http://[2606:4700::1111]/1", "http://a.example:81/w"]
    links = link_folder(tmp_path, urls)
    table = pq.read_table(links / "links.parquet").column("url").to_pylist()
    frontier = Frontier(links, tmp_path)
    found = [[frontier.url(n) for n in queue] for queue in frontier.hosts()]
    assert [len(queue) for queue in found] == [5, 5, 1, 1]
    sets = [set(queue) for queue in found]
    assert {u for u in urls if "a.example" in u and "-b" not in u} in sets
    assert sorted(url for queue in found for url in queue) == sorted(table) == sorted(urls)
    assert [len(queue) for queue in frontier.hosts(2)] == [2, 2, 1, 1]
    frontier.note(table.index("http://a.example/x"), 7)
    assert sorted(len(queue) for queue in frontier.hosts()) == [1, 1, 4, 5]
    frontier.close()


def test_other_tables_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "links.parquet")
    with pytest.raises(DataError, match="not a table of links"):
        Frontier(tmp_path, tmp_path)


def test_no_links_at_all(site: Site, tmp_path: Path) -> None:
    made = Path(link_folder(tmp_path, ["http://a.example/1"]))
    frontier = Frontier(made, tmp_path)
    frontier.done[:] = True
    assert list(frontier.hosts()) == []
    frontier.close()


# What is told


def test_link_rot_by_year(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for year, pages in {
        "2009": {"a/1": reply(404), "b/1": reply(410), "c/1": moved("http://c.example/")},
        "2016": {"d/1": ok(), "e/1": moved("http://e.example/new"), "f/1": reply(403),
                 "g/1": moved("http://www.g.example/1"), "h/1": send_then_close(b"")},
    }.items():  # fmt: skip
        for name, answer in pages.items():
            host, _, path = name.partition("/")
            site.pages[f"{host}.example/{path}"] = answer
            seconds = int(time.mktime((int(year), 6, 1, 0, 0, 0, 0, 0, 0)))
            url = f"http://{host}.example/{path}"
            lines.append(json.dumps({"url": url, "score": 9, "created_utc": seconds}))
    site.pages |= {"c.example/": ok(), "e.example/new": ok(), "www.g.example/1": ok()}
    (tmp_path / "dump.jsonl").write_text("\n".join(lines))
    collect_links([tmp_path / "dump.jsonl"], tmp_path / "links", LinksConfig())
    manifest = run_crawl(site, tmp_path, [], Reporter(), retries=0)
    years = manifest.details["link_rot_by_year"]
    assert years["2009"] == {"home": 1, "gone": 2}
    assert years["2016"] == {"alive": 2, "moved": 1, "denied": 1, "broken": 1}
    assert manifest.counts["link_rot"]["gone"] == 2
    told = capsys.readouterr().err
    assert "crawl: 8/8 links" in told and "pages=" in told and "down=" in told
    table = told[told.index("link rot") :].splitlines()
    assert table[0].split()[2:] == ["links", "alive", "moved", "home", "gone", "denied", "broken"]
    assert table[1].split() == ["2009", "3", "0.0%", "0.0%", "33.3%", "66.7%", "0.0%", "0.0%"]
    assert table[3].split()[:2] == ["all", "8"]


@pytest.mark.parametrize(
    ("url", "final", "place"),
    [
        ("http://a.example/x", "https://www.a.example/x/", "same"),
        ("http://a.example/x", "http://a.example/y", "moved"),
        ("http://a.example/x", "http://b.example/", "home"),
        ("http://a.example/?p=1", "http://a.example", "home"),
        ("http://a.example/", "http://b.example/", "moved"),
        ("http://a.example/x", "http://b.example/?q=1", "moved"),
    ],
)
def test_where_a_link_led(url: str, final: str, place: str) -> None:
    assert place_of(url, final) == place


def test_every_outcome_has_a_class() -> None:
    for outcome in (
        "ok", "http-404", "http-403", "http-500", "http-204", "http-301", "dns", "refused",
        "timeout", "tls", "connection", "truncated", "bad-http", "bad-url", "redirect-loop",
        "bad-redirect", "robots", "content-type", "too-large", "private-address", "not-asked",
    ):  # fmt: skip
        assert rot_class(outcome) in CLASSES
    assert rot_table({"": {"alive": 1}})[-1].split()[:2] == ["all", "1"]


def test_charsets_are_kept_where_the_page_names_them(site: Site, tmp_path: Path) -> None:
    meta = b'<meta http-equiv="Content-Type" content="text/html; charset=Windows-1251"><p>'
    site.pages |= {
        "a.example/1": ok(b"\xcf\xf0", "text/html; charset=koi8-r"),
        "a.example/2": ok(meta, "text/html"),
        "a.example/3": ok(gzip.compress(meta), "text/html", content_encoding="gzip"),
        "a.example/4": ok(b"\xef\xbb\xbf<p>", "text/html"),
        "a.example/5": ok(b"<p>", "text/html"),
        "a.example/6": ok(b"\x1f\x8bbroken", "text/html", content_encoding="gzip"),
    }
    run_crawl(site, tmp_path, [f"http://{url}" for url in site.pages])
    found = {url[-1]: row["charset"] for url, row in rows(tmp_path / "pages").items()}
    assert found == {
        "1": "koi8-r", "2": "windows-1251", "3": "windows-1251", "4": "utf-8", "5": "", "6": "",
    }  # fmt: skip


def test_words_of_a_server_do_not_break_the_notes(site: Site, tmp_path: Path) -> None:
    site.pages |= {
        "a.example/1": send_then_close(b"HTTP/1.1 500 \x00\xff\r\nContent-Length: 0\r\n\r\n"),
        "a.example/2": ok(
            "<p>", "text/html\udcff; charset=\u00e9".encode("utf-8", "replace").decode()
        ),
        "a.example/3": moved("http://b.example/\x85\xa0%00"),
        "a.example/4": send_then_close(b"HTTP/1.1 404 a\tb\r\nX: \xed\xb0\x80\r\n\r\n"),
    }
    urls = [f"http://a.example/{i}" for i in range(1, 5)]
    run_crawl(site, tmp_path, urls, retries=0)
    assert len(rows(tmp_path / "pages")) == 4 and records(tmp_path / "pages")


def test_what_was_held_is_written_when_something_answers(tmp_path: Path) -> None:
    """One dead host among living ones: its links are noted although nobody answered them."""

    class Noted:
        def __init__(self) -> None:
            self.links: list[int] = []

        async def add(self, link: int, page: Fetched) -> None:
            self.links.append(link)

    class Answering:
        answered_at, answered_by = 0.0, None

    async def run() -> None:
        noted, client = Noted(), Answering()
        outages = Outages(CrawlConfig(), client, noted)  # type: ignore[arg-type]
        dead = Fetched(url="http://a/", final_url="http://a/", answer=Answer(outcome="timeout"))
        for link in range(5):
            await outages.add(link, dead)
        await outages.look()
        assert noted.links == []
        client.answered_at = time.monotonic()
        await outages.look()
        assert noted.links == [0, 1, 2, 3, 4]

    asyncio.run(run())
