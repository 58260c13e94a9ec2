"""Prompts that share beginnings, come within a step, are long, or many: each in its turn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_text_model import Subject, subject

from gptwo.text.config import SampleConfig
from gptwo.text.engine import READ_TOKENS, Engine, Text
from gptwo.text.generate import generate
from gptwo.text.prefixes import BLOCK

PLAIN = SampleConfig(max_tokens=6, temperature=0.0)


def engine_of(small: Subject, **more: Any) -> Engine:
    return Engine(
        small.model, eot=small.tokenizer.eot, **{"rows": 4, "prefix_bytes": 1 << 20} | more
    )


def run(engine: Engine, texts: list[Text]) -> None:
    for _ in range(10_000):
        if all(text.finish for text in texts):
            return
        engine.step()
    raise AssertionError("it does not end")


def alone(small: Subject, ids: list[int], config: SampleConfig) -> list[int]:
    return list(generate(small.model, ids, config, eot=small.tokenizer.eot))


def true_scores(small: Subject, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = small.model(torch.tensor([ids]))[0, :-1, : small.tokenizer.vocab_size]
    return torch.log_softmax(logits, -1)


def counted(small: Subject, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids each product reads."""
    read: list[int] = []
    hidden = small.model.hidden

    def counting(ids: torch.Tensor, **more: Any) -> torch.Tensor:
        read.append(ids.numel())
        return hidden(ids, **more)

    monkeypatch.setattr(small.model, "hidden", counting)
    return read


PIECES = [[5] * 20, list(range(40, 75)), [7, 8, 9], list(range(100, 150))]


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.lists(st.sampled_from(range(4)), max_size=5), min_size=1, max_size=6),
    scored=st.integers(0, 63),
    draws=st.integers(0, 63),
    rows=st.integers(1, 4),
    prefix_bytes=st.sampled_from([0, 60_000, 1 << 22]),
    together=st.booleans(),
)
def test_what_is_shared_changes_nothing(
    prompts: list[list[int]], scored: int, draws: int, rows: int, prefix_bytes: int, together: bool
) -> None:
    """Prompts of common pieces, with and without scores, whatever is kept of them."""
    small = subject(n_ctx=256)
    engine = engine_of(small, rows=rows, prefix_bytes=prefix_bytes, length=16)
    texts = []
    for i, pieces in enumerate(prompts):
        ids = [token for piece in pieces for token in PIECES[piece]]
        flags = {"scored": bool(scored >> i & 1), "draws": bool(draws >> i & 1)}
        texts.append(engine.submit(ids, PLAIN, owner=i % 2, **flags))
        if not together:
            run(engine, texts)
    run(engine, texts)
    assert engine.prefixes.bytes <= prefix_bytes
    assert engine.prefixes.bytes == sum(block.bytes for block in engine.prefixes.order)
    for text in texts:
        assert text.ids == (alone(small, text.prompt, PLAIN) if text.draws else [])
        if text.scored and len(text.prompt) > 1:
            found, true = text.prompt_scores, true_scores(small, text.prompt)
            assert torch.isnan(found.logprobs[0]) and len(found.logprobs) == len(text.prompt)
            own = true.gather(1, torch.tensor(text.prompt[1:])[:, None])[:, 0]
            assert torch.allclose(found.logprobs[1:], own, atol=1e-4)
            assert torch.allclose(found.best[1:], true.topk(20).values, atol=1e-4)


