"""crawl: stopped, killed and started again, nothing is fetched twice and nothing lost."""

import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from web_site import Site, hang, link_folder, moved, ok, outcomes, records, reply, run_crawl

from gptwo.artifacts import open_folder
from gptwo.errors import DataError, Interrupted, NetworkError
from gptwo.progress import Reporter
from gptwo.web import crawl as crawling

SCRIPT = Path(__file__).with_name("web_crawl_script.py")
SMALL = {"segment_links": 5, "concurrency": 2}  # as in the script


def fill(site: Site, n: int = 40) -> list[str]:
    """Pages on four hosts, some of them missing, some reached by a redirect."""
    urls = [f"http://h{i % 4}.example/{i}" for i in range(n)]
    for i, url in enumerate(urls):
        site.pages[url[7:]] = ok(f"<p>page {i}") if i % 7 else reply(404)
        if i % 10 == 3:
            site.pages[url[7:]] = moved(f"/to/{i}")
            site.pages[f"h{i % 4}.example/to/{i}"] = ok(f"<p>page {i}")
    return urls


def committed(pages: Path) -> set[str]:
    """Links whose segment has its note."""
    return {
        url
        for path in (pages / ".work").glob("fetched-*.parquet")
        for url in pq.read_table(path).column("url").to_pylist()
    }


def archived(pages: Path) -> Counter[str]:
    return Counter(r.url for r in records(pages) if r.kind == "response")


def undisturbed(site: Site, tmp_path: Path, urls: list[str]) -> str:
    link_folder(tmp_path / "quiet", urls)
    fingerprint = run_crawl(site, tmp_path / "quiet", urls, concurrency=3).fingerprint
    site.hits.clear()
    return fingerprint


def check_whole(site: Site, tmp_path: Path, urls: list[str], fingerprint: str) -> None:
    manifest = open_folder(tmp_path / "pages", "pages")
    assert manifest.fingerprint == fingerprint
    assert outcomes(tmp_path / "pages") == outcomes(tmp_path / "quiet" / "pages")
    assert set(outcomes(tmp_path / "pages")) == set(urls)
    assert archived(tmp_path / "pages") == archived(tmp_path / "quiet" / "pages")
    assert set(archived(tmp_path / "pages").values()) == {1}
    assert not (tmp_path / "pages" / ".work").exists()


