"""Continuations: the same with and without a cache, whole characters, stops, limits."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_text_model import Parrot, Subject, greedy, subject
from transformers import GPT2LMHeadModel

from gptwo.errors import ModelError, UsageError
from gptwo.model.weights import save_checkpoint_model
from gptwo.text.config import SampleConfig
from gptwo.text.generate import generate, stream, until
from gptwo.tokens.tokenizer import Tokenizer

PROMPT = [40, 41, 42]
PLAIN = SampleConfig(max_tokens=20)


def ids_of(small: Subject, config: SampleConfig = PLAIN, **more: bool) -> list[int]:
    return list(generate(small.model, PROMPT, config, eot=small.tokenizer.eot, **more))


def test_greedy_is_the_plain_loop(small: Subject) -> None:
    found = ids_of(small, replace(PLAIN, temperature=0.0))
    assert found == greedy(small.model, PROMPT, 20, small.tokenizer.vocab_size)
    assert len(set(found)) > 3


def test_greedy_is_what_transformers_generates(tmp_path: Path) -> None:
    small = subject(padding=0)
    save_checkpoint_model(small.model, tmp_path)
    other = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    prompt = torch.tensor([PROMPT])
    theirs = other.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=small.tokenizer.eot,
    )
    found = ids_of(small, replace(PLAIN, temperature=0.0))
    assert found == theirs[0, 3:].tolist() and len(found) == 20


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("change", [{}, {"top_k": 7}, {"top_p": 0.8}, {"temperature": 0.7}])
def test_the_cache_changes_no_id(small: Subject, seed: int, change: dict[str, float]) -> None:
    config = replace(PLAIN, seed=seed, **change)  # type: ignore[arg-type]
    assert ids_of(small, config) == ids_of(small, config, cached=False)


def test_a_seed_gives_the_same_and_another_seed_another(small: Subject) -> None:
    runs = [ids_of(small, replace(PLAIN, seed=seed)) for seed in (0, 1, 2, 0)]
    assert runs[0] == runs[3]
    assert len({tuple(run) for run in runs}) == 3


def test_seeds_leave_the_global_random_state_alone(small: Subject) -> None:
    before = torch.get_rng_state()
    ids_of(small)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_that_are_padding_are_never_drawn() -> None:
    """The model has more rows than the tokenizer has ids, and likes them best."""
    small = subject(padding=6)
    last = small.tokenizer.vocab_size
    with torch.no_grad():
        small.model.ln_f.bias.copy_(small.model.wte.weight[last:].mean(0) * 9)
        scores = small.model(torch.tensor([PROMPT]))[0, -1]
    assert int(scores.argmax()) >= last
    for seed in range(30):
        config = replace(PLAIN, seed=seed, temperature=float(seed % 3))
        assert all(token < last for token in ids_of(small, config))
        "".join(stream(*small, "a prompt", config))


def test_the_end_of_a_document_ends_the_text(small: Subject) -> None:
    parrot = Parrot(small.tokenizer, "the end")
    assert "".join(stream(parrot, small.tokenizer, "x", PLAIN)) == "the end"
    parrot = Parrot(small.tokenizer, "")
    assert list(stream(parrot, small.tokenizer, "x", PLAIN)) == []


def test_no_more_than_max_tokens(small: Subject) -> None:
    parrot = Parrot(small.tokenizer, "abcdefgh")
    assert "".join(stream(parrot, small.tokenizer, "x", replace(PLAIN, max_tokens=3))) == "abc"


def test_an_empty_prompt_starts_a_document(small: Subject) -> None:
    config = replace(PLAIN, temperature=0.0)
    found = list(generate(small.model, [], config, eot=small.tokenizer.eot))
    start = [small.tokenizer.eot]
    assert found == greedy(small.model, start, 20, small.tokenizer.vocab_size)
    assert "".join(stream(*small, "", config)) == small.tokenizer.decode(found)


@pytest.mark.parametrize("cached", [True, False])
def test_past_the_window_the_newest_half_is_read_again(cached: bool) -> None:
    small = subject(n_ctx=16)
    config = SampleConfig(max_tokens=60, temperature=0.0)
    window, expected = list(PROMPT), []
    for _ in range(60):
        if len(window) > 16:
            window = window[-8:]
        token = greedy(small.model, window, 1, small.tokenizer.vocab_size)[0]
        if token == small.tokenizer.eot:
            break
        window.append(token)
        expected.append(token)
    assert len(expected) > 40
    assert ids_of(small, config, cached=cached) == expected


@pytest.mark.parametrize("n_ctx", [1, 2, 3])
def test_the_smallest_windows_work(n_ctx: int) -> None:
    small, config = subject(n_ctx=n_ctx), SampleConfig(max_tokens=9)
    found = [
        list(generate(small.model, [5], config, eot=small.tokenizer.eot, cached=cached))
        for cached in (True, False)
    ]
    assert found[0] == found[1] and len(found[0]) > 3


def test_a_prompt_past_the_window_is_refused_at_once(small: Subject) -> None:
    fits = generate(small.model, [1] * 32, PLAIN, eot=small.tokenizer.eot)
    assert next(fits) >= 0
    with pytest.raises(UsageError, match="the prompt has 33 tokens, the model reads 32") as error:
        generate(small.model, [1] * 33, PLAIN, eot=small.tokenizer.eot)
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="the prompt has 99 tokens"):
        stream(*small, "x" * 99, PLAIN)


def test_a_model_of_no_numbers_is_named(small: Subject) -> None:
    with torch.no_grad():
        small.model.ln_f.bias[3] = float("nan")
    for temperature in (0.0, 1.0):
        with pytest.raises(ModelError, match="not finite numbers"):
            ids_of(small, replace(PLAIN, temperature=temperature))


# Streaming.


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=20)))
def test_pieces_are_whole_characters_and_join_to_the_full_decode(data: bytes) -> None:
    """Byte by byte, as a model may say it, and by the tokens of the tokenizer."""
    whole = data.decode("utf-8", "replace")
    pieces = list(until((), iter(data[i : i + 1] for i in range(len(data)))))
    assert "".join(pieces) == whole and all(pieces)
    tokenizer = Tokenizer([(b"\xe6", b"\x97"), (b"h", b"e")])
    said = (tokenizer.token_bytes(i) for i in tokenizer.encode(data))
    assert "".join(until((), said)) == whole


def test_a_character_of_many_tokens_comes_once_it_is_whole(small: Subject) -> None:
    parrot = Parrot(small.tokenizer, "a日😀b")
    assert len(small.tokenizer.encode("a日😀b")) == 8
    assert list(stream(parrot, small.tokenizer, "x", PLAIN)) == ["a", "日", "😀", "b"]
    broken = Parrot(small.tokenizer, b"a\xe6\x97")
    assert list(stream(broken, small.tokenizer, "x", PLAIN)) == ["a", "\ufffd"]


def test_a_piece_comes_before_the_next_token_is_made(small: Subject) -> None:
    parrot = Parrot(small.tokenizer, "abc")
    pieces = stream(parrot, small.tokenizer, "x", PLAIN)
    assert next(pieces) == "a"
    assert parrot.script[:2] == small.tokenizer.encode("bc")


@pytest.mark.parametrize(
    "says, stops, expected",
    [
        ("one. two", (".",), "one"),
        ("Q: a\nQ: b", ("\nQ:",), "Q: a"),
        ("aab", ("ab",), "a"),
        ("ababac", ("abac",), "ab"),
        ("stop", ("stop",), ""),
        ("sto", ("stop",), "sto"),
        ("x END y", ("y", "END"), "x "),
        ("in the end", ("the e", "e"), "in th"),  # "e" is complete first
        ("日本", ("本",), "日"),
        ("no stop here", ("!",), "no stop here"),
    ],
)
def test_text_ends_before_a_stop(
    small: Subject, says: str, stops: tuple[str, ...], expected: str
) -> None:
    config = replace(PLAIN, stop=stops)
    pieces = list(stream(Parrot(small.tokenizer, says), small.tokenizer, "x", config))
    assert "".join(pieces) == expected and all(pieces)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab", max_size=12),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3).map(tuple),
    cuts=st.lists(st.integers(0, 12), max_size=5),
)
def test_stops_are_found_however_the_text_is_cut(
    text: str, stops: tuple[str, ...], cuts: list[int]
) -> None:
    """One letter at a time the text ends before the stop that is complete first."""
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b].encode() for a, b in pairwise(borders)]
    found = "".join(until(stops, iter(parts)))
    assert text.startswith(found) and not any(stop in found for stop in stops)
    whole = "".join(until(stops, iter([text.encode()])))
    first = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    assert whole == text[:first]
    assert len(found) >= first
    if not any(stop in text for stop in stops):
        assert found == text
