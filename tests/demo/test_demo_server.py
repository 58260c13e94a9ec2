"""The demo web's server: loopback, every behaviour, gone with its parent; and the small flow."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow.parquet as pq
import pytest

from gptwo.artifacts import Manifest, open_folder
from gptwo.demo import prose, server
from gptwo.demo.config import DemoConfig
from gptwo.demo.server import SLOW_SECONDS, serve_demo_web
from gptwo.demo.web import build_demo_web
from gptwo.errors import DataError, ResourceError
from gptwo.web.config import CrawlConfig, LinksConfig
from gptwo.web.crawl import crawl
from gptwo.web.links import collect_links

SMALL = DemoConfig(pages=60)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "web"
    build_demo_web(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def address(web: Path) -> Iterator[str]:
    with serve_demo_web(web) as found:
        yield found


@pytest.fixture(scope="module")
def examples(web: Path) -> dict[str, dict[str, Any]]:
    """kind -> the truth about one page of it."""
    return {row["kind"]: row for row in pq.read_table(web / "truth.parquet").to_pylist()}


def get(address: str, url: str, timeout: float = 60.0) -> tuple[int, dict[str, str], bytes]:
    """Ask the server as if every host were there."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": parts.netloc})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_pages_are_served_as_they_were_built(
    web: Path, address: str, examples: dict[str, dict[str, Any]]
) -> None:
    site = {
        f"http://{row['host']}{row['path']}": row
        for row in pq.read_table(web / "site.parquet").to_pylist()
    }
    for kind in ("original", "mirror", "near-copy", "thin", "non-english", "boilerplate"):
        url = examples[kind]["url"]
        status, headers, body = get(address, url)
        assert (status, headers["content-type"], body) == (
            200, site[url]["content_type"], site[url]["body"],
        )  # fmt: skip
    tracked = examples["tracking-duplicate"]["url"]
    assert get(address, tracked)[2] == site[tracked.partition("?")[0]]["body"]
    assert get(address, examples["original"]["url"].upper().replace("HTTP", "http"))[0] == 404
    assert get(address, "http://nobody.example/")[0] == 404


def test_each_trouble_is_what_it_says(address: str, examples: dict[str, dict[str, Any]]) -> None:
    assert get(address, examples["broken-404"]["url"])[0] == 404
    assert get(address, examples["broken-500"]["url"])[0] == 500
    status, headers, body = get(address, examples["redirect"]["url"])
    assert (status, body) == (301, b"") and get(address, headers["location"])[0] == 200
    status, headers, _ = get(address, examples["wikipedia-redirect"]["url"])
    assert status == 302 and urlsplit(headers["location"]).hostname == "en.wikipedia.org"
    with pytest.raises(http.client.IncompleteRead):
        get(address, examples["broken-truncated"]["url"])
    began = time.monotonic()
    assert get(address, examples["slow-ok"]["url"])[0] == 200
    assert time.monotonic() - began >= SLOW_SECONDS
    with pytest.raises(TimeoutError):
        get(address, examples["slow-timeout"]["url"], timeout=0.5)
    host = urlsplit(examples["robots"]["url"]).netloc
    status, _, rules = get(address, f"http://{host}/robots.txt")
    assert status == 200 and b"Disallow: /private/" in rules


def test_slow_pages_do_not_hold_up_others(
    address: str, examples: dict[str, dict[str, Any]]
) -> None:
    slow, quick = examples["slow-ok"]["url"], examples["original"]["url"]
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(get, address, slow) for _ in range(8)]
        assert get(address, quick)[0] == 200
        assert not any(result.done() for result in waiting)
        assert all(result.result()[0] == 200 for result in waiting)


def test_it_listens_on_loopback_alone(address: str) -> None:
    host, _, port = address.partition(":")
    assert host == "127.0.0.1"
    children = psutil.Process().children(recursive=True)
    listening = [
        (entry.laddr.ip, entry.laddr.port)
        for child in children
        for entry in child.net_connections("inet")
        if entry.status == psutil.CONN_LISTEN
    ]
    assert ("127.0.0.1", int(port)) in listening
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def closed(address: str, seconds: float = 5.0) -> bool:
    host, _, port = address.partition(":")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection((host, int(port)), timeout=30).close()
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_it_ends_with_the_block(web: Path) -> None:
    with pytest.raises(KeyError), serve_demo_web(web) as address:
        assert not closed(address, 0.05)
        raise KeyError
    assert closed(address)


