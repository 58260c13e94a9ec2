"""Training on several corpora at once."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_run import SHORT, TINY, Inputs, content, make_inputs, train_small

from gptwo.config import with_settings
from gptwo.errors import ModelError, UsageError
from gptwo.recipes import ModelAndTraining
from gptwo.training.metrics import Lines

MIX = replace(SHORT, mix="0.75,0.25")


@pytest.fixture(scope="module")
def two(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folder of `inputs` and one of another corpus with the same tokenizer."""
    folder = tmp_path_factory.mktemp("second")
    second = make_inputs(folder, seed=2, tokenizer=inputs.tokenizer, documents=20)
    return [inputs.tokens, second.tokens]


def test_a_mix_that_was_stopped_ends_with_the_same_bits(
    inputs: Inputs, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_small(tmp_path / "whole", inputs, MIX, tokens=two)
    write = Lines.write

    def write_until(self: Lines, line: dict[str, object]) -> None:
        write(self, line)
        if line["step"] == 7:
            raise KeyboardInterrupt  # as a kill: the last commit is that of step 6

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "write", write_until)
        with pytest.raises(KeyboardInterrupt):
            train_small(tmp_path / "stopped", inputs, MIX, tokens=two)
    train_small(tmp_path / "stopped", inputs, MIX, tokens=two)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_the_mix_and_its_folders_are_what_a_run_is_bound_to(
    inputs: Inputs, two: list[Path], tmp_path: Path
) -> None:
    train_small(tmp_path / "run", inputs, MIX, tokens=two)
    with pytest.raises(UsageError, match=r"training\.mix: '0\.75,0\.25' -> '1,1'"):
        train_small(tmp_path / "run", inputs, replace(MIX, mix="1,1"), tokens=two)
    with pytest.raises(UsageError, match=r"inputs\.tokens: "):
        train_small(tmp_path / "run", inputs, MIX, tokens=two[::-1])
    with pytest.raises(UsageError, match="has 2 weights for 1 token folders"):
        train_small(tmp_path / "one", inputs, MIX)


def test_tokens_of_different_tokenizers_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    other = make_inputs(tmp_path / "other", seed=3, documents=400)
    folders = [inputs.tokens, other.tokens]
    with pytest.raises(ModelError, match=f"{inputs.tokens} and {other.tokens} were made with"):
        train_small(tmp_path / "run", inputs, MIX, tokens=folders)


@pytest.mark.parametrize("mix", ["0.7,x", "0.7,0", "1e99,1", "[1]", "0.12345,0.87655"])
def test_a_setting_that_is_no_mix_is_refused_by_name(mix: str) -> None:
    config = ModelAndTraining(model=TINY)
    with pytest.raises(UsageError, match=r"setting training(\.mix)?: (mix must|Input should)"):
        with_settings(config, [f"training.mix={mix}"])
    assert with_settings(config, ["training.mix=7,3"]).training.mix == "7,3"
