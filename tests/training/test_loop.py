"""The loop: it learns, it repeats itself to the bit, it stops and goes on, it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from first_losses import first_losses
from small_run import SHORT, TINY, Inputs, content, make_inputs, train_small
from stops import Listens, StopsAfter

from gptwo.artifacts import read_json, read_manifest
from gptwo.errors import DataError, GptwoError, Interrupted, ModelError, UsageError
from gptwo.tokens.shards import open_shards
from gptwo.training import loop
from gptwo.training.data.batches import batches
from gptwo.world import World


def lines(out: Path, key: str) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def test_it_learns_one_batch_by_heart(tmp_path: Path) -> None:
    """32 tokens of text are two windows: every step sees both."""
    inputs = make_inputs(tmp_path, seed=2, documents=10, words=60)
    small = Inputs(tmp_path / "one", inputs.tokenizer)
    model = replace(TINY, n_embd=32)
    config = replace(SHORT, steps=150, batch_tokens=32, validation_interval=0, lr=2e-2)
    fixed = batches(open_shards(inputs.tokens, "train"), n_ctx=16, batch_tokens=32, seed=0)
    first = fixed.at(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fixed), "at", lambda self, step, world: first)
        train_small(tmp_path / "run", small._replace(tokens=inputs.tokens), config, model)
    losses = lines(tmp_path / "run", "loss")
    assert losses[0] == pytest.approx(math.log(300), abs=0.3)
    assert losses[-1] < 0.05


def test_two_runs_leave_the_same_bytes(tmp_path: Path, inputs: Inputs) -> None:
    for name in ("one", "two"):
        final = train_small(tmp_path / name, inputs)
        assert final == tmp_path / name / "checkpoints" / "step-00000010"
    assert content(tmp_path / "one") == content(tmp_path / "two")
    folders = sorted(path.name for path in final.parent.iterdir())
    assert folders == ["step-00000009", "step-00000010"]


def test_what_a_run_leaves_behind(tmp_path: Path, inputs: Inputs) -> None:
    final = train_small(tmp_path, inputs)
    assert lines(tmp_path, "step") == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 10]
    assert len(lines(tmp_path, "valid_loss")) == 4
    manifest = read_manifest(final)
    assert manifest.kind == "checkpoint"
    assert manifest.counts["step"] == 10 and manifest.counts["tokens"] == 640
    assert manifest.counts["parameters"] == replace(TINY, vocab_size=300).parameters()
    assert {"model.safetensors", "config.json", "optimizer.safetensors", "state.json"} < set(
        manifest.files
    )
    assert {path.name for path in inputs.tokenizer.glob("vocab.bpe")} < set(manifest.files)
    state = read_json(final / "state.json")
    assert state["finished"] and state["best_valid_loss"] == min(lines(tmp_path, "valid_loss"))
    plan = read_json(tmp_path / "training.json")
    assert plan["training"]["seed"] == 7 and plan["model"]["vocab_size"] == 300
    timings = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert set(timings[0]) == {"step", "seconds", "tokens_per_second", "mfu", "memory_mb"}


def test_a_finished_run_returns_at_once(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = train_small(tmp_path, inputs)
    before = content(tmp_path)
    monkeypatch.setattr(loop, "open_mix", None)  # it must not even look at the tokens
    assert train_small(tmp_path, inputs) == final
    assert content(tmp_path) == before


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    tmp_path: Path, inputs: Inputs, dropout: float
) -> None:
    model = replace(TINY, dropout=dropout)
    train_small(tmp_path / "whole", inputs, SHORT, model)
    for looks in (1, 2, 3, 1, 4, 6, 2, 99):  # in the middle of steps and between them
        try:
            train_small(tmp_path / "parts", inputs, SHORT, model, reporter=StopsAfter(looks))
        except Interrupted as stop:
            assert stop.exit_code == 75 and looks < 99
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_stop_in_the_middle_of_a_step_leaves_no_trace_of_it(
    tmp_path: Path, inputs: Inputs
) -> None:
    """Two looks before the first step, two in each: the sixth is in the middle of the second."""
    config = replace(SHORT, validation_interval=0)
    with pytest.raises(Interrupted):
        train_small(tmp_path, inputs, config, reporter=StopsAfter(5))
    assert lines(tmp_path, "step") == [1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_micro_batches_add_up_to_the_batch(tmp_path: Path, inputs: Inputs) -> None:
    losses = []
    for rows in (1, 3, 4, 99):
        train_small(tmp_path / str(rows), inputs, replace(SHORT, micro_batch=rows))
        losses.append(lines(tmp_path / str(rows), "loss"))
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-4)


def test_the_first_ten_losses_are_the_stored_ones(tmp_path: Path, inputs: Inputs) -> None:
    """The tolerance is for other processors, which sum in another order."""
    stored = read_json(Path(__file__).parents[1] / "goldens" / "training" / "first_losses.json")
    found = first_losses(tmp_path, inputs)
    assert found["loss"] == pytest.approx(stored["loss"], abs=1e-3)
    assert found["valid_loss"] == pytest.approx(stored["valid_loss"], abs=1e-3)


@pytest.mark.parametrize(
    "change, field",
    [
        ({"seed": 8}, "training.seed: 7 -> 8"),
        ({"batch_tokens": 128}, "training.batch_tokens: 64 -> 128"),
        ({"lr": 0.5}, "training.lr: 0.001 -> 0.5"),
        ({"steps": 12}, "training.steps: 10 -> 12"),
    ],
)
def test_changed_settings_are_refused(
    tmp_path: Path, inputs: Inputs, change: dict[str, float], field: str
) -> None:
    train_small(tmp_path, inputs)
    before = content(tmp_path)
    with pytest.raises(UsageError, match=field) as error:
        train_small(tmp_path, inputs, replace(SHORT, **change))  # type: ignore[arg-type]
    assert f"--accept-change {field.split(':')[0]}" in error.value.remedy
    assert content(tmp_path) == before


def test_changed_data_are_refused(tmp_path: Path, inputs: Inputs) -> None:
    other = make_inputs(tmp_path / "other", seed=3, tokenizer=inputs.tokenizer)
    train_small(tmp_path / "run", inputs)
    with pytest.raises(UsageError, match=r"inputs\.tokens: "):
        train_small(tmp_path / "run", other)


def test_a_changed_shape_is_refused_even_when_accepted(tmp_path: Path, inputs: Inputs) -> None:
    train_small(tmp_path, inputs)
    wider = replace(TINY, n_embd=32)
    with pytest.raises(ModelError, match=r"model\.n_embd: 16 -> 32"):
        train_small(tmp_path, inputs, SHORT, wider)
    with pytest.raises(ModelError, match=r"model\.n_embd: 16 -> 32") as error:
        train_small(
            tmp_path,
            inputs,
            replace(SHORT, steps=12),
            wider,
            accept_changes=("model.n_embd", "training.steps"),
        )
    assert "model.n_embd cannot change in a run" in error.value.remedy


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path, inputs: Inputs) -> None:
    other = make_inputs(tmp_path / "other", seed=3)
    with pytest.raises(ModelError, match="made with another tokenizer"):
        train_small(tmp_path / "run", Inputs(inputs.tokens, other.tokenizer))


def test_accepted_changes_extend_a_run(tmp_path: Path, inputs: Inputs) -> None:
    train_small(tmp_path, inputs)
    reporter = Listens()
    final = train_small(
        tmp_path,
        inputs,
        replace(SHORT, steps=12),
        accept_changes=("training.steps",),
        reporter=reporter,
    )
    assert final.name == "step-00000012"
    assert any("training.steps: 10 -> 12" in line for line in reporter.heard)
    assert lines(tmp_path, "loss")[:10] and len(lines(tmp_path, "loss")) == 12


def test_settings_may_change_until_there_is_a_checkpoint(tmp_path: Path, inputs: Inputs) -> None:
    with pytest.raises(Interrupted):
        train_small(tmp_path, inputs, reporter=StopsAfter(0))
    final = train_small(tmp_path, inputs, replace(SHORT, seed=9))
    assert read_manifest(final).config["training"]["seed"] == 9


def test_going_on_with_other_threads_is_pointed_out(tmp_path: Path, inputs: Inputs) -> None:
    with pytest.raises(Interrupted):
        train_small(tmp_path, inputs, reporter=StopsAfter(9))
    reporter = Listens()
    train_small(tmp_path, inputs, world=World(threads=2), reporter=reporter)
    assert any("threads: 1 -> 2" in line and "last bits" in line for line in reporter.heard)


def test_a_corpus_shorter_than_a_context_is_refused(tmp_path: Path, inputs: Inputs) -> None:
    with pytest.raises(DataError, match="one context takes 1,000,001"):
        train_small(
            tmp_path,
            inputs,
            replace(SHORT, batch_tokens=1_000_000),
            replace(TINY, n_ctx=1_000_000),
        )
    assert not (tmp_path / "training.json").exists()


def test_missing_inputs_are_named(tmp_path: Path, inputs: Inputs) -> None:
    for wrong in (
        Inputs(tmp_path / "nowhere", inputs.tokenizer),
        Inputs(inputs.tokens, tmp_path / "nowhere"),
    ):
        with pytest.raises(GptwoError, match="nowhere"):
            train_small(tmp_path / "run", wrong)


def test_training_leaves_the_global_random_state_alone(tmp_path: Path, inputs: Inputs) -> None:
    before = torch.get_rng_state()
    train_small(tmp_path, inputs)
    assert torch.equal(before, torch.get_rng_state())
