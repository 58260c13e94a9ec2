"""submissions: reading link files line by line, whole, cut and odd."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from link_files import read_submissions
from web_link_files import PACK, submission

from gptwo.web.submissions import MAX_LINE


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_a_cut_file_keeps_its_good_lines_and_counts_one_fault(tmp_path: Path, suffix: str) -> None:
    # Addresses that do not compress well, so that the cut falls behind several blocks.
    values = [submission(f"http://a.example/{i * 7919 % 1_000_003}/{i}") for i in range(25_000)]
    packed = PACK[suffix]("\n".join(map(json.dumps, values)).encode())
    whole, cut = tmp_path / f"whole.jsonl{suffix}", tmp_path / f"cut.jsonl{suffix}"
    whole.write_bytes(packed)
    cut.write_bytes(packed[: len(packed) * 3 // 5])
    read = [s.url for s in read_submissions(cut)]
    found = list(read_submissions(cut))
    assert 1 <= sum(bool(s.fault) for s in found) <= 2 and found[-1].fault.startswith("truncated")
    good = [s.url for s in found if not s.fault]
    assert good == [v["url"] for v in values[: len(good)]] and len(good) > 5_000
    assert len(read) == len(found)
    assert not any(s.fault for s in read_submissions(whole))


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_ends_are_checked_even_between_lines(tmp_path: Path, frames: int) -> None:
    """The library gives what it has and says nothing when the end of a frame is missing."""
    line = (json.dumps(submission("http://a.example/1")) + "\n").encode()
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(line * 100)
    path = tmp_path / "dump.zst"
    path.write_bytes(frame * frames)
    assert [s.fault for s in read_submissions(path)] == [""] * 100 * frames
    path.write_bytes((frame * frames)[:-4])  # the checksum alone
    faults = [s.fault for s in read_submissions(path)]
    assert faults[:-1] == [""] * (len(faults) - 1) and "inside a zstd frame" in faults[-1]
    path.write_bytes(frame * frames + b"trailing garbage")
    faults = [s.fault for s in read_submissions(path)]
    assert len(faults) == 100 * frames + 1 and "truncated" in faults[-1]


def test_an_endless_line_is_skipped_in_little_memory(tmp_path: Path) -> None:
    good = json.dumps(submission("http://a.example/good")).encode() + b"\n"
    path = tmp_path / "dump.jsonl.gz"
    filler = os.urandom(MAX_LINE // 20).hex().encode() * 80  # text, not a bomb
    path.write_bytes(gzip.compress(good + b'{"url": "' + filler + b'"}\n' + good, 1))
    tracemalloc.start()
    found = list(read_submissions(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [s.fault.partition(" of ")[0] for s in found] == ["", "a line", ""]
    assert peak < 5 * MAX_LINE


def test_csv_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    path.write_text(
        "Title, URL ,Score,over_18,date\n"
        '"a, b",http://a.example/1,7,False,2017-01-02\n'
        "\n"
        "c,http://a.example/2,,True,\n"
        "d,http://a.example/3,seven,False,\n"
        "short\n"
        'e,"http://a.example/4?a=1,2",4,0,2017-01-02T03:04:05Z,more,than,named\n'
    )
    found = list(read_submissions(path))
    assert [(s.url[-1:], s.score, s.over_18, s.date, bool(s.fault)) for s in found] == [
        ("1", 7, False, "2017-01-02", False),
        ("2", None, True, "", False),
        ("", None, False, "", True),
        ("", None, False, "", True),
        ("2", 4, False, "2017-01-02", False),
    ]


def test_a_quote_without_end_does_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    rows = [f"http://a.example/{i},5" for i in range(20_000)]
    rows[100] = '"http://a.example/100,5'
    path.write_text("\n".join(["url,score", *rows]))
    found = list(read_submissions(path))
    assert sum(bool(s.fault) for s in found) >= 1
    assert found[-1].url == "http://a.example/19999"


def test_one_column_may_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    path.write_text("url\nhttp://a.example/1\nhttp://a.example/2,with,commas\n")
    assert [s.url for s in read_submissions(path)] == ["http://a.example/1", "http://a.example/2"]
    path.write_text("http://a.example/1,2\nhttp://a.example/3\n")
    assert [s.url for s in read_submissions(path)] == ["http://a.example/1,2", "http://a.example/3"]
