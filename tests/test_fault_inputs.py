"""Faults that lie in files, at the level of commands: flipped bits, wrong kinds, bad encodings.

The rows are those of docs/faults.md; test_faults.py shows the ones that come from outside.
"""

import gzip
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_arrow
from fault_runs import Caller, cut, flip, sign_again, spelt

from gptwo.artifacts import read_json, read_manifest, write_json, write_manifest
from gptwo.tokens.shards import open_shards
from gptwo.tokens.tokenizer import Tokenizer

TRAIN = (
    "train {run}/tokens --tokenizer {run}/tokenizer --out {out} --size femto "
    "--set training.steps=7 --set training.batch_tokens=512 --set training.validation_tokens=1024 "
    "--set training.warmup_steps=2 --set training.validation_interval=3 "
    "--set training.checkpoint_interval=2"
)


# Rows 5, 6, 8: models and stages that are not what they should be


@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize(
    "part, command, code",
    [
        ("checkpoints/step-00000006/model.safetensors", "sample {run}", 4),
        ("checkpoints/step-00000006/config.json", "eval {run} cloze", 4),
        ("checkpoints/step-00000006/vocab.bpe", "sample {run}", 4),
        ("checkpoints/step-00000006/encoder.json", "eval {run} cloze", 4),
        ("checkpoints/step-00000006/optimizer.safetensors", "train", 4),
        ("checkpoints/step-00000006/state.json", "train", 4),
        ("tokenizer/vocab.bpe", "pack {run}/corpus --tokenizer {run}/tokenizer --out {run}/new", 4),
        ("tokenizer/tokenizer.json", "train", 4),
        ("tokens/train-00000.bin", "train", 3),
        ("tokens/valid-00000.starts.npy", "train", 3),
        ("corpus/train/part-00000.parquet", "tokenizer {run}/corpus --out {run}/new", 3),
        ("links/links.parquet", "crawl {run}/links --out {run}/new", 3),
        ("samples/samples.jsonl", "verify {run}", 3),
    ],
)
def test_a_flipped_bit(
    part: str, command: str, code: int, at: float, run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 5: the hash finds it, the file and its size are named, nothing is made from it."""
    copy = tiny_arrow.copy_run(run, tmp_path / "run")
    flip(copy / part, at=at)
    words = spelt(TRAIN if command == "train" else command, run=copy, out=copy)
    words += ["--accept-change=training.steps"] if command == "train" else []
    size = f"{(copy / part).stat().st_size:,} bytes"
    call(*words).is_error(code, f"{copy / part} ({size}) does not match its SHA-256")
    assert not (copy / "new").exists()


@pytest.mark.parametrize("place", ["manifest.json", "config.json", "state.json"])
def test_a_flipped_bit_in_the_small_files(
    place: str, run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 5: wherever it is, `verify` names the file; only who does not read it may go on."""
    folder = tmp_path / "model"
    shutil.copytree(run / "checkpoints/step-00000006", folder)
    whole, path = (folder / place).read_bytes(), folder / place
    for number in range(0, len(whole), 1 + len(whole) // 12):
        path.write_bytes(whole)
        flip(path, at=number / (len(whole) - 1))
        told = call("sample", folder, "--max-tokens", "1", "--quiet")
        if told.code or place != "state.json":
            told.is_error(4, str(path))
        call("verify", folder, "--quiet").is_error(4, str(path))


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "is damaged"),  # cut in the middle
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer"),
        (b"\x80\x02}q\x00.", "a pickle"),
        (b"PK\x03\x04" + bytes(99), "a pickle"),
    ],
)
@pytest.mark.parametrize("command", ["sample {run}", "eval {run} cloze --corpus {run}"])
def test_something_else_in_the_place_of_weights(
    content: bytes | None, words: str, command: str, run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 6: it is recognised and called by its name."""
    folder = model_of(run, tmp_path / "model")
    if content is None:
        cut(folder / "model.safetensors")
    else:
        (folder / "model.safetensors").write_bytes(content)
    told = call(*spelt(command, run=folder))
    told.is_error(4, f"{folder}/model.safetensors", words)
    assert not (folder / "scores").exists()


def model_of(run: Path, folder: Path) -> Path:
    """The run's last checkpoint as a model folder of somebody else, without hashes."""
    shutil.copytree(run / "checkpoints/step-00000006", folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n_layer": 7}, ("n_layer: 2 in the file, 7 expected",)),
        ({"vocab_size": 601, "n_positions": 9}, ("vocab_size, n_embd: (600, ", "n_ctx, n_embd: (")),
        ({"n_embd": 96, "n_head": 3}, ("vocab_size, n_embd: (600, ", "n_ctx, n_embd: (")),
    ],
)
def test_a_model_of_another_shape(
    changes: dict[str, int], words: tuple[str, ...], run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 8: every field that differs is listed."""
    folder = model_of(run, tmp_path / "model")
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    call("sample", folder).is_error(4, f"{folder}/model.safetensors", *words, "config.json")


def test_a_model_with_another_tokenizer(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 8: a vocabulary that the model has no rows for; tokens of another vocabulary."""
    folder, other = model_of(run, tmp_path / "model"), tmp_path / "other"
    words = ["tokenizer", run / "corpus", "--out", other / "tokenizer", "--set", "vocab_size=700"]
    assert call(*words).code == 0
    for name in ("vocab.bpe", "encoder.json", "tokenizer.json"):
        shutil.copy(other / "tokenizer" / name, folder)
    call("sample", folder).is_error(4, "tokenizer has 700 tokens", "the model 600")
    call("eval", folder, "cloze", "--corpus", run / "corpus").is_error(4, "700", "600")
    (other / "tokens").symlink_to(run / "tokens")
    told = call(*spelt(TRAIN, run=other, out=tmp_path / "out"))
    told.is_error(4, "made with another tokenizer", "vocab_size: 600 -> 700", "fingerprint: ")
    assert not (tmp_path / "out").exists()
    told = call(*spelt(TRAIN, run=other, out=tiny_arrow.copy_run(run, tmp_path / "run")))
    told.is_error(4, "model.vocab_size: 600 -> 700", "inputs.tokenizer: ")


def test_going_on_with_another_shape(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 8: --accept-change does not make it fit."""
    copy = tiny_arrow.copy_run(run, tmp_path / "run")
    words = spelt(TRAIN.replace("femto", "nano"), run=run, out=copy)
    told = call(*words)
    told.is_error(4, "was begun with other settings", "model.n_embd: ", "training.steps: 6 -> 7")
    changed = ("model.n_embd", "model.n_head", "model.n_layer", "training.steps")
    accepts = [f"--accept-change={name}" for name in changed]
    call(*words, *accepts).is_error(4, "model.n_embd: ", "cannot change in a run")


# Row 29: ids that are not in the vocabulary


def edit(path: Path, at: int, value: int) -> None:
    ids = np.fromfile(path, "<u2")
    ids[at] = value
    ids.tofile(path)


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(
    "fault, words",
    [
        ("id", "holds token id 60000, the vocabulary has 600"),
        ("size", "not a multiple of 2"),
        ("type", "ids of type 'uint32', expected 'uint16' for a vocabulary of 600"),
        ("starts", "points past the end of {split}-00000.bin"),
        ("eot", "points where no document starts"),
        ("header", "is damaged"),
    ],
)
def test_ids_outside_the_vocabulary(
    fault: str, words: str, split: str, run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 29: the hashes fit, yet ids are looked at before the first step; the file is named."""
    other = tmp_path / "other"
    tokens = Path(shutil.copytree(run / "tokens", other / "tokens"))
    (other / "tokenizer").symlink_to(run / "tokenizer")
    file, starts = tokens / f"{split}-00000.bin", tokens / f"{split}-00000.starts.npy"
    if fault == "id":
        edit(file, -1, 60_000)
    elif fault == "eot":
        edit(file, 0, 5)
    elif fault == "size":
        file.write_bytes(file.read_bytes() + b"x")
    elif fault == "starts":
        np.save(starts, np.array([0, 1 << 40], np.uint64))
    elif fault == "header":
        starts.write_bytes(b"<!doctype html>")
    sign_again(tokens)
    if fault == "type":
        manifest = read_manifest(tokens)
        manifest.details["dtype"] = "uint32"
        write_manifest(tokens, manifest)
    place = {"type": tokens, "id": file, "size": file}.get(fault, starts)
    told = call(*spelt(TRAIN, run=other, out=tmp_path / "out"))
    told.is_error(3, str(place), words.format(split=split))
    assert not (tmp_path / "out").exists()


# Rows 18 and 22: damaged archives, odd encodings

WORDS = "The ships sailed at dawn, and the men on the shore watched them go over the quiet sea."


def document(number: int) -> bytes:
    return json.dumps({"text": f"Story {number}. " + f"{WORDS} {number} " * (number + 1)}).encode()


def warc_record(number: int) -> bytes:
    page = f"<html><body><p>Story {number}. {f'{WORDS} {number} ' * (number + 2)}</p></body></html>"
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}".encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{number}\r\n"
        f"WARC-Date: 2017-03-06T04:03:53Z\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def corpus_of(
    call: Caller, source: Path, *more: str
) -> tuple[dict[str, int], list[dict], set[str]]:
    """Build a corpus: what was dropped and how often, the documents, the sorted-out details."""
    out = source.with_name("corpus")
    words = ["--set", "rules=none", "--set", 'language=""', "--set", "near_duplicate_similarity=1"]
    told = call("corpus", source, "--out", out, "--workers", "1", "--json", *words, *more)
    assert told.code == 0, told.err
    dropped: dict[str, int] = {}
    for stage in told.result["stages"]:
        dropped |= stage["dropped"]
    rows = [row for path in out.rglob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = [row for row in rows if "reason" not in row]
    assert sum(told.result["documents"].values()) == len(kept)
    return dropped, kept, {row["detail"] for row in rows if "reason" in row}


@pytest.mark.parametrize("kind", ["jsonl", "warc"])
def test_damaged_archives(kind: str, tmp_path: Path, call: Caller) -> None:
    """Row 18: cut, of many members, compressed as a whole: good ones kept, bad ones counted."""
    record = {"jsonl": lambda n: document(n) + b"\n", "warc": warc_record}[kind]
    members = [gzip.compress(record(n), mtime=0) for n in range(6)]
    as_one = gzip.compress(b"".join(record(n) for n in range(6)), mtime=0)
    bad = bytearray(members[3])
    bad[len(bad) // 2 :] = bytes(len(bad) - len(bad) // 2)
    cases = {
        "whole": (b"".join(members), 6, 0),
        "as-one": (as_one, 6, 0),
        "cut": (b"".join(members)[:-20], 5, 1),
        "rubbish-after": (b"".join(members) + b"\0\1rubbish" * 9, 6, 1),
    }
    if kind == "warc":  # a crawl is a pile of single pages: reading goes on at the next
        hole = members[3][:80].ljust(len(members[3]), b"\0")
        cases["hole"] = (b"".join([*members[:3], hole, *members[4:]]), 5, 1)
        cases["bad-member"] = (b"".join([*members[:3], bytes(bad), *members[4:]]), 5, 1)
        cases["cut-as-one"] = (as_one[:-12], 5, 1)
    for name, (content, kept, damaged) in cases.items():
        source = tmp_path / name / f"a.{kind}.gz"
        source.parent.mkdir()
        source.write_bytes(content)
        dropped, rows, details = corpus_of(call, source)
        assert (len(rows), dropped.get("damaged", 0)) == (kept, damaged), (name, dropped, details)
        assert not damaged or any(re.search(r"(byte|line) [\d,]+", d) for d in details), details
    source.write_bytes(gzip.compress(record(0)[:50]) * 20)
    told = call("corpus", source, "--out", tmp_path / "refused", "--workers", "1")
    told.is_error(3, str(source), "are damaged", "max_damaged_share")


TEXTS: dict[str, tuple[bytes, str]] = {
    "bom": (b'\xef\xbb\xbf{"text": "With a mark at the start."}', "With a mark at the start."),
    "crlf": (b'{"text": "One line.\\r\\nAnother.\\rA third."}\r', "One line.\nAnother.\nA third."),
    "nul": (b'{"text": "A nul \\u0000 inside."}', "A nul  inside."),
    "surrogate": (b'{"text": "A lone \\ud800 half."}', "A lone \ufffd half."),
    "pair": (b'{"text": "A whole \\ud83d\\ude00 one."}', "A whole \U0001f600 one."),
    "latin-1": (b'{"text": "Caf\xe9 in Latin-1."}', "Caf\ufffd in Latin-1."),
    "mark inside": (b'{"text": "\\ufeffA mark in the text."}', "A mark in the text."),
}
FAULTY = {
    b'{"text": 5}': "no-text",
    b'{"title": "no text"}': "no-text",
    b'{"text": "  \\u0000 "}': "empty",
    b'{"text": "cut': "damaged",
    b"[1, 2]": "damaged",
    b"\xff\xfe\xfd": "damaged",
    b"[" * 100_000: "damaged",
}


def test_odd_encodings(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 22: one defined result per case; what is kept comes back from tokens byte by byte."""
    source = tmp_path / "odd.jsonl"
    huge = b'{"text": "' + b"endless " * 60_000 + b'"}'
    source.write_bytes(b"\n".join([*(line for line, _ in TEXTS.values()), *FAULTY, huge]))
    limit = "max_document_bytes=200000"
    dropped, rows, details = corpus_of(call, source, "--set", limit)
    assert {row["text"] for row in rows} == {text for _, text in TEXTS.values()}
    expected = [*FAULTY.values(), "too-large"]
    assert dropped == {reason: expected.count(reason) for reason in sorted(set(expected))}
    assert all(re.search(r"line \d+", detail) for detail in details)
    words = ["pack", tmp_path / "corpus", "--tokenizer", run / "tokenizer"]
    assert call(*words, "--out", tmp_path / "tokens").code == 0
    tokenizer, found = Tokenizer.load(run / "tokenizer"), []
    for split in ("train", "valid", "test"):
        shards = open_shards(tmp_path / "tokens", split)
        borders = [*shards.starts.tolist(), len(shards)]
        for start, end in pairwise(borders):
            found.append(tokenizer.decode_bytes(shards.read(start, end - start)[1:].tolist()))
    assert sorted(found) == sorted(text.encode() for _, text in TEXTS.values())


@pytest.mark.parametrize(
    "encoding, mark", [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16", b""), ("cp1252", b"")]
)
def test_text_files_of_other_encodings(
    encoding: str, mark: bytes, tmp_path: Path, call: Caller
) -> None:
    """Row 22: the first bytes of a text tell what it is; old Western text is read as such."""
    text = "Un café à Genève, où l’été dure.\r\nLe garçon lit.\r\n" * 4
    source = tmp_path / "a.txt"
    source.write_bytes(mark + text.encode(encoding))
    _, rows, _ = corpus_of(call, source)
    assert [row["text"] for row in rows] == [text.replace("\r\n", "\n").strip()]