def test_it_does_not_outlive_a_killed_parent(web: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gptwo.demo.server import *\n"
        f"with serve_demo_web(Path({str(web)!r})) as address:\n"
        "    print(address, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    address = parent.stdout.readline().strip()
    (child,) = psutil.Process(parent.pid).children()
    assert not closed(address, 0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert closed(address)
    _, alive = psutil.wait_procs([child], timeout=30)
    assert not alive or alive[0].status() == psutil.STATUS_ZOMBIE


def test_a_damaged_web_is_refused_before_anything_starts(web: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"), serve_demo_web(tmp_path / "none"):
        pass
    build_demo_web(tmp_path / "web", SMALL)
    site = tmp_path / "web" / "site.parquet"
    site.write_bytes(site.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"site\.parquet"), serve_demo_web(tmp_path / "web"):
        pass


def test_a_server_that_does_not_start_is_an_error(
    web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.sys, "executable", "/bin/false")
    with pytest.raises(ResourceError, match="did not start"), serve_demo_web(web):
        pass


# The small flow: links and crawl over the demo web, judged by the truth.


@pytest.fixture(scope="module")
def run(web: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    collect_links([web / "links.jsonl"], folder / "links", LinksConfig())
    config = CrawlConfig(allow_private=True, host_delay_seconds=0, page_seconds=6.0, retries=0)
    crawl(folder / "links", folder / "pages", config, connect_to=address)
    return folder


def test_links_and_crawl_meet_the_truth(web: Path, run: Path) -> None:
    lost = {r["url"]: "links" for r in pq.read_table(run / "links/dropped.parquet").to_pylist()}
    fetched = {r["url"]: r for r in pq.read_table(run / "pages/fetched.parquet").to_pylist()}
    lost |= {url: "crawl" for url, row in fetched.items() if row["outcome"] != "ok"}
    truth = pq.read_table(web / "truth.parquet").to_pylist()
    assert {row["url"] for row in truth} == {*lost, *fetched}
    early = {"links", "crawl"}
    for row in truth:
        found, expected = lost.get(row["url"], "corpus"), set(row["expected_stage"].split("|"))
        assert found in expected if expected & early else found == "corpus", row["url"]
    seen = defaultdict(Counter)
    for row in truth:
        if row["url"] in fetched:
            seen[row["kind"]][fetched[row["url"]]["outcome"]] += 1
    for kind, outcome in {
        "original": "ok", "redirect": "ok", "slow-ok": "ok", "wikipedia-redirect": "ok",
        "robots": "robots", "broken-404": "http-404", "broken-500": "http-500",
        "broken-truncated": "truncated", "slow-timeout": "timeout", "not-html": "content-type",
    }.items():  # fmt: skip
        assert set(seen[kind]) == {outcome}, kind


def test_what_was_fetched_is_what_the_truth_says(web: Path, run: Path) -> None:
    manifest: Manifest = open_folder(run / "pages", "pages")
    fetched = {r["url"]: r for r in pq.read_table(run / "pages/fetched.parquet").to_pylist()}
    truth = {r["url"]: r for r in pq.read_table(web / "truth.parquet").to_pylist()}
    site = {(r["host"], r["path"]): r for r in pq.read_table(web / "site.parquet").to_pylist()}
    assert manifest.counts["links"] == len(fetched)
    assert manifest.counts["fetched"] == sum(r["outcome"] == "ok" for r in fetched.values())
    for url, row in fetched.items():
        if row["outcome"] == "ok":
            parts = urlsplit(row["final_url"])
            assert row["bytes"] == len(site[parts.hostname, parts.path]["body"])
            assert (row["final_url"] != url) == (
                truth[url]["kind"] in ("redirect", "wikipedia-redirect")
            )


def test_manual_alone_flows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "_speech_folder", lambda: None)
    build_demo_web(tmp_path / "web", DemoConfig())
    truth = pq.read_table(tmp_path / "web" / "truth.parquet").to_pylist()
    url = next(r["url"] for r in truth if r["kind"] == "original")
    with serve_demo_web(tmp_path / "web") as address:
        assert get(address, url)[0] == 200
