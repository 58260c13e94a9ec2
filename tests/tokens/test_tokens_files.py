"""GPT-2's files and tokenizer.json: out, in, opened by others, and every way to be broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Foreign
from tokenizers import models
from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

from gptwo.artifacts import stage
from gptwo.errors import ModelError
from gptwo.tokens.tokenizer import Tokenizer

TEXT = "The state's naïve 日本 😀  we'll\n\n see 12½ \u00a0!"


@pytest.fixture
def saved(learned: Tokenizer, tmp_path: Path) -> Path:
    learned.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_and_loaded_it_is_the_same(learned: Tokenizer, saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "encoder.json", "tokenizer.json", "vocab.bpe",
    ]  # fmt: skip
    loaded = Tokenizer.load(saved)
    assert loaded.reference.merges == learned.reference.merges
    assert loaded.fingerprint == learned.fingerprint
    assert loaded.encode(TEXT) == learned.encode(TEXT)
    for name in ("encoder.json", "vocab.bpe"):
        (saved / name).unlink()
    assert Tokenizer.load(saved).fingerprint == learned.fingerprint
    learned.save(saved)
    (saved / "tokenizer.json").unlink()
    (saved / "encoder.json").unlink()
    assert Tokenizer.load(saved).fingerprint == learned.fingerprint


def test_the_files_are_laid_out_as_released(learned: Tokenizer, saved: Path) -> None:
    vocabulary = json.loads((saved / "encoder.json").read_text())
    assert list(vocabulary.values()) == list(range(557))
    assert vocabulary["!"] == 0 and vocabulary["Ġ"] == 220 and vocabulary["<|endoftext|>"] == 556
    lines = (saved / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#version: 0.2" and lines[-1] == "" and len(lines) == 302
    assert vocabulary[lines[1].replace(" ", "")] == 256
    assert (saved / "encoder.json").read_bytes().isascii()


def test_the_fingerprint_is_the_order_of_merges(learned: Tokenizer) -> None:
    merges = learned.reference.merges
    assert Tokenizer(merges[:-1]).fingerprint != learned.fingerprint
    swapped = [merges[0], merges[2], merges[1], *merges[3:]]
    assert Tokenizer(swapped).fingerprint != learned.fingerprint


def test_the_tokenizers_library_opens_it(learned: Tokenizer, saved: Path) -> None:
    foreign = Foreign.from_file(str(saved / "tokenizer.json"))
    assert foreign.encode(TEXT).ids == learned.encode(TEXT)
    assert foreign.decode(learned.encode(TEXT)) == TEXT
    assert foreign.get_vocab_size() == 557
    assert foreign.token_to_id("<|endoftext|>") == learned.eot
    # There the literal is the special token; here it is text (section 2 of the specification).
    assert foreign.encode("<|endoftext|>").ids == [learned.eot]
    assert learned.encode("<|endoftext|>") != [learned.eot]


def test_transformers_opens_the_folder(learned: Tokenizer, saved: Path, tmp_path: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "gpt2"}')  # as in a checkpoint
    opened = (
        GPT2TokenizerFast.from_pretrained(saved),
        AutoTokenizer.from_pretrained(saved),
        PreTrainedTokenizerFast(tokenizer_file=str(saved / "tokenizer.json")),
    )
    for foreign in opened:
        assert foreign(TEXT)["input_ids"] == learned.encode(TEXT)
        assert foreign.decode(learned.encode(TEXT)) == TEXT
    opened[0].save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "vocab.bpe").exists()
    assert Tokenizer.load(tmp_path / "theirs").fingerprint == learned.fingerprint


def test_repeated_spellings_survive_the_files(tmp_path: Path) -> None:
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc"), (b"abc", b"x")]
    tokenizer = Tokenizer(merges)
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).reference.merges == merges
    foreign = Foreign.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("abc", "abcx bc ab abx"):
        assert foreign.encode(text).ids == Tokenizer.load(tmp_path).encode(text)


PAGE = "<!DOCTYPE html>\n<html>404</html>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 456318\n"


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "text, said",
    [
        (PAGE, "is a web page"),
        (POINTER, "is a Git LFS pointer"),
        ("", "has 0 bytes"),
        ("\x00\x01", r"starts with|is not JSON"),
        ("[]", r"starts with '\[\]'|holds no JSON object"),
    ],
)
def test_files_of_another_kind_are_named(saved: Path, name: str, text: str, said: str) -> None:
    (saved / name).write_text(text)
    if name == "tokenizer.json":
        (saved / "vocab.bpe").unlink()
    with pytest.raises(ModelError, match=f"{name} ({said})") as error:
        Tokenizer.load(saved)
    assert error.value.exit_code == 4 and error.value.remedy


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json", "tokenizer.json"])
def test_bytes_that_are_no_text_are_named(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"#version \xff\xfe")
    if name == "tokenizer.json":
        (saved / "vocab.bpe").unlink()
    with pytest.raises(ModelError, match=f"{name} is not UTF-8"):
        Tokenizer.load(saved)


def test_truncated_merges_are_noticed_at_any_place(saved: Path) -> None:
    """Inside a line by its missing end, between lines by the vocabulary beside it."""
    whole = (saved / "vocab.bpe").read_bytes()
    for length in (len(whole) - 1, len(whole) - 2, len(whole) // 2, 20):
        (saved / "vocab.bpe").write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"vocab\.bpe"):
            Tokenizer.load(saved)
    (saved / "vocab.bpe").write_bytes(b"\n".join(whole.split(b"\n")[:200]) + b"\n")
    with pytest.raises(ModelError, match=r"encoder\.json and vocab\.bpe disagree on \d+ of 456"):
        Tokenizer.load(saved)


@pytest.mark.parametrize("line", ["abc", "a b c", "a ", " b", "", "a \u4e00", "a\tb"])
def test_a_line_that_is_no_merge_is_shown(saved: Path, line: str) -> None:
    text = (saved / "vocab.bpe").read_text(encoding="utf-8")
    (saved / "vocab.bpe").write_text(text + line + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"vocab\.bpe has a merge ") as error:
        Tokenizer.load(saved)
    assert repr(line) in error.value.message


def test_a_vocabulary_of_another_tokenizer_is_refused(learned: Tokenizer, saved: Path) -> None:
    merges = learned.reference.merges
    Tokenizer([merges[0], merges[2], merges[1], *merges[3:]]).save(saved / "other")
    (saved / "other" / "encoder.json").replace(saved / "encoder.json")
    with pytest.raises(ModelError, match=r"encoder\.json and vocab\.bpe disagree on 2 of 557"):
        Tokenizer.load(saved)


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json", "tokenizer.json"])
def test_a_flipped_bit_is_found_by_its_hash(learned: Tokenizer, tmp_path: Path, name: str) -> None:
    with stage(tmp_path / "t", kind="tokenizer", config={}, inputs={}) as made:
        learned.save(made.folder)
        made.commit(counts={})
    Tokenizer.load(tmp_path / "t")
    path = tmp_path / "t" / name
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name} \({len(data):,} bytes\) does not match its SHA"):
        Tokenizer.load(tmp_path / "t")
    path.unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        Tokenizer.load(tmp_path / "t")


def test_only_its_own_files_are_hashed(learned: Tokenizer, tmp_path: Path) -> None:
    """A checkpoint's gigabytes of weights are not read to open its tokenizer."""
    with stage(tmp_path / "t", kind="checkpoint", config={}, inputs={}) as made:
        learned.save(made.folder)
        (made.folder / "model.safetensors").write_bytes(b"weights")
        made.commit(counts={})
    (tmp_path / "t" / "model.safetensors").write_bytes(b"changed")
    assert Tokenizer.load(tmp_path / "t").fingerprint == learned.fingerprint


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    "edit, said",
    [
        (lambda v: v["model"].update(type="Unigram"), 'model type is "Unigram", expected "BPE"'),
        (lambda v: v.update(pre_tokenizer=None), "is not byte-level BPE"),
        (lambda v: v.update(model=[]), "is not byte-level BPE"),
        (lambda v: v["model"].pop("merges"), "is not byte-level BPE"),
        (lambda v: v.update(pre_tokenizer={"type": "Sequence"}), 'pre_tokenizer is "Sequence"'),
        (lambda v: v["pre_tokenizer"].update(use_regex=False), "use_regex is false"),
        (lambda v: v["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space is true"),
        (lambda v: v.update(normalizer={"type": "NFC"}), "normalizer is "),
        (lambda v: v["model"]["vocab"].update({"!": 1}), r"numbers 1 tokens unlike GPT-2 \('!'"),
        (lambda v: v["model"]["vocab"].pop("!"), "numbers 1 tokens unlike GPT-2"),
        (lambda v: v["model"].pop("vocab"), "numbers 556 tokens unlike GPT-2"),
        (lambda v: v["added_tokens"][0].update(id=3), r"\('<\|endoftext\|>' first\)"),
        (lambda v: v["model"]["merges"].append("a"), "has a merge 'a'"),
    ],
)
def test_a_foreign_tokenizer_that_works_otherwise_is_refused(
    saved: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    (saved / "vocab.bpe").unlink()
    change(saved / "tokenizer.json", edit)
    with pytest.raises(ModelError, match=rf"tokenizer\.json.*{said}") as error:
        Tokenizer.load(saved)
    assert error.value.exit_code == 4


def test_merges_may_be_pairs(learned: Tokenizer, saved: Path) -> None:
    """Newer versions of the library write ["a", "b"] for "a b"."""
    (saved / "vocab.bpe").unlink()
    change(
        saved / "tokenizer.json",
        lambda v: v["model"].update(merges=[line.split(" ") for line in v["model"]["merges"]]),
    )
    assert Tokenizer.load(saved).fingerprint == learned.fingerprint


@pytest.fixture
def hf_folder(learned: Tokenizer, saved: Path, tmp_path: Path) -> Path:
    """As the transformers library keeps it: vocab.json and merges.txt."""
    (tmp_path / "hf").mkdir()
    (saved / "encoder.json").rename(tmp_path / "hf" / "vocab.json")
    (saved / "vocab.bpe").rename(tmp_path / "hf" / "merges.txt")
    return tmp_path / "hf"


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data,
        lambda data: data.replace(b"\n", b"\r\n"),  # checked out on Windows
        lambda data: data.split(b"\n", 1)[1],  # without "#version"
        lambda data: data.replace(b"#version: 0.2", b"#version: 0.2 - Trained by `tokenizers`"),
    ],
    ids=["as-saved", "crlf", "no-header", "longer-header"],
)
def test_hugging_faces_names_open_too(
    learned: Tokenizer, hf_folder: Path, edit: Callable[[bytes], bytes]
) -> None:
    merges = hf_folder / "merges.txt"
    merges.write_bytes(edit(merges.read_bytes()))
    assert Tokenizer.load(hf_folder).fingerprint == learned.fingerprint
    (hf_folder / "vocab.json").unlink()
    assert Tokenizer.load(hf_folder).fingerprint == learned.fingerprint


