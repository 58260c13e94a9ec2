"""What cannot work is refused before work starts, with the name of the field and a way out."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import SHORT, TINY, Inputs, content, make_inputs, train_small
from stops import Listens

from gptwo.config import with_settings
from gptwo.errors import DataError, GptwoError, ModelError, ResourceError, UsageError
from gptwo.model.sizes import GPT2Config
from gptwo.recipes import ModelAndTraining

DEFAULTS = ModelAndTraining(training=SHORT, model=TINY)


@pytest.mark.parametrize(
    "setting, said",
    [
        ("training.lr=0", "training.lr|lr must be above 0 and at most 1"),
        ("training.lr=-1e-3", "lr must be above 0 and at most 1"),
        ("training.lr=1e9", "lr must be above 0 and at most 1"),
        ("training.lr=NaN", "lr must be above 0 and at most 1"),
        ("training.muon_lr=20", "muon_lr must be above 0 and at most 1"),
        ("training.lr=fast", "training.lr: Input should be a valid number"),
        ("training.steps=0", "steps must be at least 1"),
        ("training.steps=1.5", "training.steps: Input should be a valid integer"),
        ("training.batch_tokens=0", "batch_tokens must be at least 1"),
        ("training.micro_batch=0", "micro_batch must be at least 1"),
        ("training.warmup_steps=-1", "warmup_steps must be 0 or more"),
        ("training.clip=0", "clip must be a positive number"),
        ("training.validation_interval=-1", "validation_interval must be 0 or more"),
        ("training.checkpoint_interval=-5", "checkpoint_interval must be 0 or more"),
        ("training.keep_checkpoints=0", "keep_checkpoints must be at least 1"),
        ("training.skip_limit=-1", "skip_limit must be 0 or more"),
        ("training.spike_zscore=0", "spike_zscore must be a positive number"),
        ("training.spike_zscore=NaN", "spike_zscore must be a positive number"),
        ("training.skip_spikes=maybe", "training.skip_spikes: Input should be a valid boolean"),
        ("training.seed=-1", "seed must be from 0 to"),
        ("training.leraning_rate=1", "unknown setting"),
        ("model.n_embd=15", "n_embd 15 is not a multiple of n_head 2"),
        ("model.n_head=0", "n_head must be at least 1"),
        ("model.n_head=17", "n_embd 16 is not a multiple of n_head 17"),
        ("model.n_layer=-2", "n_layer must be at least 1"),
        ("model.n_ctx=0", "n_ctx must be at least 1"),
        ("model.dropout=1", r"dropout must be in \[0, 1\)"),
        ("model.activation=relu", "activation must be gelu_new or gelu"),
    ],
)
def test_a_setting_out_of_range(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        with_settings(DEFAULTS, [setting])
    assert error.value.exit_code == 2 and error.value.remedy


@pytest.mark.parametrize(
    "training, model, error, said",
    [
        ({"batch_tokens": 65}, {}, UsageError, "batch_tokens 65 is not a multiple of n_ctx 16"),
        ({"batch_tokens": 8}, {}, UsageError, "batch_tokens 8 is not a multiple of n_ctx 16"),
        (
            {"batch_tokens": 20_000},
            {"n_ctx": 20_000},
            DataError,
            "tokens; one context takes 20,001",
        ),
        ({}, {"n_embd": 1 << 20}, ResourceError, "parameters takes about .* GB are free"),
        (
            {"batch_tokens": 16 << 30, "micro_batch": 1 << 30},
            {},
            ResourceError,
            "rows of 16 at a time, and",
        ),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path,
    inputs: Inputs,
    training: dict[str, Any],
    model: dict[str, Any],
    error: type[GptwoError],
    said: str,
) -> None:
    with pytest.raises(error, match=said) as raised:
        train_small(tmp_path / "run", inputs, replace(SHORT, **training), replace(TINY, **model))
    assert raised.value.remedy and not (tmp_path / "run").exists()


def _flip(folder: Path, name: str) -> None:
    blob = bytearray((folder / name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (folder / name).write_bytes(blob)


def _too_large_id(tokens: Path) -> None:
    """An id past the vocabulary, in files that are otherwise as their manifest says."""
    from gptwo.artifacts import describe_files, read_manifest, write_manifest

    ids = np.fromfile(tokens / "train-00000.bin", "<u2")
    ids[7] = 300
    ids.tofile(tokens / "train-00000.bin")
    manifest = read_manifest(tokens)
    files = manifest.files | describe_files(tokens, ["train-00000.bin"])
    write_manifest(tokens, replace(manifest, files=files))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda tokens: _flip(tokens, "train-00000.bin"), "train-00000.bin .*SHA-256"),
        (lambda tokens: _flip(tokens, "valid-00000.bin"), "valid-00000.bin .*SHA-256"),
        (lambda tokens: (tokens / "train-00000.bin").write_bytes(b"\1"), "train-00000.bin has 1 "),
        (lambda tokens: (tokens / "train-00000.bin").unlink(), "train-00000.bin is missing"),
        (lambda tokens: (tokens / "manifest.json").unlink(), "has no manifest.json"),
        (lambda tokens: (tokens / "manifest.json").write_text("[]"), "is not a gptwo manifest"),
        (_too_large_id, "train-00000.bin holds token id 300, the vocabulary has 300"),
    ],
)
def test_tokens_that_are_not_what_they_should_be(
    tmp_path: Path, inputs: Inputs, spoil: Callable[[Path], object], said: str
) -> None:
    tokens = shutil.copytree(inputs.tokens, tmp_path / "tokens")
    spoil(tokens)
    with pytest.raises(DataError, match=said) as error:
        train_small(tmp_path / "run", Inputs(tokens, inputs.tokenizer))
    assert error.value.exit_code == 3 and not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "out, error, said",
    [
        ("/proc/nowhere", ResourceError, "cannot make /proc/nowhere"),
        ("/sys/nowhere", ResourceError, "cannot write /sys/nowhere"),
        ("{}/a file", UsageError, "is a file, expected a folder"),
        ("{}/letters", UsageError, "holds other files"),
    ],
)
def test_a_folder_that_cannot_be_used(
    tmp_path: Path, inputs: Inputs, out: str, error: type[GptwoError], said: str
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to grandmother.txt").write_text("")
    with pytest.raises(error, match=said) as raised:
        train_small(Path(out.format(tmp_path)), inputs)
    assert raised.value.remedy


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Path:
    out = tmp_path_factory.mktemp("finished")
    train_small(out, inputs)
    return out


@pytest.mark.parametrize(
    "training, model, error, said",
    [
        ({"seed": 8}, {}, UsageError, r"training\.seed: 7 -> 8"),
        ({"batch_tokens": 128}, {}, UsageError, r"training\.batch_tokens: 64 -> 128"),
        ({"schedule": "cosine"}, {}, UsageError, r"training\.schedule: 'wsd' -> 'cosine'"),
        ({"skip_limit": 9}, {}, UsageError, r"training\.skip_limit: 3 -> 9"),
        ({}, {"dropout": 0.1}, ModelError, r"model\.dropout: 0\.0 -> 0\.1"),
        ({}, {"n_layer": 3}, ModelError, r"model\.n_layer: 2 -> 3"),
    ],
)
def test_other_settings_than_the_run_was_begun_with(
    tmp_path: Path,
    inputs: Inputs,
    finished: Path,
    training: dict[str, Any],
    model: dict[str, Any],
    error: type[GptwoError],
    said: str,
) -> None:
    out = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    before = content(out)
    config, shape = replace(SHORT, **training), replace(TINY, **model)
    with pytest.raises(error, match=said):
        train_small(out, inputs, config, shape)
    name = said.split(":")[0].replace("\\", "")
    with pytest.raises(UsageError, match="there is no such setting"):
        train_small(out, inputs, config, shape, accept_changes=(name + "s",))
    assert content(out) == before
    if model.get("n_layer"):
        with pytest.raises(ModelError, match=said) as fixed:
            train_small(out, inputs, config, shape, accept_changes=(name,))
        assert f"{name} cannot change in a run" in fixed.value.remedy
        assert content(out) == before
    else:
        heard = Listens()
        train_small(out, inputs, config, shape, accept_changes=(name,), reporter=heard)
        assert any("accepted a change of" in line and name in line for line in heard.heard)


def test_an_accepted_change_is_kept_in_the_plan(
    tmp_path: Path, inputs: Inputs, finished: Path
) -> None:
    """The run that was allowed to be longer goes on without being allowed again."""
    out = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    longer, accept = replace(SHORT, steps=12), ("training.steps",)
    train_small(out, inputs, longer, accept_changes=accept)
    plan = json.loads((out / "training.json").read_text())
    assert plan["accepted"] == ["training.steps: 10 -> 12"]
    shutil.rmtree(out / "checkpoints" / "step-00000012")  # back to one that was saved before
    train_small(out, inputs, longer)
    assert json.loads((out / "training.json").read_text()) == plan


def test_checkpoints_of_another_run(tmp_path: Path, inputs: Inputs, finished: Path) -> None:
    """Same shape and tokenizer: only what their manifests say tells them apart."""
    other = tmp_path / "other"
    train_small(other, inputs, replace(SHORT, seed=8))
    out = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(other / "checkpoints", out / "checkpoints", symlinks=True)
    with pytest.raises(UsageError, match=r"is of another run than .*training\.seed: 8 -> 7"):
        train_small(out, inputs)
    (out / "training.json").unlink()  # what they were made with is still known
    with pytest.raises(UsageError, match=r"training\.seed: 8 -> 7"):
        train_small(out, inputs)


def test_other_tokens_of_the_same_tokenizer(tmp_path: Path, inputs: Inputs, finished: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    other = make_inputs(tmp_path / "other", seed=3, tokenizer=inputs.tokenizer)
    longer = replace(SHORT, steps=12)
    with pytest.raises(UsageError, match=r"inputs\.tokens: "):
        train_small(out, other)
    final = train_small(out, other, longer, accept_changes=("inputs.tokens", "training.steps"))
    assert final.name == "step-00000012"


def test_a_warm_up_longer_than_the_run_is_told(tmp_path: Path, inputs: Inputs) -> None:
    heard = Listens()
    train_small(tmp_path, inputs, replace(SHORT, warmup_steps=100), reporter=heard)
    assert any("warmup_steps=100" in line and "10 steps" in line for line in heard.heard)


def test_shapes_are_checked_for_whoever_makes_one() -> None:
    with pytest.raises(ValueError, match="n_embd 10 is not a multiple of n_head 3"):
        GPT2Config(n_embd=10, n_head=3)
