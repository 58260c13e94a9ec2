"""Every format in, every format out: the same model, or a reason why not."""

import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import peers
import pytest
import torch
from peers import ARGUMENTS, Peer
from random_weights import SMALLEST, random_weights
from safetensors.torch import load_file, save_file
from test_formats_gguf import opened as opened_gguf
from test_formats_gguf import tensors as gguf_tensors
from torch import Tensor

from gptwo.artifacts import MANIFEST, verify
from gptwo.errors import DataError, Interrupted, ModelError, ResourceError, UsageError
from gptwo.formats import convert as converting
from gptwo.formats import hf, llmc, nanogpt
from gptwo.formats.convert import DTYPES, READERS, WRITERS, convert, read, recognise
from gptwo.formats.onnx import PLAIN
from gptwo.formats.weights import Weights, fitted, model_of, sample_logits
from gptwo.language_model import load
from gptwo.model.weights import load_model
from gptwo.progress import Reporter
from gptwo.tokens.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "goldens" / "formats"
IDS = torch.tensor([[0, 5, 258, 259, 17, 3], [100, 255, 256, 257, 1, 2]])
Made = tuple[Path, Tensor]  # where the model lies, what its own tool computes for IDS


def hf_folder(folder: Path) -> Made:
    """Two shards with their index, as the transformers library writes larger models."""
    weights = random_weights(tokenizer=None, vocab_size=260)
    hf.write(weights, folder, "f32")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    size = sum(value.numel() * 4 for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with torch.no_grad():
        return folder, model_of(weights)(IDS)


def pytorch_folder(folder: Path) -> Made:
    """Two files, masks among the weights and the head repeated, as old versions saved them."""
    weights = random_weights(tokenizer=None, vocab_size=260)
    hf.write(weights, folder, "f32")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state["lm_head.weight"] = state["transformer.wte.weight"]
    state |= {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 24, 24).tril() for i in range(2)}
    names = sorted(state)
    for number, part in enumerate((names[:9], names[9:]), 1):
        path = folder / f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: state[name] for name in part}, path)
    with torch.no_grad():
        return folder, model_of(weights)(IDS)


def nanogpt_folder(folder: Path) -> Made:
    """Compiled, without biases, the vocabulary padded."""
    arguments = ARGUMENTS | {"bias": False, "vocab_size": 320, "dropout": 0.0}
    peer = Peer(arguments)
    peers.write_nanogpt(peer, arguments, folder / "ckpt.pt")
    return folder, peer(IDS)


def llmc_file(folder: Path) -> Made:
    peer = Peer(ARGUMENTS, gelu="tanh")
    peers.write_llmc(peer, ARGUMENTS, folder / "gpt2_d2.bin")
    return folder / "gpt2_d2.bin", peer(IDS)


def mingpt_file(folder: Path) -> Made:
    peer = Peer(ARGUMENTS, gelu="tanh", tied=False)
    peers.write_mingpt(peer, ARGUMENTS, folder / "model.json")
    return folder / "model.json", peer(IDS)


def openai_folder(folder: Path) -> Made:
    """Written and computed by TensorFlow: of its logits the last position's are kept."""
    shutil.copytree(GOLDEN / "openai", folder, dirs_exist_ok=True)
    answer = json.loads((GOLDEN / "openai_logits.json").read_text())
    assert answer["ids"] == IDS.tolist()
    return folder, torch.tensor(answer["last_logits"])[:, None]


