"""What /v1/completions and its neighbours answer, field by field, held to the plain loop."""

import json
import re
from typing import Any

import pytest
import torch
from small_server import NAME, Server, until

from gptwo.text.config import SampleConfig
from gptwo.text.generate import generate

PROMPT = "the thing in the inn"


def plain(server: Server, prompt: str | list[int], **settings: Any) -> list[int]:
    """The ids that the plain loop draws."""
    served = server.app.served
    ids = served.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    config = SampleConfig(**{"temperature": 0.0, "max_tokens": 16, **settings})
    return list(generate(served.model, ids, config, eot=served.tokenizer.eot))


def decoded(server: Server, ids: list[int]) -> str:
    return server.app.served.tokenizer.decode(ids)


def true_logprobs(server: Server, ids: list[int]) -> torch.Tensor:
    """(T - 1, V), what follows each token, read in one go."""
    served = server.app.served
    with torch.no_grad():
        logits = served.model(torch.tensor([ids]))[0, :-1, : served.tokenizer.vocab_size]
    return torch.log_softmax(logits, -1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens": 40},
        {"temperature": 0.8, "seed": 5, "top_k": 9},
        {"temperature": 1.0, "seed": 6, "top_p": 0.8, "min_p": 0.02},
        {"temperature": 0.7, "seed": 7, "repetition_penalty": 1.4},
        {"temperature": 1e-300, "top_p": 5e-324, "min_p": 1.0},
    ],
)
def test_a_text_is_the_plain_loops(server: Server, settings: dict[str, Any]) -> None:
    answer = server.complete(PROMPT, **settings).json
    ids = plain(server, PROMPT, **settings)
    (choice,) = answer["choices"]
    assert choice["text"] == decoded(server, ids)
    assert choice["finish_reason"] == (
        "length" if len(ids) == settings.get("max_tokens", 16) else "stop"
    )
    assert choice["logprobs"] is None and choice["index"] == 0
    assert answer["object"] == "text_completion" and answer["model"] == NAME
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(server.app.served.tokenizer.encode(PROMPT))
    assert usage["completion_tokens"] == len(ids)
    assert usage["total_tokens"] == usage["prompt_tokens"] + len(ids)


def test_prompts_may_be_ids_and_many(server: Server) -> None:
    ids = server.app.served.tokenizer.encode(PROMPT)
    whole = server.choice(PROMPT)["text"]
    assert server.choice(ids)["text"] == whole
    for prompts in ([PROMPT, "in"], [ids, server.app.served.tokenizer.encode("in")]):
        choices = server.complete(prompts, n=2, temperature=0.9, seed=3).json["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        for index, choice in enumerate(choices):
            prompt, seed = (PROMPT, "in")[index // 2], 3 + index % 2
            expected = plain(server, prompt, temperature=0.9, seed=seed)
            assert choice["text"] == decoded(server, expected)


def test_an_empty_prompt_starts_a_document(server: Server) -> None:
    expected = decoded(server, plain(server, []))
    assert server.choice("")["text"] == expected
    assert server.choice(None)["text"] == expected


def test_a_bias_can_force_and_bar_tokens(server: Server) -> None:
    assert server.choice("a", logit_bias={"66": 100}, max_tokens=3)["text"] == "ccc"
    first = plain(server, "a", max_tokens=1)[0]
    barred = server.choice("a", logit_bias={str(first): -100}, max_tokens=1, logprobs=0)
    assert barred["text"] == decoded(
        server, plain(server, "a", max_tokens=1, logit_bias=((first, -100.0),))
    )


def test_best_of_is_the_likeliest(server: Server) -> None:
    more = {"temperature": 1.0, "seed": 4, "max_tokens": 8, "logprobs": 0}
    each = server.complete(PROMPT, n=6, **more).json["choices"]
    mean = [
        sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]) for c in each
    ]
    ranked = sorted(range(6), key=lambda i: -mean[i])
    best = server.complete(PROMPT, n=2, best_of=6, **more).json
    assert [c["text"] for c in best["choices"]] == [each[i]["text"] for i in ranked[:2]]
    assert [c["index"] for c in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] > 16  # all six were written


