"""Folders are whole or absent, and prove it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptwo import lock as locking
from gptwo.artifacts import (
    MANIFEST,
    PIECE,
    WORK,
    atomic_write,
    fingerprint_inputs,
    open_folder,
    read_manifest,
    sha256_file,
    stage,
    verify,
    write_json,
)
from gptwo.config import differences
from gptwo.errors import DataError, GptwoError, Interrupted, ModelError, ResourceError, UsageError
from gptwo.lock import lock
from gptwo.progress import Reporter
from gptwo.records import label_paths


def make(folder: Path, text: str = "hello", **config: object) -> object:
    with stage(folder, kind="thing", config=config, inputs={"source": "abc"}) as made:
        if made.done:
            return made.done
        with atomic_write(folder / "part-0.txt", "w") as handle:
            handle.write(text)
        return made.commit(counts={"documents": 1})


def test_a_stage_is_committed_once_and_then_found(tmp_path: Path) -> None:
    first = make(tmp_path / "out", lr=1)
    assert make(tmp_path / "out", lr=1, text="never written") == first
    assert (tmp_path / "out" / "part-0.txt").read_text() == "hello"
    assert not (tmp_path / "out" / WORK).exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, "part-0.txt"]


def test_a_folder_made_from_other_settings_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "out", lr=1)
    with pytest.raises(UsageError, match=r"lr: 1 -> 2"):
        make(tmp_path / "out", lr=2)


def test_a_folder_with_foreign_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        make(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="is a file"):
        make(tmp_path / "thesis.txt")


def test_partial_work_survives_a_stop_but_not_a_change_of_plan(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for config, expected in (({"lr": 1}, False), ({"lr": 1}, True), ({"lr": 2}, False)):
        with (
            pytest.raises(Interrupted),
            stage(out, kind="thing", config=config, inputs={}) as made,
        ):
            assert (made.work / "half.txt").exists() == expected
            (made.work / "half.txt").write_text("half")
            raise Interrupted("stop")
    assert not (out / MANIFEST).exists()


def test_a_half_written_file_is_never_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    (out / "part-1.txt.tmp-12345").write_text("half")
    make(out)
    assert not (out / "part-1.txt.tmp-12345").exists()


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_flipped_bit_is_found_and_named(tmp_path: Path, offset: int) -> None:
    out = tmp_path / "out"
    make(out)
    data = bytearray((out / "part-0.txt").read_bytes())
    data[offset] ^= 1
    (out / "part-0.txt").write_bytes(data)
    with pytest.raises(ModelError, match=r"part-0\.txt \(5 bytes\) does not match its SHA-256"):
        open_folder(out, "thing", error=ModelError)
    with pytest.raises(DataError, match=r"part-0\.txt"):
        verify(tmp_path)


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    """Free text too: spaces, the case of an exponent, the hash itself."""
    out = tmp_path / "out"
    make(out, lr=1e-05, note="caf\u00e9 \x1f")
    path = out / MANIFEST
    whole = path.read_bytes()
    assert b"1e-05" in whole and b"\\u001f" in whole
    for place in range(len(whole)):
        for bit in range(8) if whole[place] in b"eEfF0 \n" else (place % 8,):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(DataError):
                read_manifest(out)
    path.write_bytes(whole.replace(b"1e-05", b"1E-05"))
    with pytest.raises(ModelError, match="does not match its own SHA-256"):
        read_manifest(out, error=ModelError)
    path.write_bytes(whole)
    assert read_manifest(out).config == {"lr": 1e-05, "note": "caf\u00e9 \x1f"}


def test_missing_truncated_and_wrong_folders_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="does not exist"):
        open_folder(out, "thing")
    make(out)
    with pytest.raises(DataError, match="holds thing, expected corpus"):
        open_folder(out, "corpus")
    (out / "part-0.txt").write_text("hel")
    with pytest.raises(DataError, match="has 3 bytes, not 5"):
        open_folder(out, "thing")
    (out / "part-0.txt").unlink()
    with pytest.raises(DataError, match="is missing"):
        open_folder(out, "thing")
    (out / MANIFEST).write_text("<html>")
    with pytest.raises(DataError, match="is not JSON"):
        read_manifest(out)
    (out / MANIFEST).write_text('{"kind": "thing"}')
    with pytest.raises(DataError, match="not a gptwo manifest"):
        read_manifest(out)


def test_fingerprints_follow_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    before = fingerprint_inputs([tmp_path / "a.txt"])
    assert before == {"a.txt": sha256_file(tmp_path / "a.txt")}  # wherever it lies
    make(tmp_path / "out")
    assert list(fingerprint_inputs([tmp_path / "out"]).values()) == [
        read_manifest(tmp_path / "out").fingerprint
    ]
    with pytest.raises(DataError, match=r"missing\.txt does not exist"):
        fingerprint_inputs([tmp_path / "missing.txt"])


def test_paths_are_labelled_by_as_much_as_tells_them_apart(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x/a.txt", tmp_path / "y/a.txt", tmp_path / "y/c.txt"
    assert label_paths([c, a]) == {a: "a.txt", c: "c.txt"}
    assert label_paths([a, b, c, c]) == {a: str(a), b: str(b), c: "c.txt"}


def test_differences_name_nested_fields() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": None}) == [
        "a.b: 1 -> 3"
    ]


def test_a_living_process_keeps_its_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gptwo.lock import lock\n"
        f"with lock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid}"), lock(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with lock(tmp_path), lock(tmp_path):  # stale: taken over; ours: entered again
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(UsageError, match="elsewhere"), lock(tmp_path):
        pass


def test_a_torn_lock_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    with lock(tmp_path):
        pass


def test_a_full_disk_keeps_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with (
        pytest.raises(ResourceError, match=r"a\.txt: No space left") as caught,
        atomic_write(path) as handle,
    ):
        handle.write(b"new")
    assert "make room" in caught.value.remedy and caught.value.exit_code == 5
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount tmpfs")
def test_a_really_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        make(disk / "out")
        with pytest.raises(ResourceError, match="MB free"), atomic_write(disk / "big") as handle:
            for _ in range(64):
                handle.write(b"x" * 65536)
                handle.flush()
        assert open_folder(disk / "out", "thing").counts == {"documents": 1}
        assert not list(disk.glob("big*"))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_errors_travel_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DataError("bad", remedy="mend")))
    assert isinstance(error, DataError) and (error.message, error.remedy) == ("bad", "mend")
    kinds = GptwoError.__subclasses__()
    assert {kind.exit_code for kind in kinds} == {2, 3, 4, 5, 6, 7, 75}


def test_disk_errors_leave_other_errors_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd") as caught, locking.disk_errors(tmp_path):
        raise OSError(errno.EIO, "odd")
    assert not isinstance(caught.value, GptwoError)
    assert SimpleNamespace(e=caught.value).e.errno == errno.EIO


def test_reading_inputs_is_shown_and_can_be_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").write_bytes(bytes(5 * PIECE // 2))
    (tmp_path / "small").write_bytes(b"x")
    reporter = Reporter()
    assert fingerprint_inputs([tmp_path], reporter) == fingerprint_inputs([tmp_path])
    assert "reading inputs: 4/4 MiB" in capsys.readouterr().err
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        fingerprint_inputs([tmp_path / "large"], reporter)