def test_a_known_beginning_is_not_read_again(
    small: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = subject(n_ctx=256)
    engine = engine_of(small)
    ids = [i % 200 for i in range(7, 7 + 100)]
    once = replace(PLAIN, max_tokens=1)
    read = counted(small, monkeypatch)
    first = engine.submit(ids, once, scored=True)
    run(engine, [first])
    again = engine.submit(ids, once, scored=True)
    run(engine, [again])
    assert read == [100, 100 - 96] and again.cached == 96
    assert torch.equal(again.prompt_scores.logprobs[1:96], first.prompt_scores.logprobs[1:96])
    assert torch.allclose(
        again.prompt_scores.logprobs[96:], first.prompt_scores.logprobs[96:], atol=1e-5
    )
    read.clear()
    longer = engine.submit([*ids, 3, 4, 5], once)  # no scores are asked, those there are no matter
    run(engine, [longer])
    assert read == [7]


def test_many_of_one_beginning_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four come together: one reads, the others wait for it."""
    small = subject(n_ctx=256)
    read = counted(small, monkeypatch)
    engine = engine_of(small)
    ids = [i % 200 for i in range(64)]
    ends = [[201], [202, 203], [204] * 3, [205] * 4]
    texts = [engine.submit(ids + end, PLAIN, scored=True, draws=False) for end in ends]
    run(engine, texts)
    assert read == [65, 3 * 4]  # side by side, padded to the longest


def test_memory_for_prefixes_is_bounded_and_the_newest_stay() -> None:
    small = subject(n_ctx=256)
    engine = engine_of(small, prefix_bytes=100_000)
    for start in range(40):
        ids = [(start * 5 + i) % 250 for i in range(5 * BLOCK)]
        run(engine, [engine.submit(ids, replace(PLAIN, max_tokens=1))])
        assert engine.prefixes.bytes <= 100_000
    assert len(engine.prefixes.match([*ids, 1], scored=False)) == 5
    kept = set(engine.prefixes.order)
    assert all(block.parent is None or block.parent in kept for block in kept)
    reachable = list(engine.prefixes.children.values())
    for block in reachable:
        reachable += block.children.values()
    assert set(reachable) == kept


def test_a_short_prompt_is_read_in_the_middle_of_a_step() -> None:
    small = subject(n_ctx=256)
    layers: list[int] = []
    heard: list[int] = []
    came: list[Text] = []

    def between() -> None:
        layers.append(len(engine.running))
        if len(layers) == 4:  # in the last layer of the second product
            came.append(engine.submit([1, 2, 3], PLAIN))
            heard.extend(len(text.ids) for text in engine.hurry())

    engine = engine_of(small, between=between, length=64)
    first = [engine.submit([i, 9], replace(PLAIN, max_tokens=20)) for i in (30, 31)]
    assert engine.step() == first and heard == [1] and len(came[0].ids) == 1
    run(engine, [*first, *came])
    for text in [*first, *came]:
        assert text.ids == alone(small, text.prompt, text.config)


def test_one_that_ends_in_the_middle_of_a_step_disturbs_nobody() -> None:
    small = subject(n_ctx=256)
    calls = 0
    came: list[Text] = []

    def between() -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0 and len(came) < 9:
            once = replace(PLAIN, max_tokens=1 + calls % 2)
            came.extend(engine.submit([calls, 2, i], once) for i in range(2))
            engine.hurry()

    engine = engine_of(small, between=between, length=64, rows=5)
    first = [engine.submit([i, 9, 8], replace(PLAIN, max_tokens=20)) for i in (30, 31)]
    run(engine, first)
    run(engine, came)
    for text in [*first, *came]:
        assert text.ids == alone(small, text.prompt, text.config)


def test_a_long_prompt_is_read_in_parts_while_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    small = subject(n_ctx=1024)
    engine = engine_of(small, prefix_bytes=0)
    writing = engine.submit([1, 2], replace(PLAIN, max_tokens=40))
    engine.step()
    ids = [i % 250 for i in range(5 * READ_TOKENS)]
    long = engine.submit(ids, PLAIN)
    read = counted(small, monkeypatch)
    said = len(writing.ids)
    while not long.ids:
        engine.step()
        assert len(writing.ids) == (said := said + 1)  # a token in every step
    assert max(read) == READ_TOKENS and said == 2 + 5
    run(engine, [writing, long])
    assert long.ids == alone(small, ids, PLAIN)
    assert writing.ids == alone(small, [1, 2], writing.config)


def test_who_asks_for_little_does_not_wait_for_who_asks_for_much(small: Subject) -> None:
    engine = engine_of(small)
    much = [engine.submit([i], replace(PLAIN, max_tokens=9), owner="much") for i in range(30)]
    engine.step()
    assert sum(text in engine.running for text in much) == 3  # three quarters of the rows
    little = engine.submit([99], replace(PLAIN, max_tokens=2), owner="little")
    engine.step()
    engine.step()
    assert little.finish and sum(bool(text.finish) for text in much) == 0
    other = [engine.submit([i], replace(PLAIN, max_tokens=9), owner="other") for i in range(30)]
    run(engine, [*much, *other])
    for text in much[:4]:
        engine.cancel(text)  # long gone: nothing happens
    waiting = engine.submit([5], PLAIN, owner="other")
    engine.cancel(waiting)
    assert len(engine.waiting) == 0 and engine.step() == []


def test_owners_share_the_rows(small: Subject) -> None:
    engine = engine_of(small, rows=6)
    texts = [
        engine.submit([i], replace(PLAIN, max_tokens=3), owner=owner)
        for owner in "abc" for i in range(10)
    ]  # fmt: skip
    engine.step()
    assert sorted(text.owner for text in engine.running) == list("aabbcc")
    run(engine, texts)


def test_reset_forgets_all(small: Subject) -> None:
    engine = engine_of(small)
    engine.submit(list(range(31)), PLAIN)
    engine.step()
    engine.submit([1], PLAIN)
    engine.reset()
    assert engine.step() == [] and not engine.prefixes.bytes
    text = engine.submit(list(range(20)), PLAIN)
    run(engine, [text])
    assert text.ids == alone(small, list(range(20)), PLAIN)
