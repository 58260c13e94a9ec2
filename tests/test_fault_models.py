"""Faults in models and vocabularies, at the level of commands: every bit, forged weights, padding.

The rows are those of docs/faults.md; test_fault_inputs.py has the other faults that lie in files.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fault_runs import Caller, sign_again
from safetensors.torch import load_file, save_file

import gptwo
from gptwo.artifacts import MANIFEST, read_json, read_manifest, verify, write_json
from gptwo.errors import GptwoError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import save_checkpoint_model
from gptwo.tokens.shards import open_shards
from gptwo.tokens.tokenizer import Tokenizer

END = "<|endoftext|>"
LAST = "checkpoints/step-00000006"
WEIGHTS = "model.safetensors"
FLIPS = 500
MODEL_FILES = (WEIGHTS, "config.json", "vocab.bpe", "encoder.json", MANIFEST)


def model_of(run: Path, folder: Path) -> Path:
    """The run's last checkpoint as a model folder of somebody else, without hashes."""
    shutil.copytree(run / LAST, folder)
    (folder / MANIFEST).unlink()
    return folder


# Row 5: every bit of every kind of file


def kinds_of(run: Path) -> dict[str, list[Path]]:
    """Kind of file -> the files of that kind that a manifest answers for, manifests included."""
    kinds: dict[str, list[Path]] = {}
    for manifest in sorted(run.rglob(MANIFEST)):
        folder = manifest.parent
        found = read_manifest(folder)
        for name in [MANIFEST, *found.files]:
            kind = f"{found.kind}: {Path(name).name.replace('-00000', '').lstrip('0-')}"
            kinds.setdefault(kind, []).append(folder / name)
    return kinds


