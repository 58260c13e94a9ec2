"""The sample log keeps what was finished, whatever happens while it is written."""

from pathlib import Path

import pytest

from gptwo.zeroshot.log import SampleLog, read_frames, read_samples

HEADER = {"task": "cloze", "key": "k"}
BLOCKS = [
    [{"i": 0, "nats": 0.1 + 0.2}, {"i": 1, "word": "na\u00efve\u2028"}],
    [{"i": 2}],
    [{"i": 3}],
]


def write(path: Path) -> list[int]:
    """A log of three blocks; the bytes after the header and after each block."""
    log, sizes = SampleLog(path, HEADER), [path.stat().st_size]
    for block in BLOCKS:
        log.append(block)
        sizes.append(path.stat().st_size)
    return sizes


def test_records_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "log.zst"
    write(path)
    assert SampleLog(path, HEADER).blocks == BLOCKS
    assert read_samples(path) == [record for block in BLOCKS for record in block]


def test_a_log_cut_at_any_byte_keeps_its_whole_blocks(tmp_path: Path) -> None:
    sizes = write(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in range(0, len(data), 7):
        path = tmp_path / "torn"
        path.write_bytes(data[:length])
        log = SampleLog(path, HEADER)
        kept = max(0, sum(size <= length for size in sizes) - 1)
        assert log.blocks == BLOCKS[:kept]
        for block in BLOCKS[kept:]:
            log.append(block)
        assert path.read_bytes() == data


@pytest.mark.parametrize("at", [-3, -12])
def test_a_damaged_block_is_cut_off(tmp_path: Path, at: int) -> None:
    path = tmp_path / "log"
    sizes = write(path)
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert SampleLog(path, HEADER).blocks == BLOCKS[:2]
    assert path.stat().st_size == sizes[2]


def test_a_log_of_something_else_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    assert SampleLog(path, {**HEADER, "key": "other"}).blocks == []
    assert read_frames(path)[0] == [[{**HEADER, "key": "other"}]]
    path.write_text("not a log")
    assert SampleLog(path, HEADER).blocks == []