SOURCES: dict[str, Callable[[Path], Made]] = {
    "hf": hf_folder,
    "pytorch": pytorch_folder,
    "nanogpt": nanogpt_folder,
    "llmc": llmc_file,
    "mingpt": mingpt_file,
    "openai": openai_folder,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Tensor, Weights]]:
    found = {}
    for name, make in SOURCES.items():
        path, logits = make(tmp_path_factory.mktemp(name))
        found[name] = path, logits, read(path)[0]
    return found


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_computes_what_its_own_tool_does(kind: str, sources: dict) -> None:
    path, expected, weights = sources[kind]
    assert recognise(path) == kind
    with torch.no_grad():
        logits = model_of(weights)(IDS)[:, -expected.size(1) :]
    assert torch.allclose(logits, expected, atol=2e-5, rtol=1e-5)
    assert expected.std() > 0.3  # numbers that a wrong orientation could not meet by chance


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("kind", READERS)
def test_every_pair_keeps_the_model(kind: str, to: str, sources: dict, tmp_path: Path) -> None:
    weights = sources[kind][2]
    rows = weights.config.vocab_size
    merges = [(bytes([a]), bytes([b])) for a in range(97, 107) for b in range(97, 107)]
    if weights.tokenizer is None:
        weights = replace(weights, tokenizer=Tokenizer(merges[: rows - 257]))
    untied, exact = not weights.config.tied_head, weights.config.activation == "gelu"
    if (untied and to in ("nanogpt", "llmc")) or (exact and to in ("llmc", "gguf")):
        with pytest.raises(ModelError, match="head of its own" if untied else "GELU"):
            WRITERS[to](weights, tmp_path, "f32")
        assert not any(tmp_path.iterdir())
        return
    if to == "gguf":
        found = gguf_tensors(opened_gguf(weights, tmp_path, "f32"))
        assert torch.equal(sample_logits(replace(weights, tensors=found)), sample_logits(weights))
        return
    WRITERS[to](weights, tmp_path, "f32")
    with torch.no_grad():
        expected = model_of(weights)(IDS)
    if to == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / PLAIN)
        logits = torch.from_numpy(session.run(None, {"input_ids": IDS.numpy()})[0])
        assert torch.allclose(logits, expected, atol=1e-5)
        return
    assert recognise(tmp_path) == to
    back = read(tmp_path)[0]
    assert back.config.activation == weights.config.activation
    with torch.no_grad():
        assert torch.equal(model_of(back)(IDS), expected)
    assert all(torch.equal(back.tensors[name], value) for name, value in weights.tensors.items())


@pytest.mark.parametrize(("to", "dtype"), [("hf", "f16"), ("hf", "bf16"), ("llmc", "bf16")])
def test_fewer_bits_round_once(to: str, dtype: str, tmp_path: Path) -> None:
    """Rounding to the nearest, and a second conversion changes no byte."""
    source, once, twice = (tmp_path / name for name in ("source", "once", "twice"))
    source.mkdir()
    weights = random_weights()
    hf.write(weights, source, "f32")
    SMALLEST.save(source)
    report = convert(source, once, to=to, dtype=dtype)
    assert 0 < report["largest_logit_difference"] < 0.2
    kind = torch.float16 if dtype == "f16" else torch.bfloat16
    for name, value in read(once)[0].tensors.items():
        assert torch.equal(value, weights.tensors[name].to(kind).float()), name
    again = convert(once, twice, to=to, dtype=dtype)
    assert again["largest_logit_difference"] == 0
    assert again["wrote"]["files"] == report["wrote"]["files"]


def test_a_number_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    weights = random_weights()
    weights.tensors["h.1.mlp.c_fc.weight"][3, 4] = 70_000.0
    with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.weight holds 7e\+04.*65,504"):
        hf.write(weights, tmp_path, "f16")