def with_bit_flipped(path: Path, place: int, bit: int, then: Callable[[], Any]) -> Any:
    """What `then` gives while one bit of a file is another."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1 << bit]))
        file.flush()
        try:
            return then()
        finally:
            file.seek(place)
            file.write(byte)


def users_of(kind: str, path: Path, folder: Path) -> Iterator[Callable[[], Any]]:
    """Those who read a file again: `verify`, and whoever opens its folder for the next stage."""
    room, name = kind.split(": ")
    yield lambda: verify(folder)
    if name in MODEL_FILES and (folder / WEIGHTS).exists():
        yield lambda: gptwo.load(folder)
    elif room == "tokenizer":
        yield lambda: Tokenizer.load(folder)
    elif room == "tokens" and path.suffix in (".bin", ".npy"):
        yield lambda: open_shards(folder, path.name.split("-")[0])


def exit_codes(steps: Iterable[Callable[[], Any]]) -> list[int]:
    codes = []
    for step in steps:
        try:
            step()
            codes.append(0)
        except GptwoError as error:
            codes.append(error.exit_code)
    return codes


def test_five_hundred_flipped_bits_are_all_found(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 5: random bits, as many in each kind of file; whoever opens it and `verify` see them."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for to in ("hf", "nanogpt", "llmc", "gguf", "onnx"):
        told = call("convert", copy / LAST, copy / "converted" / to, "--to", to, "--quiet")
        assert told.code == 0, told.err
    kinds = kinds_of(copy)
    expected = {WEIGHTS, "optimizer.safetensors", "state.json", "config.json", "vocab.bpe"}
    expected |= {"encoder.json", "tokenizer.json", "train.bin", "train.starts.npy", MANIFEST}
    expected |= {"part.parquet", "links.parquet", "pages.warc.gz", "samples.jsonl", "ckpt.pt"}
    assert expected <= {kind.split(": ")[1] for kind in kinds}, kinds
    assert any(k.endswith(".gguf") for k in kinds) and any(k.endswith(".onnx") for k in kinds)
    chance, missed, opened = random.Random(20_190_214), [], 0
    for number in range(FLIPS):
        kind = sorted(kinds)[number % len(kinds)]
        path = chance.choice(kinds[kind])
        place, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        folder = next(parent for parent in path.parents if (parent / MANIFEST).exists())
        where = f"bit {bit} of byte {place} of {path.relative_to(copy)}"

        users = users_of(kind, path, folder)
        codes = with_bit_flipped(path, place, bit, lambda users=users: exit_codes(users))
        opened += len(codes) - 1
        if not set(codes) <= {3, 4}:
            missed.append((where, codes))
    assert missed == [] and opened > 100
    assert call("verify", copy, "--quiet").code == 0  # and all of it was put back


# Row 7: forged headers and absurd shapes


def header(value: Any, size: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def tensor(shape: list[Any], end: int = 64, dtype: str = "F32") -> dict[str, Any]:
    return {"wte.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


FORGED: dict[str, bytes] = {
    "header of 2^63 bytes": header(b"{}", 1 << 63),
    "header of 99 MB": header(b"{}", 99_000_000),
    "header of 11 MB that is there": header(b"{" + b" " * 11_000_000 + b"}"),
    "header that is no JSON": header(b"{'wte': 1}"),
    "header a million deep": header(b'{"a":' + b"[" * 1_000_000),
    "10^12 numbers": header(tensor([10**6, 10**6]), data=bytes(64)),
    "10^12 numbers and their bytes": header(tensor([10**6, 10**6], 4 * 10**12), data=bytes(64)),
    "a shape beyond 64 bits": header(tensor([10**30]), data=bytes(64)),
    "a product beyond 64 bits": header(tensor([1 << 32, 1 << 32, 16]), data=bytes(64)),
    "a negative shape": header(tensor([-4, -4]), data=bytes(64)),
    "a fractional shape": header(tensor([1.5, 4]), data=bytes(64)),
    "no numbers": header(tensor([0, 32], 0)),
    "an unknown type": header(tensor([4, 4], dtype="F3"), data=bytes(64)),
    "an end before the start": header(
        {"wte.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [64, 0]}}, data=bytes(64)
    ),
    "two tensors in one place": header(
        tensor([4, 4]) | {"wpe.weight": tensor([4, 4])["wte.weight"]}, data=bytes(64)
    ),
    "a hole": header(tensor([4, 4]), data=bytes(128)),
    "150,000 tensors": header(
        {f"h.{n}.a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(150_000)}
    ),
    "nothing": header({}),
}
ABSURD: dict[str, Any] = {
    "10^9 layers": {"n_layer": 10**9},
    "10^18 tokens": {"vocab_size": 10**18},
    "10^400 positions": {"n_positions": 10**400},
    "a width of 2^40": {"n_embd": 1 << 40},
    "no heads": {"n_head": 0},
    "heads that do not divide": {"n_head": 7},
    "fewer layers than none": {"n_layer": -1},
    "words": {"n_layer": "many"},
    "a list": {"n_embd": [64]},
    "not a number": {"n_head": float("nan")},
    "endless": {"n_ctx": float("inf"), "n_positions": None},
    "dropout of 7": {"resid_pdrop": 7},
}


def test_forged_weights_and_absurd_shapes_cost_no_memory(run: Path, tmp_path: Path) -> None:
    """Row 7: each is refused by name, in a process that may take 400 MB more than it has."""
    weights, configs = tmp_path / "weights", tmp_path / "configs"
    whole = read_json(run / LAST / "config.json")
    for number, content in enumerate(FORGED.values()):
        folder = weights / str(number)
        folder.mkdir(parents=True)
        shutil.copy(run / LAST / "config.json", folder)
        (folder / WEIGHTS).write_bytes(content)
    for number, change in enumerate(ABSURD.values()):
        folder = configs / str(number)
        folder.mkdir(parents=True)
        shutil.copy(run / LAST / WEIGHTS, folder)
        (folder / "config.json").write_text(json.dumps(whole | change))
    code = (
        "import resource, sys, torch, gptwo.cli, gptwo.language_model, gptwo.verify\n"
        "from pathlib import Path\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 400_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "gptwo.cli.Reporter.listen = lambda self: None\n"
        "print([gptwo.cli.main(['sample', path, '--quiet']) for path in sys.argv[1:]])"
    )
    paths = [str(weights / str(n)) for n in range(len(FORGED))]
    paths += [str(configs / str(n)) for n in range(len(ABSURD))]
    began = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    codes = dict(zip([*FORGED, *ABSURD], json.loads(ran.stdout), strict=True))
    assert set(codes.values()) == {4}, ({k: v for k, v in codes.items() if v != 4}, ran.stderr)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(paths) and "Traceback" not in ran.stderr
    for path, line in zip(paths, errors, strict=True):
        assert path in line and len(line) < 1_500, line
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("name", ["config.json", "vocab.bpe", "encoder.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html><title>Sign in</title></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
        b"\x80\x02}q\x00.",
        b"[" * 200_000,
        b'{"version": 1}',
        b"\xff\xfe",
    ],
)
def test_something_else_in_the_place_of_small_files(
    content: bytes, name: str, run: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 6: with the config and the vocabulary too."""
    folder = model_of(run, tmp_path / "model")
    if name == "tokenizer.json":  # read where the files of OpenAI are not there
        (folder / "vocab.bpe").unlink()
        (folder / "encoder.json").unlink()
    (folder / name).write_bytes(content)
    told = call("sample", folder, "--max-tokens", "1", "--quiet")
    told.is_error(4, str(folder / name))


