"""Where a query looks and where an id stands: the future, the cache, padding, the last position."""

import pytest
import torch
from made_model import TINY, embeddings, largest_difference, made, random_ids
from torch import Tensor

from gptwo.model.gpt2 import GPT2, KeyValueCache, left_padded

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [8, 9, 7, 9, 3], []]  # of different lengths


def padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """ids (B, T) with id 60 before the shorter prompts, and how often it stands there (B)."""
    length = max(map(len, prompts))
    rows = [[60] * (length - len(prompt)) + prompt for prompt in prompts]
    return torch.tensor(rows), torch.tensor([length - len(prompt) for prompt in prompts])


# No attention to the future: gradients, so that nothing hides behind a small weight.


def reached(scores: Tensor, embedded: Tensor) -> list[bool]:
    """Which columns of `embedded` (1, T, C) move `scores` at all."""
    embedded.grad = None
    scores.square().sum().backward(retain_graph=True)
    assert embedded.grad is not None
    return (embedded.grad[0] != 0).any(-1).tolist()


@pytest.mark.parametrize("position", [0, 1, 6, 11])
def test_no_position_sees_the_future(position: int) -> None:
    """The gradient of one position's scores reaches the embeddings up to it and no further."""
    model = made()
    kept = embeddings(model)
    logits = model(random_ids(TINY, batch=1, length=12))
    assert reached(logits[0, position], kept[0]) == [i <= position for i in range(12)]


@pytest.mark.parametrize("position", [0, 2, 4])
def test_no_position_sees_the_future_after_a_cache(position: int) -> None:
    """Five ids in one call after seven cached ones; and the cache itself is what they stand on."""
    model = made()
    kept = embeddings(model)
    ids, cache = random_ids(TINY, batch=1, length=12), KeyValueCache(TINY, 1, 12)
    with torch.no_grad():
        model(ids[:, :7], cache=cache)
    before = [keys.clone() for keys in cache.keys]
    logits = model(ids[:, 7:], cache=cache)
    assert reached(logits[0, position], kept[1]) == [i <= position for i in range(5)]
    for was, now in zip(before, cache.keys, strict=True):
        assert torch.equal(was[:, :, :7], now[:, :, :7])


@pytest.mark.parametrize("position", [3, 5, 9])
def test_no_position_sees_the_future_or_the_padding_before_it(position: int) -> None:
    model = made()
    kept = embeddings(model)
    positions, mask = left_padded(torch.tensor([3]), 10)
    logits = model(random_ids(TINY, batch=1, length=10), positions=positions, mask=mask)
    assert reached(logits[0, position], kept[0]) == [3 <= i <= position for i in range(10)]


# Cached decoding.


@pytest.mark.parametrize("calls", [[1] * 24, [24], [10, 1, 1, 12], [1, 5, 18], [23, 1]])
def test_cached_equals_uncached(calls: list[int]) -> None:
    model, ids = made(), random_ids(TINY)
    cache, found, start = KeyValueCache(TINY, 2, 24), [], 0
    with torch.no_grad():
        for length in calls:
            found.append(model(ids[:, start : start + length], cache=cache))
            start += length
            assert cache.length == start
        assert torch.allclose(torch.cat(found, 1), model(ids), atol=1e-5)


def test_positions_continue_the_cache() -> None:
    """The same token after the same text, at another position, is another thing."""
    model = made()
    token = torch.tensor([[7]])
    with torch.no_grad():
        cache = KeyValueCache(TINY, 1, 4)
        first = model(token, cache=cache)
        second = model(token, cache=cache)
        assert not torch.allclose(first, second, atol=1e-3)
        told = model(token, positions=torch.tensor([[0]]))
        assert torch.allclose(first, told, atol=1e-6)


def test_a_position_past_the_last_is_refused() -> None:
    model = made()
    with torch.no_grad():
        model(random_ids(TINY, length=24))
        with pytest.raises(ValueError, match=r"25 positions, but the model has 24 \(n_ctx\)"):
            model(random_ids(TINY, length=25))
        cache = KeyValueCache(TINY, 1, 30)
        model(random_ids(TINY, batch=1, length=24), cache=cache)
        with pytest.raises(ValueError, match=r"25 positions, but the model has 24"):
            model(torch.tensor([[1]]), cache=cache)
        for positions in ([[24]], [[99]]):  # as told, not as counted
            with pytest.raises(ValueError, match=r"positions, but the model has 24 \(n_ctx\)"):
                model(torch.tensor([[1]]), positions=torch.tensor(positions))


