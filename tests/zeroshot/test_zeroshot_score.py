"""The engine against its plain twin, against itself in other batches, and by hand."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptwo.errors import ModelError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.zeroshot.forward import Forward, forward_of
from gptwo.zeroshot.score import (
    Request,
    Score,
    Scorer,
    rolling_windows,
    score_plainly,
    tree_mask,
)

VOCAB, N_CTX = 97, 64


@pytest.fixture
def model(tiny_model: Callable[..., GPT2]) -> GPT2:
    return tiny_model(vocab_size=VOCAB)


def requests(n: int = 12, seed: int = 1) -> list[Request]:
    """Contexts of 1 to 60 tokens, alone or shared by up to ten continuations of 1 to 20."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(VOCAB) for _ in range(draw.randint(low, high))]

    found = []
    for _ in range(n):
        context = ids(1, 40)
        found += [
            Request(context=context, continuation=ids(1, 20)) for _ in range(draw.choice([1, 10]))
        ]
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("reordered", [False, True])
def test_scores_equal_the_plain_twin(model: GPT2, reordered: bool) -> None:
    asked = requests()
    fast = Scorer(model, reordered=reordered).score(asked)
    plain = score_plainly(model, asked)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-5)
        assert (a.token_greedy, a.greedy, a.allowed) == (b.token_greedy, b.greedy, b.allowed)
    assert any(any(a.token_greedy) for a in fast)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_the_stream_equals_the_modules(activation: str) -> None:
    torch.manual_seed(5)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_ctx=N_CTX, vocab_size=VOCAB, activation=activation
    )
    model = GPT2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gains too
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ids = torch.randint(VOCAB, (3, 40))
    positions = torch.randint(N_CTX, (3, 40))
    mask = torch.rand(3, 1, 40, 40).round().bool() | torch.eye(40, dtype=torch.bool)
    with torch.inference_mode():
        fast = Forward(model)
        for extra in ({}, {"positions": positions, "mask": mask}):
            torch.testing.assert_close(
                fast.hidden(ids, **extra), model.hidden(ids, **extra), atol=1e-5, rtol=1e-5
            )


def test_the_module_serves_where_the_products_do_not(
    model: GPT2, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(forward_of(model), Forward)
    assert forward_of(model.double()) is model
    model.float()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert Scorer(model, reordered=True).reader is model


def test_a_score_by_hand(model: GPT2) -> None:
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([[5, 6, 7]]))[0], dim=-1)
    (score,) = Scorer(model).score([Request(context=[5, 6], continuation=[7, 8])])
    assert score.token_logprobs == pytest.approx([p[1, 7].log().item(), p[2, 8].log().item()])
    assert score.logprob == pytest.approx((p[1, 7] * p[2, 8]).log().item())
    best = [int(p[1].argmax()), 0]
    (score,) = Scorer(model).score([Request(context=[5, 6], continuation=best)])
    assert score.token_greedy[0]


@pytest.mark.parametrize("reordered", [False, True])
def test_scores_do_not_depend_on_batch_order_or_shared_contexts(
    model: GPT2, reordered: bool
) -> None:
    """Within 1e-5 nats a token, and no decision changes."""
    asked = requests(30)
    alone = [Scorer(model).score([request])[0] for request in asked]
    for rows in (1, 7, 32):
        order = list(range(len(asked)))
        random.Random(rows).shuffle(order)
        scorer = Scorer(model, token_budget=rows * N_CTX, reordered=reordered)
        found = dict(zip(order, scorer.score([asked[i] for i in order]), strict=True))
        for i, score in enumerate(alone):
            np.testing.assert_allclose(found[i].token_logprobs, score.token_logprobs, atol=1e-5)
            assert found[i].token_greedy == score.token_greedy
        assert choices(asked, [found[i] for i in range(len(asked))]) == choices(asked, alone)


def choices(asked: list[Request], scores: list[Score]) -> dict[tuple[int, ...], int]:
    """The most likely continuation of each context."""
    best: dict[tuple[int, ...], int] = {}
    for i, request in enumerate(asked):
        key = tuple(request.context)
        if key not in best or scores[i].logprob > scores[best[key]].logprob:
            best[key] = i
    return best


def test_the_same_call_gives_the_same_bits(model: GPT2) -> None:
    asked = requests()
    assert Scorer(model).score(asked) == Scorer(model).score(asked)


def test_a_branch_sees_the_context_and_itself() -> None:
    mask = tree_mask(np.array([[0, 0, 1, 1, 2, -1]]))[0, 0].astype(int)
    assert mask.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_a_shared_context_is_read_once(model: GPT2) -> None:
    asked = [Request(context=[1] * 40, continuation=[i, 2]) for i in range(10)]
    seen = []
    whole = model.hidden
    model.hidden = lambda ids, **rest: seen.append(ids.shape) or whole(ids, **rest)
    Scorer(model).score(asked)
    assert seen == [(1, 50)]


