"""The graphs: valid, run by onnxruntime with our logits, with and without a cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from random_weights import random_weights

from gptwo.formats.onnx import DATA, PLAIN, WITH_PAST, write
from gptwo.formats.weights import Weights, model_of

VARIANTS = {
    "released": {},
    "one head, wide": {"n_head": 1, "n_embd": 48, "n_layer": 1},
    "exact GELU": {"activation": "gelu"},
    "own head": {"tied_head": False},
}


@pytest.fixture(scope="module", params=VARIANTS)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Weights, Path]:
    weights = random_weights(**VARIANTS[request.param])
    folder = tmp_path_factory.mktemp("onnx")
    assert write(weights, folder, "f32") == []
    return weights, folder


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # a refusal is an exception, not a line on stderr
    return onnxruntime.InferenceSession(path, options)


def ours(weights: Weights, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model_of(weights)(torch.from_numpy(ids)).numpy()


def random_ids(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(258, size=(batch, length))


class Cached:
    """Runs the graph with a cache, feeding back what it returns."""

    def __init__(self, weights: Weights, folder: Path, batch: int) -> None:
        config = weights.config
        shape = batch, config.n_head, 0, config.n_embd // config.n_head
        self.session = session(folder / WITH_PAST)
        self.names = [value.name for value in self.session.get_outputs()]
        self.cache = {
            name.replace("present", "past_key_values"): np.zeros(shape, np.float32)
            for name in self.names[1:]
        }

    def __call__(self, ids: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
        logits, *present = self.session.run(self.names, inputs | self.cache)
        self.cache = dict(zip(self.cache, present, strict=True))
        return logits


def test_both_graphs_are_valid_and_named_as_optimum_names_them(
    written: tuple[Weights, Path],
) -> None:
    weights, folder = written
    layers = range(weights.config.n_layer)
    cache = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
    past = [f"past_key_values.{name}" for name in cache]
    names = {
        PLAIN: (["input_ids"], ["logits"]),
        WITH_PAST: (
            ["input_ids", "attention_mask", "position_ids", *past],
            ["logits", *(f"present.{name}" for name in cache)],
        ),
    }
    for name, (inputs, outputs) in names.items():
        onnx.checker.check_model(folder / name, full_check=True)
        graph = onnx.load(folder / name, load_external_data=False).graph
        assert [value.name for value in graph.input] == inputs
        assert [value.name for value in graph.output] == outputs


def test_logits_for_any_batch_and_length(written: tuple[Weights, Path]) -> None:
    weights, folder = written
    plain = session(folder / PLAIN)
    for batch, length in ((1, 1), (1, 24), (2, 7), (5, 3)):
        ids = random_ids(batch, length)
        expected = ours(weights, ids)
        assert expected.std() > 0.5  # not equal by being nothing
        found = plain.run(["logits"], {"input_ids": ids})[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_cached_logits_are_those_of_the_whole(written: tuple[Weights, Path]) -> None:
    weights, folder = written
    ids = random_ids(3, 24)
    expected, run, start = ours(weights, ids), Cached(weights, folder, 3), 0
    for length in (5, 1, 1, 17):
        end = start + length
        positions = np.arange(start, end)[None].repeat(3, 0)
        found = run(ids[:, start:end], positions, np.ones((3, end), np.int64))
        np.testing.assert_allclose(found, expected[:, start:end], rtol=0, atol=1e-5)
        start = end


def test_rows_padded_on_the_left_are_those_without_padding(written: tuple[Weights, Path]) -> None:
    weights, folder = written
    short, long = random_ids(1, 6), random_ids(1, 10)
    ids = np.concatenate([np.pad(short, ((0, 0), (4, 0))), long])
    mask = np.ones_like(ids)
    mask[0, :4] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    run = Cached(weights, folder, 2)
    first = run(ids[:, :8], positions[:, :8], mask[:, :8])
    found = np.concatenate([first, run(ids[:, 8:], positions[:, 8:], mask)], axis=1)
    assert np.isfinite(found).all()  # rows of padding see nothing and are no NaN
    np.testing.assert_allclose(found[:1, 4:], ours(weights, short), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1:], ours(weights, long), rtol=0, atol=1e-5)


def test_weights_lie_once_beside_graphs_whose_size_does_not_depend_on_them(tmp_path: Path) -> None:
    """So no graph meets the 2 GB that a message of its kind may have."""
    small, large = random_weights(), random_weights(vocab_size=20_000, n_embd=128)
    sizes = []
    for weights in (small, large):
        folder = tmp_path / str(weights.config.vocab_size)
        write(weights, folder, "f32")
        tensors = sum(x.nbytes for x in weights.tensors.values())
        assert tensors <= (folder / DATA).stat().st_size <= tensors + 4096 * len(weights.tensors)
        for name in (PLAIN, WITH_PAST):
            stored = onnx.load(folder / name, load_external_data=False).graph.initializer
            outside = {x.name for x in stored if x.data_location == onnx.TensorProto.EXTERNAL}
            assert outside == set(weights.tensors)
        sizes.append([(folder / name).stat().st_size for name in (PLAIN, WITH_PAST)])
    assert np.abs(np.subtract(*sizes)).max() < 300  # digits of shapes and offsets


def test_a_position_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    write(random_weights(), tmp_path, "f32")
    plain = session(tmp_path / PLAIN)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="bounds"):
        plain.run(None, {"input_ids": random_ids(1, 25)})


@pytest.mark.parametrize("name", ["h.1.attn.c_proj.weight", "wpe.weight", "ln_f.bias"])
def test_a_changed_tensor_changes_the_logits(name: str, tmp_path: Path) -> None:
    """What the comparisons above rest on: a square map transposed by mistake does not pass them."""
    weights = random_weights()
    value = weights.tensors[name]
    other = value.t().contiguous() if "c_proj" in name else value.flip(0)
    write(replace(weights, tensors=weights.tensors | {name: other}), tmp_path, "f32")
    ids = random_ids(2, 9)
    found = session(tmp_path / PLAIN).run(None, {"input_ids": ids})[0]
    assert np.abs(found - ours(weights, ids)).max() > 0.1


def test_another_implementation_of_onnx_gives_the_same(written: tuple[Weights, Path]) -> None:
    """The specification's own, in numpy: nothing here rests on onnxruntime's reading alone."""
    weights, folder = written
    ids = random_ids(2, 9)
    found = ReferenceEvaluator(str(folder / PLAIN)).run(None, {"input_ids": ids})[0]
    np.testing.assert_allclose(found, ours(weights, ids), rtol=0, atol=1e-5)
