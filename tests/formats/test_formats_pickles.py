"""Pickles from strangers: nothing they ask for is run, and little memory is spent on them."""

import collections
import io
import os
import pickle
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gptwo.errors import ModelError, ResourceError
from gptwo.formats import pickles, unpickle
from gptwo.formats.convert import convert

STATE = {"transformer.wte.weight": torch.arange(12.0).view(3, 4), "lm_head.weight": torch.ones(2)}
MB = 1_000_000


class Code:
    """Unpickled, it would make the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


def test_tensors_and_plain_values_arrive(tmp_path: Path) -> None:
    """Shared memory, half precision and the optimiser's tensors beside the model are no trouble."""
    row = torch.arange(8.0)
    model = {"a": row, "b": row[2:6], "c": torch.ones(2, 3, dtype=torch.bfloat16).t()}
    beside = {"optimizer": {"state": {0: torch.zeros(50)}}, "best_val_loss": torch.tensor(2.5)}
    arguments = {"n_layer": 2, "bias": False, "tags": ("x", None), "seen": torch.ones(3)}
    torch.save({"model": model, "model_args": arguments} | beside, tmp_path / "ckpt.pt")
    found = pickles.load(tmp_path / "ckpt.pt")
    assert found.tensors.keys() == model.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in model.items())
    assert found.facts == {
        "model_args": {"n_layer": 2, "bias": False, "tags": ["x", None], "seen": "Tensor"},
        "best_val_loss": 2.5,
    }


def with_code(kind: str, canary: Path, path: Path) -> None:
    code = Code(canary)
    if kind == "among the tensors":
        torch.save({"model": STATE | {"a": code}, "model_args": {}}, path)
    elif kind == "deep in the settings":
        torch.save({"model": STATE, "config": {"run": [{"name": code}]}}, path)
    elif kind == "before zip archives":
        torch.save(STATE | {"a": code}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"model": code}, protocol=2))


def refused(path: Path, words: str) -> None:
    """What the child would do with the file and say of it, without the cost of a child."""
    with pytest.raises(Exception) as caught:
        unpickle.read(path)
    assert re.search(words, unpickle.reason(caught.value)), caught.value


