"""The server's description of itself: OpenAPI 3.1, made from the requests it reads."""

from typing import Any

from pydantic import BaseModel

from gptwo import __version__
from gptwo.serve.requests import (
    CompletionRequest,
    DetokenizeRequest,
    ScoreRequest,
    TokenizeRequest,
)

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
OPEN = {"type": ["string", "null"]}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


ERROR = _object(error=_object(message=TEXT, type=TEXT, param=OPEN, code=OPEN))
USAGE = _object(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
LOGPROBS = _object(
    tokens=_list(TEXT),
    token_logprobs=_list({"type": ["number", "null"]}),
    top_logprobs=_list({"type": ["object", "null"], "additionalProperties": NUMBER}),
    text_offset=_list(COUNT),
)
CHOICE = _object(
    text=TEXT,
    index=COUNT,
    logprobs={"anyOf": [LOGPROBS, {"type": "null"}]},
    finish_reason={"enum": ["stop", "length", None]},
)
MODEL = _object(id=TEXT, object=TEXT, created=COUNT, owned_by=TEXT, max_model_len=COUNT)
SCORE = _object(
    index=COUNT,
    object=TEXT,
    logprob=NUMBER,
    is_greedy={"type": "boolean"},
    tokens=_list(COUNT),
    token_logprobs=_list(NUMBER),
)
HEALTH = _object(
    status={"enum": ["ok", "stopping"]},
    model=TEXT,
    weights_sha256=TEXT,
    files={"enum": ["unchanged", "changed", "missing"]},
)
ANSWERS: dict[str, Any] = {
    "completions": _object(
        id=TEXT, object=TEXT, created=COUNT, model=TEXT, choices=_list(CHOICE), usage=USAGE
    ),
    "scores": _object(object=TEXT, model=TEXT, data=_list(SCORE), usage=USAGE),
    "models": _object(object=TEXT, data=_list(MODEL)),
    "model": MODEL,
    "tokenizer": _object(eos_token=TEXT, bos_token=TEXT, pad_token=TEXT, chat_template=OPEN),
    "tokens": _object(tokens=_list(COUNT), count=COUNT, max_model_len=COUNT),
    "text": _object(prompt=TEXT),
    "health": HEALTH,
}


def openapi(model: str) -> dict[str, Any]:
    """The whole document; `model` is the name that requests must give."""
    named = {"type": "string", "enum": [model]}
    schemas = {"Error": ERROR}

    def posted(kind: type[BaseModel], answer: str, told: str, *stream: str) -> dict[str, Any]:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        whole = "model" in schema["required"]
        schema["properties"]["model"] = named if whole else {"anyOf": [named, {"type": "null"}]}
        schemas[kind.__name__] = schema
        reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
        body = {"required": True, "content": {"application/json": {"schema": reference}}}
        statuses = (400, 401, 403, 404, 408, 413, 415, 500, 503)
        return {"post": {"requestBody": body, **_answers(told, answer, statuses, *stream)}}

    def got(answer: str, told: str, *statuses: int) -> dict[str, Any]:
        return {"get": _answers(told, answer, (401, 403, *statuses, 503))}

    by_id = got("model", "One model.", 404)
    by_id["get"]["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": TEXT}]
    text = {"description": "Numbers for Prometheus.", "content": {"text/plain": {"schema": TEXT}}}
    metrics = got("health", "Numbers for Prometheus.")
    metrics["get"]["responses"]["200"] = text
    health = got("health", "Whether it answers, and whether the model's files are as loaded.")
    health["get"]["responses"]["503"] = _json("It is stopping.", {"anyOf": [HEALTH, ERROR]})
    stream = "text/event-stream"
    paths = {
        "/v1/completions": posted(CompletionRequest, "completions", "Continue prompts.", stream),
        "/v1/score": posted(ScoreRequest, "scores", "How likely candidates are."),
        "/v1/models": got("models", "The model, in a list."),
        "/v1/models/{id}": by_id,
        "/tokenizer_info": got("tokenizer", "Special tokens."),
        "/tokenize": posted(TokenizeRequest, "tokens", "Text to tokens."),
        "/detokenize": posted(DetokenizeRequest, "text", "Tokens to text."),
        "/health": health,
        "/metrics": metrics,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "gptwo serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _answers(told: str, answer: str, statuses: tuple[int, ...], *more: str) -> dict[str, Any]:
    good = _json(told, ANSWERS[answer])
    for kind in more:
        good["content"][kind] = {"schema": _object(data=TEXT)}  # of each event
    error = _json("An error.", {"$ref": "#/components/schemas/Error"})
    return {"summary": told, "responses": {"200": good, **{str(s): error for s in statuses}}}


def _json(told: str, schema: Any) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}