def test_a_finished_crawl_asks_for_nothing(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    first = run_crawl(site, tmp_path, urls)
    assert first.counts["fetched"] == 34 and first.counts["outcomes"] == {"http-404": 6, "ok": 34}
    assert first.counts["links"] == 40
    assert first.counts["bytes"] == sum(
        len(f"<p>page {i}") for i in range(40) if i % 7 or i % 10 == 3
    )
    before = site.connections
    assert run_crawl(site, tmp_path, urls) == first
    assert site.connections == before


def test_the_fingerprint_is_of_the_content(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    for name in ("again", "other"):
        link_folder(tmp_path / name, urls)
    assert run_crawl(site, tmp_path / "again", urls, segment_links=3).fingerprint == fingerprint
    site.pages[urls[1][7:]] = ok("<p>changed")
    assert run_crawl(site, tmp_path / "other", urls).fingerprint != fingerprint


@pytest.mark.parametrize("after", [1, 9, 23, 37])
def test_killed_at_any_page(site: Site, tmp_path: Path, after: int) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    links, pages = link_folder(tmp_path, urls), tmp_path / "pages"
    site.delay_seconds = 0.01
    child = subprocess.Popen([sys.executable, SCRIPT, links, pages, site.address])
    while len(site.urls()) < after and child.poll() is None:
        time.sleep(0.002)
    assert child.poll() is None
    child.kill()
    child.wait()
    kept, before = committed(pages), len(site.hits)
    assert len(kept) % 5 == 0 and len(kept) < len(urls)
    with pytest.raises(DataError, match="unfinished"):
        open_folder(pages, "pages")
    time.sleep(0.05)  # what was under way when the child died
    before = len(site.hits)
    run_crawl(site, tmp_path, urls, **SMALL)
    asked = {f"http://{hit.url}" for hit in site.hits[before:]}
    assert asked & kept == set(), "committed, yet fetched again"
    assert asked >= set(urls) - kept
    check_whole(site, tmp_path, urls, fingerprint)


def test_stopped_on_request_with_pages_under_way(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    reporter = Reporter(quiet=True)
    site.pages[urls[20][7:]] = hang  # would hold the stop up for long
    page = site.pages[urls[31][7:]]

    def stop(connection: socket.socket) -> None:
        reporter.stop_requested = True
        hang(connection)

    site.pages[urls[31][7:]] = stop
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run_crawl(site, tmp_path, urls, reporter, **{**SMALL, "concurrency": 4}, page_seconds=30)
    assert time.monotonic() - began < 25, "it did not wait for the page that hangs"
    kept = committed(tmp_path / "pages")
    assert len(kept) > 5, "what had arrived is kept, full segment or not"
    site.pages[urls[20][7:]], site.pages[urls[31][7:]] = ok("<p>page 20"), page
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **{**SMALL, "concurrency": 4}, page_seconds=30)
    assert {f"http://{url}" for url in site.urls()} & kept == set()
    check_whole(site, tmp_path, urls, fingerprint)


@pytest.mark.parametrize("name", ["fetched-00002.parquet", "pages-00003.warc.gz", "manifest.json"])
def test_killed_between_two_files(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed just before the file `name` has its place."""
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == name and "pages" in Path(target).parts:
            raise RuntimeError("killed")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RuntimeError, match="killed"):
            run_crawl(site, tmp_path, urls, **SMALL)
    kept = committed(tmp_path / "pages")
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **SMALL)
    assert {f"http://{url}" for url in site.urls()} & kept == set()
    assert (site.hits == []) == (name == "manifest.json")
    check_whole(site, tmp_path, urls, fingerprint)


def test_a_segment_that_was_deleted_is_fetched_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    with monkeypatch.context() as patch:
        patch.setattr(crawling, "_commit", lambda made: made.folder)  # stopped before the end
        run_crawl(site, tmp_path, urls, **SMALL)
    (tmp_path / "pages" / "pages-00001.warc.gz").unlink()
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **SMALL)
    assert 5 <= len(site.urls()) <= 10
    check_whole(site, tmp_path, urls, fingerprint)


def test_large_pages_do_not_gather_in_memory(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawling, "SEGMENT_BYTES", 10_000)
    urls = [f"http://a.example/{i}" for i in range(10)]
    site.pages |= {url[7:]: ok("x" * 4000) for url in urls}
    run_crawl(site, tmp_path, urls)
    assert len(list((tmp_path / "pages").glob("pages-*.warc.gz"))) == 4


def test_segment_numbers_may_grow_long(tmp_path: Path) -> None:
    assert crawling._number(Path("pages-00007.warc.gz")) == 7
    assert crawling._number(Path("fetched-123456.parquet")) == 123_456


def test_a_damaged_link_folder_is_refused(site: Site, tmp_path: Path) -> None:
    links = link_folder(tmp_path, fill(site))
    table = links / "links.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    with pytest.raises(DataError, match=r"links\.parquet .*does not match its SHA-256"):
        run_crawl(site, tmp_path, [])
    table.write_bytes(data[:-10])
    with pytest.raises(DataError, match=r"links\.parquet has"):
        run_crawl(site, tmp_path, [])
    (links / "manifest.json").unlink()
    with pytest.raises(DataError, match="has no manifest"):
        run_crawl(site, tmp_path, [])
    assert site.hits == [] and not (tmp_path / "pages").exists()


def test_without_a_network_nothing_is_noted(site: Site, tmp_path: Path) -> None:
    urls = [f"http://{i}.example/page" for i in range(10)]
    for url in urls:
        site.pages[url.removeprefix("http://")] = hang
        site.pages[url.removeprefix("http://").replace("page", "robots.txt")] = hang
    quick = {"page_seconds": 0.1, "retries": 0}
    with pytest.raises(NetworkError, match=r"not one of 10 links .*timeout 10"):
        run_crawl(site, tmp_path, urls, **quick)
    site.pages.update({url.removeprefix("http://"): ok("<p>") for url in urls})
    for url in urls:
        del site.pages[url.removeprefix("http://").replace("page", "robots.txt")]
    assert run_crawl(site, tmp_path, urls, **quick).counts["fetched"] == 10