@pytest.mark.parametrize("kind", ["among the tensors", "a bare pickle"])
def test_code_is_not_run(kind: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "ckpt.pt"
    with_code(kind, canary, path)
    refused(path, r"asks for posix\.system, which is code")
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["deep in the settings", "before zip archives"])
def test_code_is_named_and_ends_a_conversion(kind: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "ckpt.pt"
    with_code(kind, canary, path)
    with pytest.raises(ModelError, match=r"asks for posix\.system, which is code") as caught:
        convert(path, tmp_path / "out", to="hf")
    assert caught.value.exit_code == 4 and not canary.exists()
    if kind == "deep in the settings":  # the canary sings when the file is opened without care
        torch.load(path, weights_only=False)
        assert canary.exists()


class Crafted:
    """A tensor over a storage that claims `numel` numbers, as a pickle can say it."""

    def __init__(self, numel: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.numel, self.shape, self.stride = numel, shape, stride

    def dump(self, handle: Any, *more: object) -> None:
        outer, storage = self, object()

        class Writer(pickle.Pickler):
            def persistent_id(self, value: object) -> object:
                if value is storage:
                    return ("storage", torch.FloatStorage, "0", "cpu", outer.numel, *more)
                return None

        class Rebuilt:
            def __reduce__(self) -> tuple:
                hooks: dict = collections.OrderedDict()
                parts = (storage, 0, outer.shape, outer.stride, False, hooks)
                return torch._utils._rebuild_tensor_v2, parts

        Writer(handle, 2).dump({"a": Rebuilt()})

    def zipped(
        self, path: Path, *, kind: int = zipfile.ZIP_STORED, data: bytes = bytes(64)
    ) -> Path:
        stream = io.BytesIO()
        self.dump(stream)
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("x/data.pkl", stream.getvalue(), zipfile.ZIP_STORED)
            archive.writestr("x/data/0", data)
            archive.writestr("x/version", "3\n", zipfile.ZIP_STORED)
            archive.writestr("x/byteorder", "little", zipfile.ZIP_STORED)
        return path

    def legacy(self, path: Path) -> Path:
        sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}
        with path.open("wb") as handle:
            for part in (0x1950A86A20F9469CFC6C, 1001, sizes):
                pickle.dump(part, handle, 2)
            self.dump(handle, None)
            pickle.dump(["0"], handle, 2)
            handle.write(self.numel.to_bytes(8, "little") + bytes(64))
        return path


def test_a_crafted_file_that_is_honest_is_read(tmp_path: Path) -> None:
    """The tests below are refused for what they claim, not for how they are made."""
    honest = Crafted(16, (4, 4), (4, 1))
    for path in (honest.zipped(tmp_path / "a.pt"), honest.legacy(tmp_path / "b.pt")):
        assert torch.equal(unpickle.read(path)[0]["a"], torch.zeros(4, 4))


ABSURD = {
    "storage": (Crafted(10**12, (10**6, 10**6), (10**6, 1)).zipped, "expected size"),
    "shape": (Crafted(16, (10**6, 10**6), (10**6, 1)).zipped, "storage"),
    "stride 0": (Crafted(16, (10**6, 10**6), (0, 0)).zipped, "more than the file holds"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_shapes_are_told(name: str, tmp_path: Path) -> None:
    make, words = ABSURD[name]
    refused(make(tmp_path / "ckpt.pt"), words)


LOAD = """
import resource, sys
from pathlib import Path
from gptwo.errors import ModelError
from gptwo.formats import pickles
try:
    pickles.load(Path(sys.argv[1]))
except ModelError as error:
    print(error.message)
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's as well
print(status.split("VmHWM:")[1].split()[0])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_is_limited_where_no_check_foresees_it(tmp_path: Path) -> None:
    """Old files state how much to allocate: 4 GB here, in a file of 400 bytes."""
    path = Crafted(10**9, (4, 4), (4, 1)).legacy(tmp_path / "ckpt.pt")
    told = subprocess.run(  # a process of its own: the children of this one include other tests'
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    message, ours, childs = told.stdout.splitlines()
    assert "more memory" in message
    assert int(ours) < 1_000_000 and int(childs) < 1_500_000  # kB


def test_many_names_for_one_tensor_are_no_way_to_grow(tmp_path: Path) -> None:
    big = torch.zeros(10_000)
    torch.save({str(i): big for i in range(1_000)}, tmp_path / "ckpt.pt")
    refused(tmp_path / "ckpt.pt", "its tensors are larger than the file")


def test_a_zip_bomb_is_told_and_not_expanded(tmp_path: Path) -> None:
    bomb = Crafted(10**8 // 4, (10**8 // 4,), (1,))
    path = bomb.zipped(tmp_path / "ckpt.pt", kind=zipfile.ZIP_DEFLATED, data=bytes(10**8))
    assert path.stat().st_size < MB
    refused(path, r"zip bomb\? x/data/0 is compressed \(100,000,000 bytes")


def overlapping(path: Path) -> None:
    """A directory that lists one stretch of the file under many names."""
    Crafted(16, (4, 4), (4, 1)).zipped(path, data=bytes(50_000))
    with zipfile.ZipFile(path, "a") as archive:
        (entry,) = [info for info in archive.infolist() if info.filename == "x/data/0"]
        for i in range(1, 50):
            again = zipfile.ZipInfo(f"x/data/{i}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(again, name, getattr(entry, name))
            archive.filelist.append(again)
        archive._didModify = True  # the directory is written anew


def doubled(path: Path) -> None:
    Crafted(16, (4, 4), (4, 1)).zipped(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data.pkl", b"other")


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


def truncated(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-200])


ARCHIVES = {
    overlapping: r"zip bomb\? 2,500,\d\d\d bytes in a file of",
    doubled: "two members of one name",
    foreign: "not one by torch.save",
    truncated: "not a zip file",
}


@pytest.mark.parametrize("make", ARCHIVES, ids=lambda make: make.__name__)
def test_archives_are_looked_through_before_torch_is(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    make(path)
    refused(path, ARCHIVES[make])


def test_flipped_bits_never_make_another_model(tmp_path: Path) -> None:
    """At 500 random places: told, or outside of every member, where they change nothing."""
    path = tmp_path / "ckpt.pt"
    torch.save({"model": STATE, "model_args": {"n_layer": 1}}, path)
    data, places, told = path.read_bytes(), random.Random(0), 0
    for _ in range(500):
        damaged = bytearray(data)
        damaged[places.randrange(len(data))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            tensors, facts = unpickle.read(path)
        except Exception:  # whatever it is, the child turns it into a line
            told += 1
        else:
            assert facts == {"model_args": {"n_layer": 1}}
            assert all(torch.equal(tensors[name], value) for name, value in STATE.items())
    assert told > 100


NOT_WEIGHTS = {
    "a list": ([torch.ones(2)], "it holds a list, expected a dict of tensors"),
    "text": ({"a": "text"}, "it holds str 'a' among tensors"),
    "sparse": ({"a": torch.eye(3).to_sparse()}, "a is not a plain tensor"),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_what_is_no_state_dict_is_told(name: str) -> None:
    value, words = NOT_WEIGHTS[name]
    with pytest.raises(ValueError, match=words):
        unpickle._parts(value)


def test_a_state_dict_without_its_shape_is_told(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match="a pickle without model_args") as caught:
        convert(tmp_path / "ckpt.pt", tmp_path / "out", to="hf")
    assert "pytorch_model.bin" in caught.value.remedy


def test_what_is_not_a_pickle_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles.subprocess, "run", None)
    for data, words in ((b"", "an empty file"), (b"<html>", "a web page"), (b"abc", "too short")):
        (tmp_path / "ckpt.pt").write_bytes(data)
        with pytest.raises(ModelError, match=words):
            pickles.load(tmp_path / "ckpt.pt")


def test_a_full_disk_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "full.py"
    script.write_text("import sys; sys.exit('No space left on device (os error 28)')")
    torch.save(STATE, tmp_path / "ckpt.pt")
    monkeypatch.setattr(pickles.unpickle, "__file__", str(script))
    with pytest.raises(ResourceError, match="do not fit") as caught:
        pickles.load(tmp_path / "ckpt.pt")
    assert "TMPDIR" in caught.value.remedy


def test_names_of_strangers_do_not_reach_the_terminal_raw() -> None:
    told = unpickle.reason(ValueError("member \x1b[2J\x07 is compressed"))
    assert told == "member ?[2J? is compressed"


def test_a_child_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits end what the checks do not foresee."""
    script = tmp_path / "busy.py"
    script.write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass\n"
    )
    torch.save(STATE, tmp_path / "ckpt.pt")
    monkeypatch.setattr(pickles.unpickle, "__file__", str(script))
    with pytest.raises(ModelError, match="more memory or time than a file of its size may"):
        pickles.load(tmp_path / "ckpt.pt")
