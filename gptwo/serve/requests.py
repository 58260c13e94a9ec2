"""What clients may ask for. A field that is not here is refused, not ignored."""

import json
import secrets
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gptwo.serve.config import ServeConfig
from gptwo.serve.faults import Fault
from gptwo.text.config import SampleConfig
from gptwo.text.prefixes import MOST
from gptwo.tokens.tokenizer import Tokenizer

SEEDS = 1 << 63
Id = Annotated[int, Field(ge=0, lt=1 << 31)]
Prompt = str | Annotated[list[Id], Field(min_length=1)]
TokenName = Annotated[str, Field(pattern="^[0-9]{1,10}$")]
Zero = Annotated[float, Field(ge=0, le=0)]  # known and not supported
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Asked(BaseModel):
    """Fields have the type they are said to have: "1" is no number, and true is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(Asked):
    """What a stream tells besides text."""

    include_usage: bool = False


class CompletionRequest(Asked):
    """POST /v1/completions. A field that is null has its default."""

    model: str
    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = 0  # -1 keeps all, as elsewhere
    min_p: Share | None = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = 1.0
    logit_bias: dict[TokenName, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST)] | None = None
    echo: bool | None = False
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    user: str | None = None  # shown in the log

    def texts(self) -> int:
        """How many texts are written for each prompt."""
        return max(self.best_of or 0, self.n or 1)

    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    def sampling(self) -> SampleConfig:
        """The settings of the first text of each prompt; the others have the seeds after its own.

        Stop texts are not among them: who writes the answer looks for them.
        """
        ranked = self.texts() > (self.n or 1)
        seed = secrets.randbits(62) if self.seed is None else self.seed
        return SampleConfig(
            max_tokens=max(_or(self.max_tokens, 16), 1),
            temperature=_or(self.temperature, 1.0),
            top_k=max(_or(self.top_k, 0), 0),
            top_p=_or(self.top_p, 1.0),
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            logit_bias=tuple((int(i), bias) for i, bias in (self.logit_bias or {}).items()),
            seed=seed % SEEDS,
            logprobs=max(self.logprobs or 0, int(ranked or self.logprobs is not None)),
            when_full="refuse",
        )


class ScoreRequest(Asked):
    """POST /v1/score: how likely each candidate is after the prompt; one may be empty, not both."""

    model: str
    prompt: Prompt
    candidates: Annotated[list[Prompt], Field(min_length=1)]
    user: str | None = None


class TokenizeRequest(Asked):
    """POST /tokenize. GPT-2's text has no tokens but its own: `add_special_tokens` adds none."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = False


class DetokenizeRequest(Asked):
    """POST /detokenize."""

    tokens: list[Id]
    model: str | None = None


Kind = TypeVar("Kind", bound=Asked)


def parse(body: bytes, kind: type[Kind]) -> Kind:
    """The request in `body`; raises a `Fault` of 400 that names the field."""
    try:
        value = json.loads(body)
        if b"\\ud" in body or b"\\uD" in body:  # half of a pair, perhaps: such a text has no UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Fault(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:  # bytes that are no UTF-8 are one too
        raise Fault(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Fault(400, "the body must be a JSON object", code="invalid_json")
    try:
        asked = kind.model_validate(value)
    except ValidationError as error:
        raise _named(error, kind) from None
    if isinstance(asked, CompletionRequest):
        check(asked)
    return asked


def check(asked: CompletionRequest) -> None:
    """What fields say about each other; raises a `Fault` of 400."""
    if asked.best_of is not None and asked.best_of < (asked.n or 1):
        raise Fault(400, f"best_of is {asked.best_of}, less than n", param="best_of")
    if asked.stream and asked.texts() > (asked.n or 1):
        raise Fault(400, "best_of cannot be streamed: the best is known last", param="best_of")
    if asked.stream_options is not None and not asked.stream:
        raise Fault(400, "stream_options is for streams alone", param="stream_options")
    if asked.max_tokens == 0 and not asked.echo:
        raise Fault(400, "max_tokens 0 without echo asks for nothing", param="max_tokens")


def prompts_of(
    asked: CompletionRequest, tokenizer: Tokenizer, config: ServeConfig
) -> list[list[int]]:
    """The ids of each prompt. None at all is an empty one: it starts a document."""
    given: Any = "" if asked.prompt is None else asked.prompt
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    texts = len(given) * asked.texts()
    if texts > config.texts:
        param = "prompt" if len(given) > 1 else "best_of" if asked.best_of else "n"
        raise Fault(
            400, f"the request asks for {texts} texts, {config.texts} are allowed", param=param
        )
    return [ids_of(prompt, tokenizer, "prompt") for prompt in given]


def ids_of(prompt: str | list[int], tokenizer: Tokenizer, param: str) -> list[int]:
    """Ids of a text, or ids as they are; raises a `Fault` for one outside the vocabulary."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    wrong = next((i for i in prompt if i > tokenizer.eot), None)
    if wrong is not None:
        raise Fault(
            400,
            f"token {wrong} is not in the vocabulary of {tokenizer.vocab_size:,}",
            param=param,
            code="invalid_token",
        )
    return list(prompt)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _named(error: ValidationError, kind: type[Asked]) -> Fault:
    """The first field that is wrong, in words."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return Fault(400, f"unknown field {param!r}; known are {known}", param=param)
    if first["type"] == "missing":
        return Fault(400, f"{param} is missing", param=param)
    if param in ("suffix", "presence_penalty", "frequency_penalty"):
        return Fault(400, f"{param} is not supported", param=param, code="unsupported_value")
    message = first["msg"].replace("Input", "it", 1)
    return Fault(400, f"{param}: {message}", param=param)
