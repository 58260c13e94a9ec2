"""The clients that people have: OpenAI's own, and lm-evaluation-harness."""

import logging
from typing import Any

import openai
import pytest
from small_server import NAME, Server
from test_serve_completions import PROMPT, decoded, plain

from gptwo.zeroshot.score import Request, Scorer


@pytest.fixture
def client(server: Server) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_openais_client_completes(server: Server, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "gptwo"
    whole = client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=12, temperature=0, logprobs=2, echo=True
    )
    (choice,) = whole.choices
    assert choice.text == PROMPT + decoded(server, plain(server, PROMPT, max_tokens=12))
    assert choice.logprobs is not None and choice.logprobs.text_offset is not None
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    more = {"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.2}
    drawn = client.completions.create(
        model=NAME, prompt=[PROMPT, "in"], n=2, seed=3, temperature=0.9, extra_body=more
    )
    expected = plain(server, "in", temperature=0.9, seed=4, **more)
    assert drawn.choices[3].text == decoded(server, expected)


def test_openais_client_streams(server: Server, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "temperature": 0, "stop": ["\n"]}
    stream = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    parts = list(stream)
    text = "".join(part.choices[0].text for part in parts if part.choices)
    assert text == decoded(server, plain(server, PROMPT)).split("\n")[0]
    assert parts[-1].usage is not None and parts[-1].usage.total_tokens > 0
    with client.completions.create(**asked, stream=True) as left:
        assert next(iter(left)).id  # and leaves


@pytest.mark.parametrize(
    "change, kind",
    [
        ({"model": "gpt5"}, openai.NotFoundError),
        ({"temperature": -1}, openai.BadRequestError),
        ({"prompt": "x" * 999}, openai.BadRequestError),
        ({"suffix": "end"}, openai.BadRequestError),
    ],
)
def test_openais_client_knows_our_errors(
    client: openai.OpenAI, change: dict[str, Any], kind: type[openai.APIStatusError]
) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": "a", **change}
    with pytest.raises(kind) as raised:
        client.completions.create(**asked)
    assert raised.value.message and raised.value.body["type"].endswith("_error")
    assert raised.value.param in change


ITEMS = [
    ("the thing in", " the inn"),
    ("the thing in", " then"),
    ("the thing in the other", " t"),
    ("", "then in the inn"),
    ("日本", "時 in"),
    ("x" * 300, "y"),  # longer than the context: the harness cuts it from the left
]


@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.parametrize("more", [{"batch_size": 4}, {"num_concurrent": 3}])
def test_the_harness_scores_as_we_do(
    server: Server, more: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities to four decimals, and the same items greedy."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    served = server.app.served
    model = LocalCompletionsAPI(
        model=NAME, base_url=f"{server.url}/v1/completions", max_length=256, **more
    )
    assert type(model.tokenizer).__name__ == "RemoteTokenizer"  # found by itself
    greedy = decoded(server, plain(server, PROMPT, max_tokens=3))
    items = [*ITEMS, (PROMPT, greedy)]
    asked = [Instance("loglikelihood", {}, pair, i, ("task", i, 1)) for i, pair in enumerate(items)]
    found = model.loglikelihood(asked, disable_tqdm=True)
    scorer = Scorer(served.model, vocab_size=served.tokenizer.vocab_size)
    requests = []
    for context, continuation in items:
        whole = served.tokenizer.encode(context + continuation)
        before = served.tokenizer.encode(context)
        ids = whole[len(before) :]
        before = (before or [served.tokenizer.eot])[-(255 - len(ids)) :]
        requests.append(Request(context=before, continuation=ids))
    for (logprob, is_greedy), own in zip(found, scorer.score(requests), strict=True):
        assert logprob == pytest.approx(own.logprob, abs=5e-5)
        assert is_greedy == own.greedy
    assert found[-1][1] and not found[0][1]


@pytest.mark.filterwarnings("ignore")  # the harness's own
def test_the_harness_generates_as_we_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = LocalCompletionsAPI(
        model=NAME, base_url=f"{server.url}/v1/completions", max_length=256, batch_size=2
    )
    until = {"until": ["he"], "max_gen_toks": 9, "do_sample": False}
    asked = [
        Instance("generate_until", {}, (prompt, dict(until)), i, ("task", i, 1))
        for i, prompt in enumerate((PROMPT, "in"))
    ]
    found = model.generate_until(asked, disable_tqdm=True)
    expected = [decoded(server, plain(server, p, max_tokens=9)) for p in (PROMPT, "in")]
    assert found == [text.split("he")[0] for text in expected]