def test_a_transposed_map_is_caught_by_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square map the wrong way round has the right shape: only the logits tell."""
    weights = random_weights()
    source = tmp_path / "source"
    source.mkdir()
    hf.write(weights, source, "f32")
    square = "h.0.attn.c_proj.weight"

    def careless(weights: Weights, out: Path, dtype: str) -> list[str]:
        turned = weights.tensors | {square: weights.tensors[square].t().contiguous()}
        return hf.write(replace(weights, tensors=turned), out, dtype)

    turned = tmp_path / "turned"
    turned.mkdir()
    careless(weights, turned, "f32")
    model = load_model(turned)  # opens without complaint
    assert {name: v.shape for name, v in model.state_dict().items()} == {
        name: v.shape for name, v in weights.tensors.items()
    }
    monkeypatch.setitem(converting.WRITERS, "hf", careless)
    with pytest.raises(ModelError, match="expected the same bits; it is not kept"):
        convert(source, tmp_path / "out", to="hf")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix != ".json"]
    monkeypatch.undo()
    assert convert(source, tmp_path / "out", to="hf")["largest_logit_difference"] == 0


def test_nanogpt_opens_what_is_written_and_the_note_tells_the_difference(tmp_path: Path) -> None:
    """Its GELU is the exact one: equal for a model trained so, a stated little off for GPT-2."""
    exact = random_weights(activation="gelu")
    nanogpt.write(exact, tmp_path, "f32")
    ids = torch.randint(258, (2, 20))
    with torch.no_grad():
        peer = peers.open_nanogpt(tmp_path / "ckpt.pt")
        assert torch.allclose(peer(ids), model_of(exact)(ids), atol=2e-5)
    released = random_weights()
    (note,) = nanogpt.write(released, tmp_path, "f32")
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(258, (2, 24), generator=source)  # what `sample_logits` looks at
    peer = peers.open_nanogpt(tmp_path / "ckpt.pt")
    measured = float((peer(ids) - sample_logits(released)).abs().max())
    assert 1e-4 < measured < 0.1
    assert "on a fixed random input" in note
    assert abs(float(note.rsplit(maxsplit=1)[1]) - measured) < 0.05 * measured


@pytest.mark.parametrize("dtype", DTYPES["llmc"])
def test_llmc_opens_what_is_written(dtype: str, tmp_path: Path) -> None:
    weights = random_weights()
    assert llmc.write(weights, tmp_path, dtype) == []
    peer, header = peers.open_llmc(tmp_path / llmc.FILE)
    assert header[7] == 384 and header[3] == 258  # rows of padding, and how many count
    stored = read(tmp_path)[0]
    ids = torch.randint(258, (2, 24))
    with torch.no_grad():
        assert torch.allclose(peer(ids), model_of(stored)(ids), atol=2e-5)


def test_llmc_gets_the_bytes_of_every_token(tmp_path: Path) -> None:
    llmc.write(random_weights(), tmp_path, "f32")
    data = (tmp_path / llmc.TOKENS_FILE).read_bytes()
    assert struct.unpack("<4i", data[:16]) == (20240328, 2, 258, 257)
    tokens, place = [], 1024
    while place < len(data):
        tokens.append(data[place + 1 : place + 1 + data[place]])
        place += 1 + data[place]
    assert tokens == [*map(SMALLEST.token_bytes, range(257)), b"<|endoftext|>"]


def test_llmc_has_no_place_for_a_token_of_256_bytes(tmp_path: Path) -> None:
    doubled = Tokenizer([(b"a" * 2**i, b"a" * 2**i) for i in range(8)])
    weights = random_weights(doubled, vocab_size=doubled.vocab_size)
    (note,) = llmc.write(weights, tmp_path, "f32")
    assert "255 bytes, one has 256" in note and not (tmp_path / llmc.TOKENS_FILE).exists()


def test_a_vocabulary_that_is_given_goes_before_what_lies_there(tmp_path: Path) -> None:
    """Files of another model beside the weights are in no one's way."""
    peers.write_llmc(Peer(ARGUMENTS, gelu="tanh"), ARGUMENTS, tmp_path / "gpt2.bin")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(ModelError, match="not byte-level BPE"):
        read(tmp_path / "gpt2.bin")
    weights, _ = read(tmp_path / "gpt2.bin", GOLDEN / "openai")
    assert weights.tokenizer is not None and weights.tokenizer.vocab_size == 260


def test_rows_of_padding_are_cut_when_the_vocabulary_is_known(
    sources: dict, tmp_path: Path
) -> None:
    path, expected, weights = sources["nanogpt"]
    tokenizer = GOLDEN / "openai"
    report = convert(path, tmp_path / "out", to="hf", tokenizer=tokenizer)
    assert report["notes"] == ["60 rows of padding cut: 320 rows, 260 tokens"]
    opened = load(tmp_path / "out")
    assert opened.model.config.vocab_size == opened.tokenizer.vocab_size == 260
    with torch.no_grad():
        assert torch.allclose(opened.model(IDS), expected[..., :260], atol=2e-5)
    assert report["tokenizer"] == opened.tokenizer.fingerprint
    kept, notes = fitted(weights, path)
    assert kept is weights
    assert notes == ["no tokenizer known: all 320 rows of embeddings are kept"]


