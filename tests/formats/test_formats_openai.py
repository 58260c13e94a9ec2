"""TensorFlow's checkpoint files, the golden ones written by TensorFlow itself."""

import json
import random
import shutil
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import google_crc32c
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwo.errors import ModelError
from gptwo.formats.convert import read, recognise
from gptwo.formats.openai import released_name
from gptwo.formats.tensor_bundle import MAGIC, Bundle

GOLDEN = Path(__file__).parents[1] / "goldens" / "formats" / "openai"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "124M"))


def test_every_variable_is_there_with_its_shape() -> None:
    """What a trainer keeps beside the model is listed, and not taken for a part of it."""
    bundle = Bundle(GOLDEN / INDEX)
    assert bundle.entries["model/h1/attn/c_attn/w"].shape == (1, 4, 12)
    assert {"global_step", "model/wte/Adam"} < bundle.entries.keys()
    weights, notes = read(GOLDEN)
    assert len(weights.tensors) == 2 + 2 * 12 + 2 and notes == []
    assert weights.tokenizer is not None and weights.tokenizer.vocab_size == 260
    assert torch.equal(
        weights.tensors["h.1.attn.c_attn.weight"], bundle.tensor("model/h1/attn/c_attn/w")[0]
    )


def test_names() -> None:
    assert released_name("model/h11/mlp/c_proj/b") == "h.11.mlp.c_proj.bias"
    assert released_name("model/ln_f/g") == "ln_f.weight"
    assert released_name("model/wpe") == "wpe.weight"
    assert released_name("global_step") is None


def test_where_the_checkpoint_is_told_by_its_pointer(folder: Path) -> None:
    """One of several, under whatever path it was saved; without a pointer it must be the only."""
    for name in (INDEX, DATA):
        shutil.copy(folder / name, folder / name.replace("model.ckpt", "model-9.ckpt"))
    (folder / "checkpoint").write_text('model_checkpoint_path: "/somewhere/else/model-9.ckpt"\n')
    (folder / INDEX).write_bytes(b"not read")
    assert recognise(folder) == "openai"
    assert read(folder)[0].config.n_layer == 2
    (folder / "checkpoint").unlink()
    with pytest.raises(ModelError, match=r"model-9\.ckpt\.index, model\.ckpt\.index, expected one"):
        read(folder)


def test_every_flipped_bit_is_seen(folder: Path) -> None:
    """At 500 random places of the two files: never other numbers, and seldom no harm at all."""
    whole, places = read(folder)[0].tensors, random.Random(0)
    harmless = 0
    for _ in range(500):
        name = places.choice([INDEX, DATA])
        data = bytearray((GOLDEN / name).read_bytes())
        data[places.randrange(len(data))] ^= 1 << places.randrange(8)
        (folder / name).write_bytes(data)
        try:
            found = read(folder)[0].tensors
        except ModelError:
            pass
        else:  # the trainer's own variables, or zeros that fill the footer
            harmless += 1
            assert all(torch.equal(found[key], value) for key, value in whole.items())
        shutil.copy(GOLDEN / name, folder / name)
    assert harmless < 200


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_every_truncation_is_told(name: str, folder: Path) -> None:
    data = (GOLDEN / name).read_bytes()
    for size in {0, 1, 47, 48, 60, *range(0, len(data) - 1, 97)}:
        (folder / name).write_bytes(data[:size])
        if name == DATA and size >= 5_000:
            continue  # what follows may be the trainer's
        with pytest.raises(ModelError):
            read(folder)


def test_damage_is_told_where_it_is(folder: Path) -> None:
    data = bytearray((folder / DATA).read_bytes())
    offset = Bundle(folder / INDEX).entries["model/wpe"].offset
    data[offset] ^= 1
    (folder / DATA).write_bytes(data)
    with pytest.raises(ModelError, match=rf"model/wpe \(bytes {offset:,} to .* its checksum"):
        read(folder)
    (folder / DATA).unlink()
    with pytest.raises(ModelError, match=r"data-00000-of-00001 is missing"):
        read(folder)
    (folder / INDEX).write_bytes(b"<html>" + bytes(100))
    with pytest.raises(ModelError, match="does not end as a table of TensorFlow does"):
        read(folder)


def test_missing_or_foreign_hparams_are_told(folder: Path) -> None:
    for text, words in (
        ("<html>", "not JSON"),
        ('{"n_vocab": 260}', "'n_ctx' is missing"),
        ("[]", "states no GPT-2 shape"),
        (json.dumps(json.loads((GOLDEN / "hparams.json").read_text()) | {"n_head": 3}), "n_head 3"),
    ):
        (folder / "hparams.json").write_text(text)
        with pytest.raises(ModelError, match=words):
            read(folder)
    (folder / "hparams.json").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        read(folder)


def varint(value: int) -> bytes:
    low = []
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])


def table(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """An index with one block of `entries`, every checksum right."""

    def block(records: list[tuple[bytes, bytes]]) -> bytes:
        body = b"".join(
            b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in records
        )
        return body + struct.pack("<II", 0, 1)

    def sealed(body: bytes) -> bytes:
        crc = google_crc32c.value(body + bytes([kind]))
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return body + struct.pack("<BI", kind, masked)

    data = block(entries)
    root = block([(b"z", varint(0) + varint(len(data)))])
    place = varint(len(sealed(data))) + varint(len(root))
    footer = (varint(0) + varint(0) + place).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
    return sealed(data) + sealed(root) + footer


def entry(side: int, size: int, dtype: int = 1) -> bytes:
    dim = b"\x08" + varint(side)
    shape = b"\x12" + varint(len(dim)) + dim
    place = b"\x20" + varint(0) + b"\x28" + varint(size) + b"\x35" + bytes(4)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(shape)) + shape + place


FORGED = {
    "side": (table([(b"model/wpe", entry(10**12, 4 * 10**12))]), "is said to take"),
    "size": (table([(b"model/wpe", entry(10**12, 4))]), "is said to take"),
    "integers": (table([(b"model/wpe", entry(1, 4, dtype=3))]), "not floating-point"),
    "compressed": (table([(b"model/wpe", entry(1, 4))], kind=1), "is compressed"),
    "cut entry": (table([(b"model/wpe", entry(1, 4)[:3])]), "cannot be read"),
    "number for shape": (table([(b"model/wpe", b"\x10" + varint(10**13))]), "field 2 is a number"),
    "endless number": (table([(b"model/wpe", b"\x08" + b"\xff" * 11)]), "more than 64 bits"),
}


@given(st.binary(max_size=40), st.binary(max_size=12))
def test_no_bytes_of_an_entry_do_more_than_be_refused(value: bytes, key: bytes) -> None:
    """With every checksum right, so that nothing is stopped before it is looked at."""
    with TemporaryDirectory() as name:
        index = Path(name, INDEX)
        index.write_bytes(table([(key, value), (b"model/wpe", value)]))
        with pytest.raises(ModelError):
            Bundle(index).tensor("model/wpe")


@pytest.mark.parametrize("name", FORGED)
def test_forged_indexes_are_held_to_the_data(name: str, folder: Path) -> None:
    data, words = FORGED[name]
    (folder / INDEX).write_bytes(data)
    with pytest.raises(ModelError, match=words):
        read(folder)