def test_a_stop_text_ends_it_and_is_left_out(server: Server) -> None:
    whole = server.choice(PROMPT, max_tokens=30, logprobs=0)
    stop = whole["text"][3:5]
    for form in (stop, ["\u2603", stop]):
        choice = server.choice(PROMPT, max_tokens=30, stop=form, logprobs=0)
        assert choice["text"] == whole["text"].split(stop)[0]
        assert choice["finish_reason"] == "stop"
        kept = choice["logprobs"]["text_offset"]
        assert kept == [o for o in whole["logprobs"]["text_offset"] if o < len(choice["text"])]


@pytest.mark.parametrize("prompt", [PROMPT, "日本 the naïve 時", "x"])
@pytest.mark.parametrize("max_tokens", [0, 1, 7])
def test_echo_tells_the_prompts_own_log_probabilities(
    server: Server, prompt: str, max_tokens: int
) -> None:
    tokenizer = server.app.served.tokenizer
    choice = server.choice(prompt, echo=True, logprobs=3, max_tokens=max_tokens)
    new = plain(server, prompt, max_tokens=max_tokens) if max_tokens else []
    ids = tokenizer.encode(prompt) + new
    assert choice["text"] == prompt + decoded(server, new)
    told = choice["logprobs"]
    assert {len(values) for values in told.values()} == {len(ids)}
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    true = true_logprobs(server, ids) if len(ids) > 1 else []
    for place, row in enumerate(true, 1):
        assert told["token_logprobs"][place] == pytest.approx(float(row[ids[place]]), abs=1e-5)
        best = sorted(told["top_logprobs"][place].values(), reverse=True)[:3]
        assert best == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)
        assert told["top_logprobs"][place][told["tokens"][place]] == told["token_logprobs"][place]
        is_best = int(row.argmax()) == ids[place]
        assert (
            told["token_logprobs"][place] == max(told["top_logprobs"][place].values())
        ) == is_best
    assert len(set(told["tokens"])) == len(set(ids))
    for token, offset, name in zip(ids, told["text_offset"], told["tokens"], strict=True):
        spelt = tokenizer.token_bytes(token)
        if name.startswith("bytes:"):
            assert bytes.fromhex(name.removeprefix("bytes:").replace("\\x", "")) == spelt
        else:
            assert choice["text"][offset:].startswith(name) and name.encode() == spelt


def test_echo_of_nothing_but_the_prompt(server: Server) -> None:
    choice = server.choice(PROMPT, echo=True, max_tokens=0)
    assert (choice["text"], choice["finish_reason"], choice["logprobs"]) == (PROMPT, "length", None)
    assert server.choice("", echo=True, max_tokens=0, logprobs=1)["text"] == ""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("stop", [None, "he"])