def test_vocabularies_that_do_not_fit_are_told_with_both_numbers(tmp_path: Path) -> None:
    source = tmp_path / "small"
    source.mkdir()
    hf.write(random_weights(tokenizer=None), source, "f32")
    with pytest.raises(ModelError, match=r"tokenizer has 260 tokens, .* 258 rows"):
        convert(source, tmp_path / "out", to="hf", tokenizer=GOLDEN / "openai")
    folder, _ = openai_folder(tmp_path / "openai")
    hparams = json.loads((folder / "hparams.json").read_text()) | {"n_vocab": 50257}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(ModelError, match=r"n_vocab 50,257, the checkpoint has 260 rows"):
        convert(folder, tmp_path / "out", to="hf")


def test_a_run_is_its_newest_checkpoint(tmp_path: Path) -> None:
    newest = tmp_path / "run" / "checkpoints" / "step-00000002"
    newest.mkdir(parents=True)
    hf.write(random_weights(), newest, "f32")
    SMALLEST.save(newest)
    (newest / MANIFEST).write_text("{}")
    with pytest.raises(ModelError, match="not a gptwo manifest"):
        convert(tmp_path / "run", tmp_path / "out", to="llmc")
    shutil.rmtree(newest)
    made = tmp_path / "made"
    made.mkdir()
    hf.write(random_weights(), made, "f32")
    SMALLEST.save(made)
    convert(made, newest, to="hf")  # a folder with a manifest, as training leaves them
    report = convert(tmp_path / "run", tmp_path / "out", to="llmc")
    assert report["read"]["format"] == "hf" and sorted(report["wrote"]["files"]) == [
        "encoder.json",
        llmc.FILE,
        llmc.TOKENS_FILE,
        "tokenizer.json",
        "vocab.bpe",
    ]


def test_a_finished_folder_is_left_and_another_is_refused(tmp_path: Path) -> None:
    peer = Peer(ARGUMENTS, gelu="tanh")
    source, out = tmp_path / "gpt2.bin", tmp_path / "out"
    peers.write_llmc(peer, ARGUMENTS, source)
    first = convert(source, out, to="hf")
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert convert(source, out, to="hf") == first
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="made from something else"):
        convert(source, out, to="hf", dtype="bf16")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files \(notes\.txt\)"):
        convert(source, other, to="hf")
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_what_is_written_can_be_verified(tmp_path: Path) -> None:
    source, out = tmp_path / "gpt2.bin", tmp_path / "out"
    peers.write_llmc(Peer(ARGUMENTS, gelu="tanh"), ARGUMENTS, source)
    convert(source, out, to="hf")
    assert verify(out)["files"] == 2
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DataError, match="does not match its SHA-256"):
        verify(out)


def test_a_stop_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    source, out = tmp_path / "gpt2.bin", tmp_path / "out"
    peers.write_llmc(Peer(ARGUMENTS, gelu="tanh"), ARGUMENTS, source)
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        convert(source, out, to="hf", reporter=reporter)
    assert not (out / MANIFEST).exists() and not list(out.rglob("*.safetensors"))
    assert convert(source, out, to="hf")["largest_logit_difference"] == 0


def test_a_disk_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "gpt2.bin", tmp_path / "out"
    peers.write_llmc(Peer(ARGUMENTS, gelu="tanh"), ARGUMENTS, source)
    full = shutil.disk_usage(tmp_path)._replace(free=8_000_000)
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda path: full)
    monkeypatch.setitem(converting.WRITERS, "hf", None)  # is not reached
    with pytest.raises(ResourceError, match=r"takes 8 MB and .* has 8 MB"):
        convert(source, out, to="hf")
    assert not out.exists()


