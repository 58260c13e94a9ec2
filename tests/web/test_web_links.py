"""links: every format of link file, every reason to drop a link, real dumps."""

import gzip
import json
import lzma
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from web_link_files import PACK, SECOND, dump, submission

from gptwo.artifacts import Manifest
from gptwo.errors import DataError, Interrupted, UsageError
from gptwo.progress import Reporter
from gptwo.web.config import LinksConfig
from gptwo.web.links import collect_links
from gptwo.web.submissions import read_submissions


def collect(tmp_path: Path, *files: Path, out: str = "links", **config: Any) -> Manifest:
    return collect_links(list(files), tmp_path / out, LinksConfig(**config))


def kept(tmp_path: Path, out: str = "links") -> list[dict[str, Any]]:
    return pq.read_table(tmp_path / out / "links.parquet").to_pylist()


def dropped(tmp_path: Path, out: str = "links") -> list[dict[str, Any]]:
    return pq.read_table(tmp_path / out / "dropped.parquet").to_pylist()


def test_one_table_from_any_format(tmp_path: Path) -> None:
    """The same links as a dump however packed, as CSV and, but for the scores, as a list."""
    urls = [f"http://a.example/{i}?q=ü" for i in range(50)]
    values = [submission(url, i) for i, url in enumerate(urls)]
    table = '"Score","URL","created_utc"\r\n' + "".join(
        f'{i},"{url}",{SECOND}\r\n' for i, url in enumerate(urls)
    )
    tables = []
    for suffix, pack in PACK.items():
        for name, content in (("a.jsonl", "\n".join(map(json.dumps, values))), ("a.csv", table)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(pack(("\ufeff" + content).encode()))
            out = f"links-{path.name}"
            counts = collect(tmp_path, path, out=out).counts
            assert counts == {"read": 50, "kept": 47, "dropped": {"low-score": 3}}
            tables.append([{**row, "source": ""} for row in kept(tmp_path, out)])
    assert all(table == tables[0] for table in tables[1:])
    assert tables[0][0] == {
        "url": "http://a.example/10?q=ü",
        "key": "a.example/10?q=%C3%BC",
        "score": 10,
        "date": "2005-06-16",
        "source": "",
    }
    (tmp_path / "urls.txt").write_text("\n\n" + "\r\n".join(urls))
    collect(tmp_path, tmp_path / "urls.txt", out="links-list", min_score=1000)
    assert sorted(row["url"] for row in kept(tmp_path, "links-list")) == sorted(urls)
    assert {row["score"] for row in kept(tmp_path, "links-list")} == {None}


@pytest.mark.parametrize("month", ["2005-06", "2005-07"])
def test_real_dumps_against_a_plain_count(tmp_path: Path, data_dir: Path, month: str) -> None:
    path = data_dir / "reddit" / f"RS_v2_{month}.xz"
    values = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    counts = collect(tmp_path, path).counts
    assert counts["read"] == len(values) == {"2005-06": 103, "2005-07": 1079}[month]
    assert counts["kept"] + sum(counts["dropped"].values()) == len(values)
    worthy = [v for v in values if v["score"] >= 3 and not v["is_self"] and not v["over_18"]]
    assert sum(v["score"] >= 3 for v in values) == {"2005-06": 83, "2005-07": 757}[month]
    assert counts["dropped"].get("low-score", 0) == sum(
        v["score"] < 3 and not v["is_self"] and not v["over_18"] for v in values
    )
    later = Counter(row["reason"] for row in dropped(tmp_path))
    for reason in ("low-score", "self", "over-18"):
        later.pop(reason, None)
    assert set(later) <= {"domain", "duplicate", "wikipedia", "not-text", "url-malformed"}
    assert counts["kept"] == len(worthy) - sum(later.values())
    best: dict[str, int] = {}
    for value in worthy:
        url = value["url"].replace("&amp;", "&")
        best[url] = max(best.get(url, 0), value["score"])
    for row in kept(tmp_path):
        assert row["score"] == best[row["url"]] and row["date"].startswith(month)


def test_every_reason(tmp_path: Path) -> None:
    values = {
        "self": submission("http://a.example/self", is_self=True),
        "over-18": submission("http://a.example/adult", over_18=True),
        "low-score": submission("http://a.example/low", 2),
        "url-length": submission("/r/a"),
        "url-malformed": submission("/r/programming/comments/1"),
        "date": submission("http://a.example/late", created_utc=SECOND + 86_400),
        "subreddit": submission("http://a.example/spam", subreddit="Spam"),
        "wikipedia": submission("https://de.m.wikipedia.org/wiki/Katze"),
        "domain": submission("http://i.imgur.com/page"),
        "not-text": submission("http://a.example/a.jpg"),
        "duplicate": submission("https://www.a.example/good/?utm_source=x", 4),
        "unreadable": "{not json",
        "": submission("http://a.example/good"),
    }
    path = dump(tmp_path / "dump.jsonl", list(values.values()))
    counts = collect(
        tmp_path,
        path,
        first_day="2005-06-16",
        last_day="2005-06-16",
        blocked_subreddits=("SPAM",),
    ).counts
    assert counts == {
        "read": 13,
        "kept": 1,
        "dropped": dict.fromkeys(sorted(set(values) - {""}), 1),
    }
    found = {row["reason"]: row["url"] for row in dropped(tmp_path)}
    assert found == {r: v["url"] if isinstance(v, dict) else "" for r, v in values.items() if r}


def test_own_blocked_domains_and_the_second_preset(tmp_path: Path) -> None:
    urls = ["http://a.example/1", "http://sub.b.example/2", "https://github.com/x/y"]
    path = dump(tmp_path / "dump.jsonl", [submission(url) for url in urls])
    collect(tmp_path, path, blocked_domains=("B.example",))
    assert [row["url"] for row in kept(tmp_path)] == [urls[0], urls[2]]
    collect(tmp_path, path, out="open", preset="openwebtext")
    assert [row["url"] for row in kept(tmp_path, "open")] == urls[:2]


@pytest.mark.parametrize("value", [{"preset": "all"}, {"first_day": "June"}, {"max_bad_share": 2}])
def test_settings_that_mean_nothing(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        LinksConfig(**value)


def test_of_duplicates_the_best_stays(tmp_path: Path) -> None:
    values = [
        submission("http://a.example/x/", 4),
        submission("https://www.a.example/x", 9),
        submission("http://a.example/x#section", 9),
        submission("http://a.example/x?utm_source=rss", 9),
        submission("http://a.example/x", 3),
    ]
    for number, order in enumerate((values, values[::-1])):
        path = dump(tmp_path / str(number) / "dump.jsonl", order)
        collect(tmp_path, path, out=f"links{number}")
        (row,) = kept(tmp_path, f"links{number}")
        # Of those with 9 the shortest address: no tracking, no fragment.
        assert (row["url"], row["score"]) == ("https://www.a.example/x", 9)
        assert Counter(row["score"] for row in dropped(tmp_path, f"links{number}")) == {
            4: 1, 9: 2, 3: 1,
        }  # fmt: skip


def test_the_clean_address_beats_its_tracked_copy_of_the_same_score(tmp_path: Path) -> None:
    clean, tracked = "http://a.example/x.html", "http://a.example/x.html?utm_source=feed"
    for number, urls in enumerate(((clean, tracked), (tracked, clean))):
        path = dump(tmp_path / f"{number}.jsonl", [submission(url, 3) for url in urls])
        collect(tmp_path, path, out=f"links{number}")
        assert [row["url"] for row in kept(tmp_path, f"links{number}")] == [clean]


def test_neither_order_nor_time_changes_what_is_kept(tmp_path: Path) -> None:
    one = dump(tmp_path / "one.jsonl", [submission(f"http://a.example/{i}") for i in range(30)])
    two = dump(
        tmp_path / "two.jsonl",
        [submission(f"http://a.example/{i}/", 5 + i % 3) for i in range(20, 50)],
    )
    three = tmp_path / "three.txt"
    three.write_text("\n".join(f"http://a.example/{i}" for i in range(60)))
    first = collect(tmp_path, one, two, three)
    again = collect(tmp_path, one, two, three, out="again")
    turned = collect(tmp_path, three, two, one, out="turned")
    assert first.fingerprint == again.fingerprint == turned.fingerprint
    assert kept(tmp_path) == kept(tmp_path, "turned") and len(kept(tmp_path)) == 60
    assert first.counts == turned.counts
    two.write_text(two.read_text().replace("/49", "/48"))
    assert collect(tmp_path, one, two, three, out="other").fingerprint != first.fingerprint


def test_a_finished_folder_is_found_and_another_refused(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump.jsonl", [submission("http://a.example/1")])
    first = collect(tmp_path, path)
    stamp = (tmp_path / "links" / "links.parquet").stat().st_mtime_ns
    assert collect(tmp_path, path) == first
    assert (tmp_path / "links" / "links.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="min_score: 3 -> 4"):
        collect(tmp_path, path, min_score=4)


def test_hostile_lines_cost_one_line_each(tmp_path: Path) -> None:
    good = submission("http://a.example/good")
    bad = [
        "[" * 100_000,  # deeper than the parser goes
        '{"url": "http://a.example/\\ud800", "score": 5}',  # cannot be stored
        '{"url": "http://a.example/1", "score": 1e999}',
        '{"url": "http://a.example/1", "score": 99999999999}',  # no 32 bits
        '{"url": "http://a.example/1", "score": NaN}',
        '{"url": "http://a.example/1", "score": "many"}',
        '{"url": "http://a.example/1", "created_utc": 100000000000000000}',  # OSError inside
        '{"url": "http://a.example/1", "created_utc": -1e300}',
        '{"score": 5}',
        '["http://a.example/1"]',
        "null",
        '{"url": "http://a.example/1"',
    ]
    path = dump(tmp_path / "dump.jsonl", [good, *bad, good])
    found = list(read_submissions(path))
    assert [bool(s.fault) for s in found] == [False, *[True] * len(bad), False]
    counts = collect(tmp_path, path, max_bad_share=1.0).counts
    assert counts == {
        "read": len(bad) + 2,
        "kept": 1,
        "dropped": {"duplicate": 1, "unreadable": len(bad)},
    }


def test_dropped_links_with_faulty_addresses_are_written_down(tmp_path: Path) -> None:
    values = [
        submission("http://[::1", 1),
        submission("", is_self=True),
        submission("default", over_18=True),
        submission("http://a.example/good"),
    ]
    collect(tmp_path, dump(tmp_path / "dump.jsonl", values))
    assert {(row["url"], row["key"], row["reason"]) for row in dropped(tmp_path)} == {
        ("http://[::1", "", "low-score"),
        ("", "", "self"),
        ("default", "", "over-18"),
    }


def test_too_many_bad_lines_are_an_error_that_shows_one(tmp_path: Path) -> None:
    good = [submission(f"http://a.example/{i}") for i in range(98)]
    path = dump(tmp_path / "dump.jsonl", [*good, "{broken", "{broken"])
    with pytest.raises(DataError, match=r"dump\.jsonl: 2 of 100 lines.*JSONDecodeError") as caught:
        collect(tmp_path, path)
    assert caught.value.exit_code == 3 and "max_bad_share" in caught.value.remedy
    assert not (tmp_path / "links" / "manifest.json").exists()
    assert not list((tmp_path / "links").glob("*.parquet*"))
    assert collect(tmp_path, path, max_bad_share=0.02).counts["kept"] == 98


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "is empty"),
        ("folder", "folder", "is a folder"),
        ("page.jsonl", b"\n<!DOCTYPE html><html>", "is a web page"),
        ("page.gz", gzip.compress(b"<html>not found"), "is a web page"),
        ("list.json", b'[{"url": "http://a.example/1"}]', "one JSON value"),
        ("dump.xz", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        ("a.zip", b"PK\x03\x04\0\0\0\0", "is no text"),
        ("a.csv", b"title,score\na,1\n", r"has columns \['title', 'score'\], none is url"),
        ("low.jsonl", b'{"url": "http://a.example/1", "score": 1}', r"no link of 1.*low-score 1"),
        ("cut.gz", gzip.compress(b'{"url": "http://a.example/1"}')[:12], "no link of 1"),
    ],
)
def test_files_without_links(
    tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        collect(tmp_path, path)
    assert caught.value.remedy and (name in caught.value.message or "no link" in message)
    assert not (tmp_path / "links" / "manifest.json").exists()


def test_no_files_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no link file"):
        collect(tmp_path)


def test_a_stop_is_heard_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump.jsonl", [submission(f"http://a.example/{i}") for i in range(3000)])
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        collect_links([path], tmp_path / "links", LinksConfig(), reporter)
    assert collect(tmp_path, path).counts["kept"] == 3000


def test_links_are_read_at_speed(tmp_path: Path) -> None:
    """A month of Reddit has some ten million submissions: minutes, not hours."""
    values = [submission(f"http://a{i % 97}.example/{i}", i % 5) for i in range(20_000)]
    path = dump(tmp_path / "dump.jsonl", values)
    began = time.process_time()
    collect(tmp_path, path)
    assert time.process_time() - began < 6  # 20 times what it takes on a slow core