def test_a_stream_is_the_whole_in_parts(
    server: Server, n: int, echo: bool, logprobs: int | None, stop: str | None
) -> None:
    asked = {"n": n, "echo": echo, "logprobs": logprobs, "stop": stop, "seed": 2}
    asked |= {"temperature": 1.0, "max_tokens": 12}
    whole = server.complete("日本 the", **asked).json
    answer = server.complete(
        "日本 the", stream=True, stream_options={"include_usage": True}, **asked
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events()
    last = events.pop()
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert all(
        event["choices"][0]["text"] or event["choices"][0]["finish_reason"] for event in events
    )
    for choice in whole["choices"]:
        parts = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [p["finish_reason"] for p in parts] == [None] * (len(parts) - 1) + [
            choice["finish_reason"]
        ]
        if logprobs is not None:
            for name in ("tokens", "text_offset"):
                told = [value for part in parts for value in part["logprobs"][name]]
                assert told == choice["logprobs"][name]
    assert {event["id"] for event in events} == {last["id"]}


def test_no_usage_is_told_unasked(server: Server) -> None:
    events = server.complete(PROMPT, stream=True).events()
    assert len(events) > 1 and all("usage" not in event for event in events)


def test_candidates_are_scored_as_if_alone(server: Server) -> None:
    served = server.app.served
    prompt, candidates = PROMPT * 3, [" the inn", " in", " thin things", [66, 67]]
    asked = {"model": NAME, "prompt": prompt, "candidates": candidates}
    for _ in range(2):  # the second time the prompt is known
        answer = server.call("POST", "/v1/score", asked).json
        for candidate, found in zip(candidates, answer["data"], strict=True):
            own = served.tokenizer.encode(candidate) if isinstance(candidate, str) else candidate
            context = served.tokenizer.encode(prompt)
            true = true_logprobs(server, context + own)[-len(own) :]
            picked = true.gather(1, torch.tensor(own)[:, None])[:, 0]
            assert found["token_logprobs"] == pytest.approx(picked.tolist(), abs=1e-5)
            assert found["logprob"] == pytest.approx(float(picked.sum()), abs=1e-4)
            assert found["is_greedy"] == bool((true.argmax(-1) == torch.tensor(own)).all())
            assert found["tokens"] == own
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    empty = server.call("POST", "/v1/score", {**asked, "prompt": "", "candidates": ["in"]}).json
    own = served.tokenizer.encode("in")
    true = true_logprobs(server, [served.tokenizer.eot, *own])
    assert empty["data"][0]["token_logprobs"][0] == pytest.approx(float(true[0, own[0]]), abs=1e-5)


def test_tokens_and_text(server: Server) -> None:
    text = "the 日本 <|endoftext|>"
    tokens = server.call("POST", "/tokenize", {"prompt": text, "add_special_tokens": False}).json
    assert tokens["tokens"] == server.app.served.tokenizer.encode(text)
    assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] == 256
    assert server.call("POST", "/detokenize", {"tokens": tokens["tokens"]}).json == {"prompt": text}
    info = server.call("GET", "/tokenizer_info").json
    named = server.call("POST", "/tokenize", {"prompt": info["eos_token"]}).json["tokens"]
    assert named == [server.app.served.tokenizer.eot]
    assert info["eos_token"] == info["bos_token"] == info["pad_token"] == "<|endoftext|>"


def test_models_health_and_numbers(server: Server) -> None:
    (model,) = server.call("GET", "/v1/models").json["data"]
    assert model["id"] == NAME and model["max_model_len"] == 256
    assert server.call("GET", f"/v1/models/{NAME}").json == model
    assert server.call("GET", "/health").json["status"] == "ok"
    before = server.call("GET", "/metrics").body.decode()
    server.complete(PROMPT, max_tokens=5)
    after = server.call("GET", "/metrics").body.decode()

    def count(text: str) -> float:
        found = re.search(r"^gptwo_written_tokens_total (\S+)$", text, re.M)
        return float(found[1]) if found else 0.0

    assert 0 < count(after) - count(before) <= 5
    assert 'gptwo_requests_total{path="/v1/completions",status="200"}' in after
    assert "gptwo_first_token_seconds_bucket" in after and "gptwo_texts_running 0.0" in after


def test_every_request_has_a_line(server: Server) -> None:
    def line_of(user: str) -> str:
        until(lambda: any(line.endswith(f"user={user!r}") for line in server.lines))
        return next(line for line in server.lines if line.endswith(f"user={user!r}"))

    server.complete(PROMPT, max_tokens=3, user="ada")
    line = line_of("ada")  # it comes after the answer
    assert re.search(r"completions 200 \d+\.\d+s prompt=\d+ cached=\d+ written=3 first=", line)
    server.complete("x" * 300, user="bob")
    assert "POST /v1/completions 400" in line_of("bob")


def test_the_end_of_the_document_ends_the_text(server: Server) -> None:
    eot = server.app.served.tokenizer.eot
    choice = server.choice(PROMPT, logit_bias={str(eot): 100}, logprobs=1)
    assert choice["text"] == "" and choice["finish_reason"] == "stop"
    assert json.dumps(choice["logprobs"]["tokens"]) == "[]"