@pytest.mark.parametrize(("to", "dtype"), [("nanogpt", "bf16"), ("ggml", "f32"), ("hf", "q8_0")])
def test_formats_and_their_numbers_are_listed(to: str, dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write {dtype} {to}") as caught:
        convert(tmp_path, tmp_path / "out", to=to, dtype=dtype)
    for name, dtypes in DTYPES.items():
        assert f"{name}: {', '.join(dtypes)}" in caught.value.remedy


BAD_FILES = {
    "empty": (b"", "an empty file"),
    "page": (b"<!DOCTYPE html><html>gone</html>", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    "noise": (bytes(range(200, 250)), "of no known kind"),
    "lone": (struct.pack("<Q", 2) + b"{}", "without a config.json beside it"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_model_is_told_by_name(name: str, tmp_path: Path) -> None:
    data, words = BAD_FILES[name]
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words) as caught:
        convert(path, tmp_path / "out", to="hf")
    assert caught.value.exit_code == 4 and not (tmp_path / "out").exists()


def test_folders_without_one_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        recognise(tmp_path / "none")
    with pytest.raises(ModelError, match="no model of a known format"):
        recognise(tmp_path)
    for name in ("a.bin", "b.bin"):
        peers.write_llmc(Peer(ARGUMENTS), ARGUMENTS, tmp_path / name)
    with pytest.raises(ModelError, match=r"several models \(a\.bin, b\.bin\)"):
        recognise(tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(UsageError, match="needs google_crc32c") as caught:
        read(GOLDEN / "openai")
    assert "gptwo[formats]" in caught.value.remedy


def forged(**changes: int) -> bytes:
    """llm.c's header with other numbers in it, and a little data."""
    numbers = {"magic": 20240326, "version": 3, "block_size": 16, "vocab_size": 260}
    numbers |= {"n_layer": 2, "n_head": 2, "n_embd": 12, "padded": 384} | changes
    return struct.pack("<256i", *numbers.values(), *[0] * 248) + bytes(100)


FORGED = {
    "layers": (forged(n_layer=2**31 - 1), "1,124 bytes, its header says"),
    "rows": (forged(vocab_size=2**31 - 1, padded=2**31 - 1), "its header says"),
    "none": (forged(n_embd=0), "n_embd must be at least 1"),
    "negative": (forged(n_layer=-3), "n_layer must be at least 1"),
    "heads": (forged(n_head=5), "not a multiple of n_head"),
    "fewer rows": (forged(padded=10), "its header says"),
    "version": (forged(version=4), r"version 4; expected 20240326, version 3 \(float32\)"),
    "short": (forged()[:40], "has 40 bytes"),
}


@pytest.mark.parametrize("name", FORGED)
def test_llmc_headers_are_held_to_the_file(name: str, tmp_path: Path) -> None:
    data, words = FORGED[name]
    path = tmp_path / "gpt2.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words):
        read(path)


def test_mingpt_entries_are_held_to_their_shapes(tmp_path: Path) -> None:
    path, _ = mingpt_file(tmp_path)
    good = json.loads(path.read_text())
    name = "transformer.h.0.attn.c_attn.bias"
    for change, words in (
        ({"shape": [10**6, 10**6]}, r"144 bytes for shape"),
        ({"shape": [-36]}, "expected torch.float32"),
        ({"dtype": "torch.float64"}, "torch.float64 of shape"),
        ({"data": "%%%"}, "base64"),
        ({"data": None}, f"{name}: "),
    ):
        path.write_text(json.dumps(good | {name: good[name] | change}))
        with pytest.raises(ModelError, match=words):
            read(path)
    path.write_text(json.dumps(good | {"config": good["config"] | {"n_layer": 10**9}}))
    with pytest.raises(ModelError, match=r"h\.2\.ln_1\.weight: missing"):
        read(path)
    path.write_text(json.dumps(good | {"config": good["config"] | {"n_head": "2"}}))
    with pytest.raises(ModelError, match="n_head: expected whole numbers"):
        read(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    peer = Peer(ARGUMENTS, gelu="tanh")
    with torch.no_grad():
        peer.lm_head.weight[7, 7] = float("nan")
    peers.write_llmc(peer, ARGUMENTS, tmp_path / "gpt2.bin")
    with pytest.raises(ModelError, match=r"wte\.weight holds numbers that are not finite"):
        read(tmp_path / "gpt2.bin")


def test_the_sorting_model_arrives_and_sorts(data_dir: Path, tmp_path: Path) -> None:
    """A model that someone else trained, in minGPT's JSON: its own answers, then its trade."""
    folder = data_dir / "tiny_gpt"
    report = convert(folder / "gpt-nano-sort-model.json", tmp_path / "out", to="hf")
    assert report["read"]["format"] == "mingpt" and report["largest_logit_difference"] == 0
    model = load_model(tmp_path / "out")
    letters = np.random.default_rng(0).integers(3, size=(200, 6))
    ids = torch.from_numpy(letters)
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    right = (ids[:, 6:].numpy() == np.sort(letters, axis=1)).all(axis=1)
    assert right.mean() > 0.95
