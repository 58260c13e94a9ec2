"""links: every format of link file, every reason to drop a link, real dumps."""

import gzip
import html
import json
import lzma
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
import zstandard
from link_files import read_submissions
from web_link_files import PACK, SECOND, dump, submission

from gptwo.artifacts import Manifest
from gptwo.errors import DataError, Interrupted, ResourceError, UsageError
from gptwo.progress import Reporter
from gptwo.web.config import LinksConfig
from gptwo.web.links import collect_links
from gptwo.web.submissions import BLOCK_BYTES


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


FILES = {"pdf", "jpg", "jpeg", "png", "gif", "mp3", "avi", "mov", "wmv", "swf", "zip", "xml", "rss"}


def key_as_the_specification_says(url: str) -> str:
    """Host without www., decoded path, sorted query without tracking; written with other means."""
    scheme, rest = url.split("://", 1)
    assert scheme in ("http", "https")
    rest = rest.split("#")[0]
    host = re.split(r"[/?]", rest)[0].lower()
    path, _, query = rest[len(host) :].partition("?")
    fields = sorted(tuple(f.partition("=")[::2]) for f in query.split("&") if f)
    kept = "&".join(f"{n}={v}" for n, v in fields if not n.startswith("utm_"))
    name = host.removeprefix("www.").removesuffix(":80")
    return plainly(f"{name}{unquote(path).rstrip('/')}?{kept}".rstrip("?"))


def plainly(key: str) -> str:
    return unquote(key).replace("+", " ")


