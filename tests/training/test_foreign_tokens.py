"""Tokens carry the fingerprint of their tokenizer, and training refuses another's."""

from pathlib import Path

import pytest
from small_run import Inputs, content, make_inputs, train_small

from gptwo.errors import ModelError
from gptwo.tokens.bins import export_bins, import_bins
from gptwo.tokens.config import PackConfig
from gptwo.tokens.tokenizer import Tokenizer


def fingerprint(tokenizer: Path) -> str:
    return Tokenizer.load(tokenizer).fingerprint


def test_both_fingerprints_are_named(tmp_path: Path, inputs: Inputs) -> None:
    """Two vocabularies of the same size: nothing but the fingerprint tells them apart."""
    other = make_inputs(tmp_path / "other", seed=3).tokenizer
    assert Tokenizer.load(other).vocab_size == Tokenizer.load(inputs.tokenizer).vocab_size
    said = f"fingerprint: '{fingerprint(inputs.tokenizer)}' -> '{fingerprint(other)}'"
    with pytest.raises(ModelError, match=said) as error:
        train_small(tmp_path / "run", Inputs(inputs.tokens, other))
    assert error.value.exit_code == 4 and "pack them again" in error.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("to", ["nanogpt", "llmc"])
def test_tokens_that_were_abroad_train_the_same(tmp_path: Path, inputs: Inputs, to: str) -> None:
    """Out to another program's files and back: the run's bytes but for what it says of its inputs.

    Imported with one tokenizer, they are refused with another.
    """
    export_bins(inputs.tokens, tmp_path / "out", to)
    files = sorted((tmp_path / "out").glob("*.bin"))
    import_bins(files, inputs.tokenizer, tmp_path / "tokens", PackConfig())
    train_small(tmp_path / "one", inputs)
    train_small(tmp_path / "two", Inputs(tmp_path / "tokens", inputs.tokenizer))
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    weights = [name for name in one if name.endswith(".safetensors")]
    assert len(weights) >= 2 and [one[name] for name in weights] == [two[name] for name in weights]
    assert one["metrics.jsonl"] == two["metrics.jsonl"]
    other = make_inputs(tmp_path / "other", seed=3).tokenizer
    with pytest.raises(ModelError, match="made with another tokenizer"):
        train_small(tmp_path / "three", Inputs(tmp_path / "tokens", other))
