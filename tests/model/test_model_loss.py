"""The chunked loss is the plain one: values, gradients, memory, other number types."""

import pytest
import torch
from made_model import made, random_ids
from torch import Tensor

from gptwo.model import loss as module
from gptwo.model.loss import linear_cross_entropy, plain_linear_cross_entropy


def case(n: int, v: int = 50, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(n + v)
    hidden = torch.randn(n, 16, generator=source).to(dtype).requires_grad_()
    weight = torch.randn(v, 16, generator=source).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(v, (n,), generator=source)


# A chunk is 64 positions at least: one less, exactly, one more, several, several and a rest.
@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 300])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_values_and_gradients_are_the_plain_ones(
    n: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 50 * 64)
    hidden, weight, targets = case(n)
    found = linear_cross_entropy(hidden, weight, targets)
    (found * scale).backward()
    gradients = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    plain = plain_linear_cross_entropy(hidden, weight, targets)
    (plain * scale).backward()
    assert torch.allclose(found, plain, atol=1e-6)
    for mine, theirs in zip(gradients, (hidden.grad, weight.grad), strict=True):
        assert mine is not None and theirs is not None
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_gradients_are_right_by_finite_differences() -> None:
    hidden, weight, targets = case(5, 7, torch.float64)
    source = torch.Generator().manual_seed(0)
    linear_cross_entropy(hidden, weight, targets).backward()
    for leaf in (hidden, weight):
        step = torch.randn(leaf.shape, generator=source, dtype=torch.float64) * 1e-3
        with torch.no_grad():
            moved = [
                plain_linear_cross_entropy(
                    *(x + sign * step if x is leaf else x for x in (hidden, weight)), targets
                )
                for sign in (1, -1)
            ]
        expected = float((moved[0] - moved[1]) / 2)
        assert leaf.grad is not None
        assert float((leaf.grad * step).sum()) == pytest.approx(expected, abs=1e-6)


def test_without_gradients_none_are_computed() -> None:
    hidden, weight, targets = case(70)
    plain = plain_linear_cross_entropy(hidden, weight, targets)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "scatter_add_", None)  # only a slope needs it
        found = linear_cross_entropy(hidden, weight, targets)
    assert not found.requires_grad and torch.allclose(found, plain, atol=1e-6)
    only = linear_cross_entropy(hidden.detach(), weight, targets)
    only.backward()
    assert weight.grad is not None and hidden.grad is None


def test_second_derivatives_are_refused_not_wrong() -> None:
    hidden, weight, targets = case(4)
    squared = linear_cross_entropy(hidden, weight, targets) ** 2
    first = torch.autograd.grad(squared, hidden, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_large_scores_do_not_overflow() -> None:
    hidden, weight, targets = case(9)
    found = linear_cross_entropy(hidden * 1e4, weight, targets)
    assert torch.isfinite(found)
    assert torch.allclose(found, plain_linear_cross_entropy(hidden * 1e4, weight, targets))


def test_bfloat16_stays_close() -> None:
    hidden, weight, targets = case(200, dtype=torch.bfloat16)
    found = linear_cross_entropy(hidden, weight, targets)
    found.backward()
    exact_hidden, exact_weight = (x.detach().float().requires_grad_() for x in (hidden, weight))
    exact = plain_linear_cross_entropy(exact_hidden, exact_weight, targets)
    exact.backward()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.01)
    for mine, theirs in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert mine is not None and theirs is not None and mine.dtype == torch.bfloat16
        assert torch.allclose(mine.float(), theirs, atol=0.02 * float(theirs.abs().max()))


def test_logits_are_never_held_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 640 rows no matrix product sees more than a chunk."""
    monkeypatch.setattr(module, "CHUNK_LOGITS", 1)
    rows: list[int] = []
    exponent = torch.logsumexp

    def watched(logits: Tensor, dim: int) -> Tensor:
        rows.append(logits.size(0))
        return exponent(logits, dim=dim)

    monkeypatch.setattr(torch, "logsumexp", watched)
    hidden, weight, targets = case(640)
    linear_cross_entropy(hidden, weight, targets)
    assert rows == [64] * 10


def test_the_models_loss_is_the_mean_over_all_positions() -> None:
    model = made()
    ids = random_ids(model.config, batch=3)
    x, y = ids[:, :-1], ids[:, 1:]
    with torch.no_grad():
        logprobs = torch.log_softmax(model(x), dim=-1).gather(-1, y[..., None])
        assert float(model.loss(x, y)) == pytest.approx(-float(logprobs.mean()), abs=1e-6)