# Row 8: vocabularies that do not belong together


@pytest.fixture(scope="module")
def other_vocabulary(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many tokens as the run's, but other ones."""
    tokenizer = Tokenizer.load(run / "tokenizer")
    merges = list(tokenizer.reference.merges)
    spelt = {a + b for a, b in merges}
    pair = next((b"q", bytes([c])) for c in b"zxvk" if b"q" + bytes([c]) not in spelt)
    other = Tokenizer([*merges[:-1], pair])
    assert other.vocab_size == tokenizer.vocab_size
    folder = tmp_path_factory.mktemp("other")
    other.save(folder)
    return folder


def test_mixed_vocabularies(
    run: Path, other_vocabulary: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 8: of the same size, so that no shape tells: hashes, file pairs and fingerprints do."""
    names = ("vocab.bpe", "encoder.json", "tokenizer.json")
    checkpoint = Path(shutil.copytree(run / LAST, tmp_path / "checkpoint"))
    for name in names:
        shutil.copy(other_vocabulary / name, checkpoint)
    call("sample", checkpoint).is_error(4, f"{checkpoint}/")
    pair = model_of(run, tmp_path / "pair")
    shutil.copy(other_vocabulary / "vocab.bpe", pair)
    call("sample", pair).is_error(4, f"{pair}/encoder.json and vocab.bpe disagree")
    stage = Path(shutil.copytree(run / "tokenizer", tmp_path / "tokenizer"))
    for name in names:
        shutil.copy(other_vocabulary / name, stage)
    sign_again(stage)
    words = ["train", run / "tokens", "--tokenizer", stage, "--out", tmp_path / "out"]
    told = call(*words, "--size", "femto", "--quiet")
    told.is_error(4, "made with another tokenizer", "fingerprint: ")
    assert not (tmp_path / "out").exists()


def padded(folder: Path, rows: int) -> Path:
    """Rows without tokens that would win every choice: 20 times the likeliest word's."""
    weights = load_file(folder / WEIGHTS)
    name = next(key for key in weights if key.endswith("wte.weight"))
    more = 20 * weights[name][torch.randint(600, (rows - len(weights[name]),))]
    save_file(weights | {name: torch.cat([weights[name], more])}, folder / WEIGHTS)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"vocab_size": rows})
    return folder