def test_what_an_older_transformers_wrote_opens(learned: Tokenizer, hf_folder: Path) -> None:
    library = models.BPE.from_file(str(hf_folder / "vocab.json"), str(hf_folder / "merges.txt"))
    library.save(str(hf_folder))
    assert Tokenizer.load(hf_folder).fingerprint == learned.fingerprint


def test_mixed_vocabularies_are_refused_under_any_name(
    learned: Tokenizer, hf_folder: Path, tmp_path: Path
) -> None:
    merges = learned.reference.merges
    other = Tokenizer([merges[0], merges[2], merges[1], *merges[3:]])
    other.save(tmp_path / "other")
    for name, beside in (("vocab.json", "merges.txt"), ("encoder.json", "merges.txt")):
        (hf_folder / name).write_bytes((tmp_path / "other" / "encoder.json").read_bytes())
        with pytest.raises(ModelError, match=f"{name} and {beside} disagree on 2 of 557"):
            Tokenizer.load(hf_folder)
        (hf_folder / name).unlink()
    lines = (hf_folder / "merges.txt").read_bytes().split(b"\n")
    (hf_folder / "merges.txt").write_bytes(b"\n".join(lines[:200]))
    with pytest.raises(ModelError, match=r"merges\.txt is truncated"):
        Tokenizer.load(hf_folder)


def test_gpt2_from_its_two_files_is_gpt2(gpt2: Tokenizer, data_dir: Path, tmp_path: Path) -> None:
    """Written again the files are the released ones, byte for byte."""
    gpt2.save(tmp_path)
    for name, theirs in (("vocab.bpe", "merges.txt"), ("encoder.json", "vocab.json")):
        assert (tmp_path / name).read_bytes() == (data_dir / "bpe" / name).read_bytes()
        (tmp_path / name).rename(tmp_path / theirs)
    (tmp_path / "tokenizer.json").unlink()
    opened = Tokenizer.load(tmp_path)
    assert opened.reference.merges == gpt2.reference.merges


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match=r"neither vocab\.bpe nor merges\.txt nor tokenizer"):
            Tokenizer.load(folder)