@pytest.mark.parametrize("month", ["2005-06", "2005-07"])
def test_real_dumps_against_an_independent_count(
    tmp_path: Path, data_dir: Path, month: str
) -> None:
    path = data_dir / "reddit" / f"RS_v2_{month}.xz"
    values = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    reasons: Counter[str] = Counter()
    best: dict[str, dict[str, Any]] = {}
    for value in values:
        url = html.unescape(value["url"]) if "&amp;" in value["url"] else value["url"]
        host = re.sub(r"^\w+://([^/:?#]*).*", r"\1", url)
        ending = re.search(r"\.(\w+)$", re.sub(r"^\w+://[^/?#]*|[?#].*", "", url.lower()))
        if value["is_self"] or value["over_18"] or value["score"] < 3:
            reasons["low-score"] += not (value["is_self"] or value["over_18"])
        elif re.search(r"[\s]", url) or not re.match(r"https?://[^/]", url):
            reasons["url-malformed"] += 1
        elif re.search(r"(^|\.)wiki[pm]edia\.org$", host):
            reasons["wikipedia"] += 1
        elif re.search(r"(^|\.)(flickr|reddit|youtube|imgur|tinypic|vimeo)\.com$", host):
            reasons["domain"] += 1
        elif ending and ending[1] in FILES:
            reasons["not-text"] += 1
        else:
            key = key_as_the_specification_says(url)
            reasons["duplicate"] += key in best
            if key not in best or value["score"] > best[key]["score"]:
                best[key] = value
    counts = collect(tmp_path, path).counts
    assert counts["read"] == len(values) == {"2005-06": 103, "2005-07": 1079}[month]
    assert sum(v["score"] >= 3 for v in values) == {"2005-06": 83, "2005-07": 757}[month]
    assert counts["dropped"] == {reason: n for reason, n in sorted(reasons.items()) if n}
    assert counts["kept"] == len(best)
    rows = kept(tmp_path)
    assert sorted(plainly(row["key"]) for row in rows) == sorted(best)
    for row in rows:
        assert row["score"] == best[plainly(row["key"])]["score"]
        assert row["date"].startswith(month)
    assert Counter(row["reason"] for row in dropped(tmp_path)) == counts["dropped"]


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
        ("page.gz", gzip.compress(b"<html>not found", mtime=0), "is a web page"),
        ("list.json", b'[{"url": "http://a.example/1"}]', "one JSON value"),
        ("dump.xz", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        ("a.zip", b"PK\x03\x04\0\0\0\0", "is no text"),
        ("a.csv", b"title,score\na,1\n", r"has columns \['title', 'score'\], none is url"),
        ("low.jsonl", b'{"url": "http://a.example/1", "score": 1}', r"no link of 1.*low-score 1"),
        ("cut.gz", gzip.compress(b'{"url": "http://a.example/1"}', mtime=0)[:12], "no link of 1"),
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


def test_any_number_of_workers_writes_the_same_files(tmp_path: Path) -> None:
    """Several blocks, some with faults in them, and duplicates across them."""
    values: list[Any] = [
        submission(f"http://a{i % 97}.example/{i % 6000}", i % 7, selftext="x" * 2000)
        for i in range(9_000)
    ]
    values[4000:4000] = ["{broken", '{"url": 5}', "{broken"]
    path = dump(tmp_path / "dump.jsonl", values)
    assert path.stat().st_size > 3 * BLOCK_BYTES
    made = [
        collect_links([path], tmp_path / str(workers), LinksConfig(), workers=workers)
        for workers in (1, 2, 5)
    ]
    assert made[0] == made[1] == made[2]
    assert made[0].counts["dropped"]["unreadable"] == 2
    first, second = made[0].details["faults"]["dump.jsonl"]
    start = sum(len(json.dumps(value)) + 1 for value in values[:4000])
    assert first.endswith(f" at byte {start:,}") and second.endswith(f" at byte {start + 19:,}")


def test_with_and_without_the_kernel_the_same_links(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((data_dir / "reddit").glob("*.xz"))
    fast = collect(tmp_path, *files)
    monkeypatch.setattr("gptwo.web.screen._kernel", lambda rules: None)
    plain = collect(tmp_path, *files, out="plain")
    assert fast == plain


def test_a_stopped_run_goes_on_behind_the_last_whole_file(tmp_path: Path) -> None:
    paths = [
        dump(
            tmp_path / f"{n}.jsonl", [submission(f"http://a.example/{i}", n + 3) for i in range(9)]
        )
        for n in range(3)
    ]
    whole = collect_links(paths, tmp_path / "whole", LinksConfig())

    class Stops(Reporter):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            self.stop_requested = self.checks == 2  # in the second file
            super().check()

    with pytest.raises(Interrupted):
        collect_links(paths, tmp_path / "links", LinksConfig(), Stops(quiet=True))
    notes = sorted((tmp_path / "links" / ".work").glob("*.json"))
    assert [note.name for note in notes] == ["00000.json", "plan.json"]
    stamp = notes[0].stat().st_mtime_ns
    with pytest.raises(Interrupted):
        collect_links(paths, tmp_path / "links", LinksConfig(), Stops(quiet=True))
    assert notes[0].stat().st_mtime_ns == stamp  # the first file was not read again
    assert collect_links(paths, tmp_path / "links", LinksConfig()) == whole
    assert not (tmp_path / "links" / ".work").exists()


def test_a_sort_that_finds_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [submission(f"http://a.example/{i * 7919 % 1_000_003}/{i}") for i in range(60_000)]
    path = dump(tmp_path / "dump.jsonl", values)
    monkeypatch.setattr("gptwo.web.links.MEMORY_LIMIT", "3MB")
    with pytest.raises(ResourceError, match=r"cannot sort links in .*Out of Memory"):
        collect(tmp_path, path)
    assert not (tmp_path / "links" / "manifest.json").exists()
    monkeypatch.undo()
    assert collect(tmp_path, path).counts["kept"] == 60_000


def test_frames_with_long_windows_and_frames_to_skip(tmp_path: Path) -> None:
    """As zstd --long=31, pzstd and seekable files write them."""
    lines = [json.dumps(submission(f"http://a.example/{i}")) + "\n" for i in range(300)]
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    library = zstandard.ZstdCompressor(compression_params=parameters)
    frames = []
    for part in (lines[:100], lines[100:200], lines[200:]):
        packer = library.compressobj()  # which does not tell the size, so that the window counts
        frames += [packer.compress("".join(part).encode()) + packer.flush()]
        frames += [b"\x50\x2a\x4d\x18\x04\0\0\0skip"]
    path = tmp_path / "dump.zst"
    path.write_bytes(b"".join(frames[-1:] + frames))
    assert collect(tmp_path, path).counts == {"read": 300, "kept": 300, "dropped": {}}


@pytest.mark.slow
def test_memory_does_not_follow_the_number_of_submissions(tmp_path: Path) -> None:
    """Ten times the dropped submissions, the same links: a dict of them would need 200 MB more."""
    script = (
        "import sys; from pathlib import Path\n"
        "from gptwo.web.config import LinksConfig; from gptwo.web.links import collect_links\n"
        "collect_links([Path(sys.argv[1])], Path(sys.argv[2]), LinksConfig(), workers=2)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for count in (40_000, 400_000):
        path = tmp_path / f"{count}.jsonl.zst"
        with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
            for i in range(count):
                score = 5 if i < 20_000 else 1
                line = (
                    f'{{"url":"http://a{i % 97}.example/{i * 7919 % 1_000_003:x}/{i}",'
                    f'"score":{score},"title":"{i * 104_729 % 1_000_003} words of a title"}}\n'
                )
                packed.write(line.encode())
        ran = subprocess.run(
            [sys.executable, "-c", script, str(path), str(tmp_path / str(count))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(ran.stdout))
    assert peaks[1] < peaks[0] + 120_000, peaks  # kB


def test_time_follows_the_number_of_submissions(tmp_path: Path) -> None:
    """A month of Reddit has some ten million: minutes, not hours."""
    seconds = []
    for count in (20_000, 40_000):
        values = [submission(f"http://a{i % 97}.example/{i}", i % 5) for i in range(count)]
        path = dump(tmp_path / f"{count}.jsonl", values)
        began = time.process_time()
        collect(tmp_path, path, out=str(count))
        seconds.append(time.process_time() - began)
    assert seconds[1] < 3.5 * seconds[0] + 0.2 and seconds[1] < 2