def test_padding_rows_are_never_chosen(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 8: sampling, greedy choice, scores and evaluation are those without the padding."""
    torch.manual_seed(0)
    plain = model_of(run, tmp_path / "plain")
    wide = padded(model_of(run, tmp_path / "wide"), 1_024)
    prompt = "The President of the United States"
    for more in (["--temperature", "0"], ["--seed", "3", "--n", "2"], ["--top-k", "1000"]):
        words = ["--max-tokens", "12", "--json", "--quiet", *more]
        found = [call("sample", model, prompt, *words) for model in (plain, wide)]
        assert found[0].code == found[1].code == 0, found[1].err
        assert found[0].out == found[1].out and found[0].out
    one, other = gptwo.load(plain), gptwo.load(wide)
    assert other.model.config.vocab_size == 1_024 and other.tokenizer.vocab_size == 600
    pairs = [(prompt, " is"), ("", "The"), ("the", " people of this")]
    assert other.score(pairs) == pytest.approx(one.score(pairs), abs=1e-4)
    assert other.perplexity(prompt * 3) == pytest.approx(one.perplexity(prompt * 3), rel=1e-4)
    settings = ["--set", "documents=3", "--set", "questions=6", "--set", "resamples=5"]
    words = ["--corpus", run / "corpus", "--json", "--quiet", *settings]
    scores = []
    for model in (plain, wide):
        told = call("eval", model, "cloze", "lastword", "heldout", *words)
        assert told.code == 0, told.err
        scores.append({name: task["metrics"] for name, task in told.result.items()})
    for name, metrics in scores[0].items():
        assert scores[1][name] == pytest.approx(metrics, rel=1e-4), name
    found = call("verify", wide, "--json", "--quiet")
    assert found.code == 0 and found.result["model"]["padding_rows"] == 1_024 - 600


def test_padding_of_the_released_vocabulary(data_dir: Path, tmp_path: Path, call: Caller) -> None:
    """Row 8: 50,257 tokens in 50,304 rows, as nanoGPT and llm.c have them."""
    torch.manual_seed(1)
    model = GPT2(GPT2Config(vocab_size=50_304, n_ctx=64, n_layer=1, n_head=2, n_embd=16))
    with torch.no_grad():
        model.wte.weight.mul_(20)
        model.wte.weight[50_257:] *= 30
    save_checkpoint_model(model, tmp_path)
    for name in ("vocab.bpe", "encoder.json"):
        shutil.copy(data_dir / "bpe" / name, tmp_path)
    loaded = gptwo.load(tmp_path)
    ids = torch.tensor([loaded.tokenizer.encode("Hello world")])
    with torch.inference_mode():
        assert int(loaded.model(ids)[0, -1].argmax()) >= 50_257  # a padding row would win
    for temperature in (0, 1.5):
        assert loaded.generate("Hello world", temperature=temperature, max_tokens=20, seed=1)
    told = call("sample", tmp_path, "Hello world", "--json", "--max-tokens", "20", "--quiet")
    assert told.code == 0 and told.result["text"], told.err
    chances = loaded.score([("Hello", f" {word}") for word in ("world", "there", "you", "and")])
    assert all(-60 < chance < 0 for chance in chances)


# Row 23: the end of a text is no text


def test_the_end_of_text_in_a_prompt_is_text(run: Path, call: Caller) -> None:
    """Row 23: seven tokens or so, not one; on the command line, on stdin, in a score."""
    loaded = gptwo.load(run)
    ids = loaded.tokenizer.encode(f"a{END}b")
    assert loaded.tokenizer.eot not in ids and len(ids) > 5
    words = ["--max-tokens", "1", "--json", "--quiet"]
    told = call("sample", run, f"a{END}b", *words)
    assert told.result["prompt"] == f"a{END}b"
    told = call("sample", run, END * loaded.model.config.n_ctx, *words)
    told.is_error(2, "the prompt has", f"the model reads {loaded.model.config.n_ctx}")
    first = loaded.tokenizer.decode(loaded.tokenizer.encode(END)[:1])
    whole, start = loaded.score([("", END), ("", first)])
    assert whole < start < 0  # a product of several choices
    assert loaded.perplexity(END) > 1


def documents_of(corpus: Path) -> list[str]:
    parts = corpus.glob("[tv]*/part-*.parquet")
    return [row["text"] for path in parts for row in pq.read_table(path).to_pylist()]


def unpacked(tokens: Path, tokenizer: Tokenizer) -> list[str]:
    """The documents in token shards; the end of text stands before each and nowhere else."""
    found = []
    for split in ("train", "valid", "test"):
        shards = open_shards(tokens, split)
        ids = shards.read(0, len(shards))
        ends = np.flatnonzero(ids == tokenizer.eot).tolist()
        assert ends == shards.starts.tolist()
        for start, end in pairwise([*ends, len(ids)]):
            found.append(tokenizer.decode(ids[start + 1 : end].tolist()))
    return found


def test_the_end_of_text_in_documents_is_text(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 23: from JSONL through corpus, a tokenizer of their own and pack, and back."""
    texts = [
        f"{END}{END}",
        f"Before {END} after, document {{}}.",
        f"  {END}\n{END[:-1]} {END[1:]} nearly {{}}",
        "No mark at all in number {}.",
    ]
    lines = [{"text": text.replace("{}", str(n))} for n in range(40) for text in texts[1:]]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    plain = ["--set", "rules=none", "--set", 'language=""', "--set", "near_duplicate_similarity=1"]
    words = ["corpus", tmp_path / "in.jsonl", "--out", tmp_path / "corpus", "--workers", "1"]
    assert call(*words, *plain).code == 0
    words = ["tokenizer", tmp_path / "corpus", "--out", tmp_path / "tokenizer"]
    assert call(*words, "--set", "vocab_size=300").code == 0
    documents = documents_of(tmp_path / "corpus")
    assert len(documents) == len(lines) and sum(END in text for text in documents) == 80
    for vocabulary in (run / "tokenizer", tmp_path / "tokenizer"):
        tokenizer, out = Tokenizer.load(vocabulary), tmp_path / f"tokens-{vocabulary.parent.name}"
        words = ["pack", tmp_path / "corpus", "--tokenizer", vocabulary, "--out", out, "--quiet"]
        assert call(*words).code == 0
        assert sorted(unpacked(out, tokenizer)) == sorted(documents)
    assert END not in {tokenizer.decode([i]) for i in range(tokenizer.eot)}  # never learned


# Rows 22 and 27: hostile text through the commands

HOSTILE: dict[str, bytes] = {
    "a million letters": b"a" * 1_000_000,
    "a million spaces": b" " * 1_000_000,
    "a million combining marks": "\u0301".encode() * 1_000_000,
    "a million digits": b"7" * 1_000_000,
    "a million bad bytes": b"\xff" * 1_000_000,
    "a million line ends": b"\n" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_endless_prompts_take_no_endless_time(
    name: str, run: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 27: read from stdin and refused, for it is longer than the model reads."""
    monkeypatch.setattr(sys, "stdin", FakeStdin(HOSTILE[name]))
    began = time.process_time()
    told = call("sample", run, "-", "--quiet")
    seconds = time.process_time() - began
    told.is_error(2, "the prompt has", "the model reads 256")
    assert seconds < 2, f"{seconds:.1f} s of processor time"


class FakeStdin:
    """A stdin with these bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = self
        self.content = content

    def read(self) -> bytes:
        return self.content


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02",
        b"caf\xe9",
        "\ufeffA mark".encode(),
        "a\r\nb\rc\u2028d".encode(),
        b"\xed\xa0\x80",  # half of a surrogate pair, as UTF-8 must not hold
        b"\xf4\x90\x80\x80",
        "\U0010ffff \U000e0001 \u202e".encode(),
    ],
)
def test_odd_prompts_have_an_answer(
    content: bytes, run: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 22: bytes that are no text are continued too, from stdin and as an argument."""
    monkeypatch.setattr(sys, "stdin", FakeStdin(content))
    words = ["--max-tokens", "2", "--json", "--quiet"]
    told = call("sample", run, "-", *words)
    assert told.code == 0, told.err
    assert told.result["prompt"] == content.decode("utf-8", "replace")
    if b"\x00" not in content:  # no argument can hold one
        told = call("sample", run, os.fsdecode(content), *words)
        assert told.code == 0 and isinstance(told.result["prompt"], str), told.err


def test_endless_words_are_packed(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 27: a document that is one word of a megabyte comes back byte by byte."""
    texts = ["z" * 1_000_000, " " * 400_000 + "x", "e\u0301" * 300_000, "a story of the nation"]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    plain = ["--set", "rules=none", "--set", 'language=""', "--set", "near_duplicate_similarity=1"]
    words = ["corpus", tmp_path / "in.jsonl", "--out", tmp_path / "corpus", "--quiet", *plain]
    assert call(*words, "--workers", "1").code == 0
    kept = documents_of(tmp_path / "corpus")
    assert texts[0] in kept
    began = time.process_time()
    words = ["pack", tmp_path / "corpus", "--tokenizer", run / "tokenizer"]
    assert call(*words, "--out", tmp_path / "tokens", "--quiet").code == 0
    assert time.process_time() - began < 20
    found = unpacked(tmp_path / "tokens", Tokenizer.load(run / "tokenizer"))
    assert sorted(found) == sorted(kept)


def test_damage_is_an_error_of_its_room(run: Path, tmp_path: Path) -> None:
    """Row 5: data are 3, models are 4, whoever opens them."""
    for name, file, code in (("tokens", "train-00000.bin", 3), ("tokenizer", "vocab.bpe", 4)):
        folder = Path(shutil.copytree(run / name, tmp_path / name))
        users = list(users_of(f"{name}: {file}", folder / file, folder))[1:]
        assert exit_codes(users) == [0]
        found = with_bit_flipped(folder / file, 100, 3, lambda users=users: exit_codes(users))
        assert found == [code]
