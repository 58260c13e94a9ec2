"""The quick way computes what the model does: values, all gradients, steps; the same bits twice."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from first_losses import losses_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import SHORT, TINY, Inputs, content, train_small
from torch import Tensor

from gptwo.model.gpt2 import GPT2, Block
from gptwo.model.sizes import GPT2Config
from gptwo.training import fast, forward, kernels
from gptwo.training.config import TrainingConfig

pytestmark = pytest.mark.skipif(kernels.kernel() is None, reason="the kernels are not built")
FP32 = TrainingConfig()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(seed: int = 0, **shape: object) -> GPT2:
    """A model whose biases and gains are no zeros and ones."""
    torch.manual_seed(seed)
    config = {"vocab_size": 301, "n_ctx": 40, "n_layer": 2, "n_head": 2, "n_embd": 40} | shape
    model = GPT2(GPT2Config(**config))  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return model


def batch(model: GPT2, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Ids and targets as a training batch has them: columns of one array, not contiguous."""
    ids = torch.randint(model.config.vocab_size, (rows, width + 1))
    return ids[:, :-1], ids[:, 1:]


def gradients(model: GPT2, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative distance of two sets of gradients."""
    assert found.keys() == expected.keys()
    return max(float((found[n] - g).norm() / g.norm()) for n, g in expected.items())


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 4),
    width=st.integers(1, 40),
    channels=st.sampled_from([6, 32, 40, 66]),
    vocabulary=st.integers(2, 130),
    tied=st.booleans(),
    chunk=st.integers(1, 5000),
    threads=st.integers(1, 3),
)
def test_losses_and_gradients_are_those_of_the_model(
    rows: int, width: int, channels: int, vocabulary: int, tied: bool, chunk: int, threads: int
) -> None:
    """To 1e-5 of the norm of the gradients together, in any shape."""
    model = made(vocab_size=vocabulary, n_embd=channels, tied_head=tied)
    x, y = batch(model, rows, width)
    assert fast.serves(model)
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "CHUNK_LOGITS", chunk)
        found, expected = fast.loss(model, x, y), model.loss(x, y)
        assert found.item() == pytest.approx(expected.item(), rel=2e-6, abs=2e-6)
        mine, true = gradients(model, found * 3), gradients(model, expected * 3)
    flat = [torch.cat([part[name].view(-1) for name in true]) for part in (mine, true)]
    assert float((flat[0] - flat[1]).norm()) <= 1e-5 * float(flat[1].norm()) + 1e-7


def test_gradients_against_float64() -> None:
    """No further from the truth than twice what the module is."""
    model, exact = made(n_embd=64), made(n_embd=64).double()
    x, y = batch(model, 3, 40)
    true = {n: g.float() for n, g in gradients(exact, exact.loss(x, y)).items()}
    mine = furthest(gradients(model, fast.loss(model, x, y)), true)
    modules = furthest(gradients(model, model.loss(x, y)), true)
    assert mine < 1e-5 and mine < 2 * modules


def test_gradients_add_up_over_micro_batches() -> None:
    model = made()
    parts = [batch(model, 2, 24) for _ in range(3)]
    sums = []
    for way in (fast.loss, GPT2.loss):
        model.zero_grad()
        for x, y in parts:
            (way(model, x, y) / 3).backward()
        sums.append({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})
    assert furthest(*sums) < 1e-5


def test_twenty_steps_follow_the_model() -> None:
    ends = []
    for way in (fast.loss, GPT2.loss):
        model = made(seed=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        torch.manual_seed(1)
        losses = []
        for _ in range(20):
            loss = way(model, *batch(model, 4, 32))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        ends.append(losses)
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)
    assert ends[0][-1] < ends[0][0]


def test_the_same_bits_twice_and_without_gradients() -> None:
    model = made()
    x, y = batch(model, 4, 40)
    first, second = (gradients(model, fast.loss(model, x, y)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with torch.inference_mode():
        quiet = fast.loss(model, x, y)
    assert quiet.item() == fast.loss(model, x, y).item() and not quiet.requires_grad


def test_what_is_not_a_number_shows() -> None:
    for name in ("wte.weight", "h.0.mlp.c_fc.weight", "ln_f.weight"):
        for value in (math.nan, math.inf):
            model = made()
            with torch.no_grad():
                dict(model.named_parameters())[name].view(-1)[5] = value
            ids = torch.zeros(2, 9, dtype=torch.int64)
            assert not torch.isfinite(fast.loss(model, ids, ids)), (name, value)


def test_extreme_logits() -> None:
    logits = torch.tensor([[0.0, 200.0, -200.0], [3e38, -3e38, 0.0], [1e4, 1e4, -math.inf]])
    targets = torch.tensor([1, 0, 0])
    losses = kernels.cross_entropy(logits, targets, scale=1.0, slopes=True)
    assert torch.allclose(losses, torch.tensor([0.0, 0.0, math.log(2)]))
    assert torch.allclose(logits[2], torch.tensor([-0.5, 0.5, 0.0]))
    wide = torch.linspace(-8, 8, 4001)[None]
    expected = torch.softmax(wide.double(), 1)
    kernels.cross_entropy(wide, torch.tensor([0]), scale=1.0, slopes=True)
    wide[0, 0] += 1
    assert float((wide.double() / expected - 1)[0, 1:].abs().max()) < 3e-6


def test_bad_input_is_refused() -> None:
    model = made()
    good = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(IndexError):
        fast.loss(model, good, good + 301)
    with pytest.raises(IndexError):
        fast.loss(model, good, good - 1)
    with pytest.raises(IndexError):
        fast.loss(model, good + 301, good)
    long = torch.zeros(1, 41, dtype=torch.int64)
    with pytest.raises(ValueError, match="41 positions"):
        fast.loss(model, long, long)
    with pytest.raises(TypeError, match="float64"):
        kernels.gelu(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3))
    with pytest.raises(TypeError, match="strides"):
        kernels.gelu(torch.zeros(3, 2).t(), torch.zeros(3))


@pytest.mark.parametrize("shape", [{"dropout": 0.1}, {"activation": "gelu"}])
def test_other_models_go_through_the_module(shape: dict[str, object]) -> None:
    model = made(**shape)
    assert not fast.serves(model) and not fast.serves(made().double())
    x, y = batch(model, 2, 8)
    torch.manual_seed(4)
    found = forward.loss(model, x, y, FP32)
    torch.manual_seed(4)
    assert found.item() == model.loss(x, y).item()


def test_bfloat16_is_near_and_leaves_float32_gradients() -> None:
    model = made(n_embd=64)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.3
    x, y = batch(model, 4, 40)
    found = forward.loss(model, x, y, TrainingConfig(precision="bf16"))
    exact = fast.loss(model, x, y)
    assert found.dtype == torch.float32
    assert found.item() != exact.item()
    assert found.item() == pytest.approx(exact.item(), rel=0.01)
    mine, true = gradients(model, found), gradients(model, exact)
    assert all(grad.dtype == torch.float32 for grad in mine.values())
    assert furthest(mine, true) < 0.1


def test_without_kernels_a_run_gives_the_same_losses(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_small(tmp_path / "fast", inputs)
    monkeypatch.setattr(kernels, "kernel", lambda: None)
    train_small(tmp_path / "plain", inputs)
    found, expected = losses_of(tmp_path / "fast"), losses_of(tmp_path / "plain")
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["loss"] != expected["loss"]  # it was another way


def test_a_run_in_bfloat16_repeats_itself(tmp_path: Path, inputs: Inputs) -> None:
    config = TrainingConfig(**(vars(SHORT) | {"precision": "bf16", "steps": 4}))
    for name in ("one", "two"):
        train_small(tmp_path / name, inputs, config)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert losses_of(tmp_path / "one")["loss"][0] == pytest.approx(math.log(300), abs=0.3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what torch tells itself on the way
def test_compiled_blocks_give_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as for a compiler; what a compiler would make of it is torch's."""
    whole = torch.nn.Module.compile
    monkeypatch.setattr(Block, "compile", lambda block: whole(block, backend="aot_eager"))
    torch.manual_seed(0)
    model = GPT2(TINY)
    x, y = batch(model, 2, 16)
    found = forward.loss(model, x, y, TrainingConfig(compile="on"))
    assert all(block._compiled_call_impl is not None for block in model.h)
    other = GPT2(TINY)
    other.load_state_dict(model.state_dict())
    expected = other.loss(x, y)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert furthest(gradients(model, found), gradients(other, expected)) < 1e-4