def test_a_long_context_is_cut_from_the_left_alike_for_all_that_share_it(model: GPT2) -> None:
    context = [i % VOCAB for i in range(100)]
    long, short = [3] * 11, [4]
    a, b = Scorer(model).score([Request(context=context, continuation=c) for c in (long, short)])
    assert (a.cut, b.cut) == (46, 46)  # 54 tokens of context and ten fed make 64
    (plain,) = score_plainly(model, [Request(context=context[46:], continuation=short)])
    assert b.logprob == pytest.approx(plain.logprob, abs=1e-5)


def test_many_continuations_spread_over_rows(model: GPT2) -> None:
    asked = [Request(context=[1] * 50, continuation=[i % VOCAB] * 14) for i in range(30)]
    for a, b in zip(Scorer(model).score(asked), score_plainly(model, asked), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_padding_rows_of_the_embedding_are_hidden(model: GPT2) -> None:
    asked = [Request(context=[1, 2], continuation=[i]) for i in range(90)]
    total = sum(np.exp(s.logprob) for s in Scorer(model, vocab_size=90).score(asked))
    assert total == pytest.approx(1, abs=1e-5)


def test_barred_tokens_are_passed_over(model: GPT2) -> None:
    with torch.no_grad():
        first, second = model(torch.tensor([[1, 2]]))[0, -1].topk(2).indices.tolist()
    asked = [Request(context=[1, 2], continuation=[token]) for token in (first, second)]
    free, barred = Scorer(model).score(asked), Scorer(model, barred=[first]).score(asked)
    assert [s.allowed for s in free] == [True, False]
    assert [s.allowed for s in barred] == [False, True]
    assert [s.greedy for s in barred] == [True, False]
    assert [s.token_logprobs for s in barred] == [s.token_logprobs for s in free]


def test_what_cannot_be_scored_is_refused(model: GPT2) -> None:
    with pytest.raises(UsageError, match="empty context"):
        Scorer(model).score([Request(context=[], continuation=[1])])
    with pytest.raises(UsageError, match="65 tokens does not fit"):
        Scorer(model).score([Request(context=[1], continuation=[1] * 65)])
    with pytest.raises(UsageError, match="window of 65"):
        Scorer(model).rolling([1] * 9, window=65, prefix=None)
    with torch.no_grad():
        model.ln_f.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        Scorer(model).score([Request(context=[1], continuation=[1])])


def test_windows_score_every_token_once() -> None:
    def shape(windows: list[Request]) -> list[tuple[list[int], list[int]]]:
        return [(list(w.context), list(w.continuation)) for w in windows]

    ids = list(range(1, 11))
    assert shape(rolling_windows(ids, 4, 4, 0)) == [
        ([0], [1, 2, 3, 4]),
        ([4], [5, 6, 7, 8]),
        ([6, 7, 8], [9, 10]),  # the last may score fewer, and looks back as far as it can
    ]
    assert shape(rolling_windows(ids, 4, 2, None)) == [
        ([1], [2, 3, 4, 5]),
        ([3, 4, 5], [6, 7]),
        ([5, 6, 7], [8, 9]),
        ([6, 7, 8, 9], [10]),
    ]
    assert rolling_windows([], 4, 0, 0) == rolling_windows([1], 4, 0, None) == []
    with pytest.raises(UsageError, match="stride 5"):
        rolling_windows(ids, 4, 5, 0)


@pytest.mark.parametrize(("window", "stride", "prefix"), [(64, 64, 0), (64, 16, None), (10, 3, 0)])
def test_rolling_log_probability_by_hand(
    model: GPT2, window: int, stride: int, prefix: int | None
) -> None:
    draw = random.Random(2)
    ids = [draw.randrange(VOCAB) for _ in range(150)]
    tokens = ids if prefix is None else [prefix, *ids]
    expected, done = [], 1
    while done < len(tokens):  # feed windows one by one, keep what is new
        end = min(done + (window if done == 1 else stride), len(tokens))
        start = max(0, end - 1 - window)
        with torch.no_grad():
            p = torch.log_softmax(model(torch.tensor([tokens[start : end - 1]]))[0], dim=-1)
        expected += [p[i - 1 - start, tokens[i]].item() for i in range(done, end)]
        done = end
    found = Scorer(model).rolling(ids, window=window, stride=stride, prefix=prefix)
    assert len(found) == len(ids) - (prefix is None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
