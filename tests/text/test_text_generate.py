"""Continuations: the same with and without a cache, whole characters, stops, limits."""

import io
import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_text_model import Parrot, Subject, greedy, subject
from transformers import GPT2LMHeadModel

from gptwo.artifacts import read_json
from gptwo.errors import Interrupted, ModelError, UsageError
from gptwo.model.weights import save_checkpoint_model
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
from gptwo.text.generate import continuations, generate, print_samples, stream, until, write_samples
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


# Several, printed and written.


def test_each_continuation_has_a_seed_of_its_own(small: Subject) -> None:
    made = [(own.seed, "".join(pieces)) for own, pieces in continuations(*small, "the", PLAIN, 3)]
    assert [seed for seed, _ in made] == [0, 1, 2]
    for seed, text in made:
        assert text == "".join(stream(*small, "the", replace(PLAIN, seed=seed)))
    assert len({text for _, text in made}) == 3


class Listens(Reporter):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


def test_one_is_printed_after_its_prompt(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Listens()
    print_samples(*small, "the", PLAIN, n=1, as_json=False, reporter=reporter)
    out, err = capsys.readouterr()
    assert out == "the" + "".join(stream(*small, "the", PLAIN)) + "\n" and err == ""
    assert reporter.heard[-1].endswith("tokens/s")


def test_several_are_printed_under_their_seeds(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    print_samples(*small, "the", PLAIN, n=2, as_json=False, reporter=SILENT)
    texts = ["".join(pieces) for _, pieces in continuations(*small, "the", PLAIN, 2)]
    expected = f"=== seed 0\nthe{texts[0]}\n=== seed 1\nthe{texts[1]}\n"
    assert capsys.readouterr().out == expected


def test_for_machines_each_is_a_line_of_json(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    print_samples(*small, "naïve 日本", PLAIN, n=3, as_json=True, reporter=SILENT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert all(line.keys() == {"prompt", "text", "seed"} for line in lines)
    assert lines[0]["prompt"] == "naïve 日本"
    assert lines[0]["text"] == "".join(stream(*small, "naïve 日本", PLAIN))


@pytest.mark.parametrize("as_json", [True, False])
def test_a_prompt_that_is_no_unicode_can_be_printed(
    small: Subject, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line hands broken bytes over as lone surrogates."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    print_samples(*small, "a\udcff", PLAIN, n=1, as_json=as_json, reporter=SILENT)
    assert "a\ufffd" in raw.getvalue().decode()


def test_printing_stops_when_asked(small: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        print_samples(*small, "the", PLAIN, n=1, as_json=False, reporter=reporter)
    assert capsys.readouterr().out == "the"


def test_nothing_is_printed_before_a_refusal(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="n must be at least 1, found 0"):
        print_samples(*small, "the", PLAIN, n=0, as_json=False, reporter=SILENT)
    with pytest.raises(UsageError, match="the prompt has 99 tokens"):
        print_samples(*small, "x" * 99, PLAIN, n=1, as_json=False, reporter=SILENT)
    assert capsys.readouterr().out == ""


def test_samples_are_written_once(small: Subject, tmp_path: Path) -> None:
    def write(**change: int) -> object:
        return write_samples(
            *small,
            ["the", ""],
            tmp_path / "out",
            replace(PLAIN, **change),
            n=2,
            inputs={"checkpoint": "abc"},
        )

    manifest = write()
    path = tmp_path / "out" / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt"], line["seed"]) for line in lines] == [
        ("the", 0), ("the", 1), ("", 0), ("", 1),
    ]  # fmt: skip
    for line in lines:
        config = replace(PLAIN, seed=line["seed"])
        assert line["text"] == "".join(stream(*small, line["prompt"], config))
        assert line["tokens"] == len(small.tokenizer.encode(line["text"]))
    assert read_json(tmp_path / "out" / "manifest.json")["counts"] == {"samples": 4}
    before = path.stat().st_mtime_ns
    with torch.no_grad():
        small.model.ln_f.bias.fill_(float("nan"))  # it would not survive being asked again
    assert write() == manifest and path.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="seed: 0 -> 5"):
        write(seed=5)


def test_writing_stops_when_asked(small: Subject, tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        write_samples(*small, ["the"], tmp_path / "out", PLAIN, n=1, inputs={}, reporter=reporter)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert write_samples(*small, ["the"], tmp_path / "out", PLAIN, n=1, inputs={}).counts