@pytest.mark.parametrize("positions", [None, torch.tensor([[3]])])
def test_a_cache_that_is_full_is_refused(positions: torch.Tensor | None) -> None:
    model, cache = made(), KeyValueCache(TINY, 1, 3)
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]), cache=cache)
        with pytest.raises(ValueError, match="4 positions, but the cache holds 3"):
            model(torch.tensor([[1]]), cache=cache, positions=positions)


# Left padding: prompts of different lengths in one batch, ending together.


def alone(model: GPT2, prompt: list[int]) -> Tensor:
    return model(torch.tensor([prompt]))[0]


def test_each_text_of_a_left_padded_batch_is_scored_as_if_it_stood_alone() -> None:
    """Positions shifted, padding masked; rows of padding give numbers, whatever they say."""
    model, (ids, padding) = made(), padded(PROMPTS)
    positions, mask = left_padded(padding, ids.size(1))
    assert mask.any(-1).all()  # some devices give no number where there is nothing to see
    with torch.no_grad():
        logits = model(ids, positions=positions, mask=mask)
        assert torch.isfinite(logits).all()
        for row, prompt in zip(logits, PROMPTS, strict=True):
            if prompt:
                assert largest_difference(row[-len(prompt) :], alone(model, prompt)) <= 1e-5
        unshifted = model(ids, mask=mask)
    assert largest_difference(unshifted[1, -1], logits[1, -1]) > 1e-3  # the test can fail
    assert torch.equal(unshifted[0], logits[0])  # the longest has no padding


@pytest.mark.parametrize("steps", [[1] * 6, [2, 1, 3], [6]])
def test_a_left_padded_batch_goes_on_from_its_cache(steps: list[int]) -> None:
    model, (ids, padding) = made(), padded(PROMPTS[:3])
    more = random_ids(TINY, batch=3, length=6)
    cache, found = KeyValueCache(TINY, 3, ids.size(1) + 6), []
    with torch.no_grad():
        for part in (ids, *more.split(steps, dim=1)):
            positions, mask = left_padded(padding, part.size(1), cache.length)
            found.append(model(part, cache=cache, positions=positions, mask=mask))
        logits = torch.cat(found, 1)
        for row, prompt, tail in zip(logits, PROMPTS, more.tolist(), strict=False):
            whole = alone(model, prompt + tail)
            assert largest_difference(row[-len(whole) :], whole) <= 1e-5


def test_a_left_padded_text_may_fill_the_model_and_no_more() -> None:
    """Padding takes columns of the cache, not positions of the model."""
    model, ids = made(), random_ids(TINY, batch=2, length=30)
    padding = torch.tensor([6, 10])  # 24 ids, all there are positions for, and 20
    positions, mask = left_padded(padding, 30)
    with torch.no_grad():
        logits = model(ids, positions=positions, mask=mask)
        assert largest_difference(logits[0, 6:], alone(model, ids[0, 6:].tolist())) <= 1e-5
        positions, mask = left_padded(padding - 1, 30)
        with pytest.raises(ValueError, match=r"25 positions, but the model has 24 \(n_ctx\)"):
            model(ids, positions=positions, mask=mask)


def test_a_tree_of_continuations_is_scored_as_if_each_stood_alone() -> None:
    """The context once, two branches after it, by positions and a mask."""
    model = made()
    context, one, two = [3, 1, 4, 1], [5, 9, 2], [6, 5]
    branch = torch.tensor([0] * 4 + [1] * 3 + [2] * 2)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4, 5]])
    same = (branch[:, None] == branch[None, :]) | (branch[None, :] == 0)
    mask = (same & torch.ones(9, 9).tril().bool())[None, None]
    with torch.no_grad():
        tree = model(torch.tensor([context + one + two]), positions=positions, mask=mask)[0]
        alone = [model(torch.tensor([context + tail]))[0] for tail in (one, two)]
    assert torch.allclose(tree[:7], alone[0], atol=1e-5)
    assert torch.allclose(tree[7:], alone[1][4:], atol=1e-5)
