"""Other people's tools open what we write, and say what we say.

One small trained model with a vocabulary of its own, converted to each format; each tool's ids,
logits, scores and greedy text against ours.
"""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import onnxruntime
import pytest
import torch
from ctranslate2.converters import TransformersConverter
from decisive import PROMPTS, TEXT, decisive, greedy
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

import gptwo
from gptwo.formats import hf
from gptwo.formats.convert import convert
from gptwo.formats.weights import Weights, model_of

LENGTH = 32
TEXTS = [TEXT, "  two spaces\n\n b\tfoo’s 日本 😀 1234 HELLO'S we'll", "", "\x00\x7f é ÿ \r\n  "]
PAIRS = [
    ("The ferry leaves", " the old harbour at six"),
    ("The ferry leaves", " nobody"),
    ("", "Anna, who sells the tickets"),
    (TEXT * 3 + "He doesn't say where", " he's going; nobody"),  # longer than the model sees
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more by sharing work than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return decisive()


@pytest.fixture(scope="module")
def folder(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder made by convert, as all others below are made from it."""
    source = tmp_path_factory.mktemp("source")
    hf.write(weights, source, "f32")
    weights.tokenizer.save(source)
    out = tmp_path_factory.mktemp("hf")
    convert(source, out, to="hf")
    return out


@pytest.fixture(scope="module")
def expected(weights: Weights) -> list[list[int]]:
    """Our own greedy continuations; no choice hangs on a rounding error."""
    model, found = model_of(weights), []
    for prompt in PROMPTS:
        ids = weights.tokenizer.encode(prompt)
        found.append(greedy(weights, ids, LENGTH))
        with torch.no_grad():
            best = model(torch.tensor([ids + found[-1]]))[0, len(ids) - 1 : -1].topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 0.5
    return found


def logprobs(weights: Weights, ids: list[int]) -> torch.Tensor:
    """(T, V): our log-probabilities of what follows each id."""
    with torch.no_grad():
        return torch.log_softmax(model_of(weights)(torch.tensor([ids]))[0], dim=-1)


def test_gptwo_itself_opens_the_folder(folder: Path, expected: list[list[int]]) -> None:
    model = gptwo.load(folder)
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        text = model.generate(prompt, max_tokens=LENGTH, temperature=0)
        assert model.tokenizer.encode(text) == ids and prompt + text in TEXT * 2


def test_transformers_gives_our_ids_and_greedy_text(
    folder: Path, weights: Weights, expected: list[list[int]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.eos_token_id == weights.tokenizer.eot == model.config.eos_token_id
    for text in TEXTS:
        ids = weights.tokenizer.encode(text)
        assert tokenizer.encode(text) == ids and tokenizer.decode(ids) == text
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        found = model.generate(**inputs, do_sample=False, max_new_tokens=LENGTH)[0].tolist()
        assert found[len(inputs["input_ids"][0]) :] == ids


@pytest.fixture(scope="module")
def harness(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", batch_size=2)


def test_lm_eval_gives_our_scores(folder: Path, harness: HFLM) -> None:
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(PAIRS)]
    found = harness.loglikelihood(requests, disable_tqdm=True)
    ours = gptwo.load(folder).score(PAIRS)
    np.testing.assert_allclose([score for score, _ in found], ours, rtol=0, atol=1e-4)
    assert [greedy for _, greedy in found[:2]] == [True, False]


def test_lm_eval_gives_our_rolling_scores(folder: Path, harness: HFLM) -> None:
    texts = [TEXT, TEXT * 3]  # several windows of the 64 ids the model sees
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    found = harness.loglikelihood_rolling(requests, disable_tqdm=True)
    model = gptwo.load(folder)
    for text, score in zip(texts, found, strict=True):
        ids = model.tokenizer.encode(text)
        ours = model._scorer().rolling(ids, prefix=model.tokenizer.eot)
        assert len(ids) > 64 and score == pytest.approx(ours.sum(), abs=1e-4)


def test_lm_eval_evaluates_a_task_of_our_pairs(folder: Path, tmp_path: Path) -> None:
    """What `lm_eval --model hf --model_args pretrained=DIR` runs, on a local task."""
    rows = [{"context": context, "continuation": after} for context, after in PAIRS[:2]]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task: Any = {
        "task": "pairs",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path)},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{continuation}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
    }
    alone = TaskManager(include_defaults=False)  # not to read the harness's thousands of tasks
    found = simple_evaluate(
        "hf",
        f"pretrained={folder}",
        tasks=[task],
        task_manager=alone,
        device="cpu",
        bootstrap_iters=0,
    )
    scores = found["results"]["pairs"]
    assert scores["acc,none"] == 0.5
    ours = np.exp(-np.mean(gptwo.load(folder).score(PAIRS[:2])))
    assert scores["perplexity,none"] == pytest.approx(ours, rel=1e-4)


def test_ctranslate2_gives_our_greedy_text_and_scores(
    folder: Path, weights: Weights, expected: list[list[int]], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    TransformersConverter(str(folder)).convert(str(tmp_path / "ct2"))
    model = ctranslate2.Generator(str(tmp_path / "ct2"), intra_threads=1, compute_type="float32")
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        tokens = tokenizer.tokenize(prompt)
        found = model.generate_batch(
            [tokens], max_length=LENGTH, sampling_topk=1, include_prompt_in_result=False
        )
        assert found[0].sequences_ids[0][:LENGTH] == ids
    ids = weights.tokenizer.encode(TEXT)[:64]
    scored = model.score_batch([tokenizer.convert_ids_to_tokens(ids)])[0].log_probs
    ours = logprobs(weights, ids[:-1])[range(63), ids[1:]]
    np.testing.assert_allclose(scored, ours, rtol=0, atol=1e-4)


def test_onnxruntime_decodes_our_greedy_text_with_its_cache(
    folder: Path, weights: Weights, expected: list[list[int]], tmp_path: Path
) -> None:
    convert(folder, tmp_path / "onnx", to="onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with_past, plain = (
        onnxruntime.InferenceSession(tmp_path / "onnx" / name, options)
        for name in ("model.onnx", "model_without_past.onnx")
    )
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        assert onnx_greedy(with_past, tokenizer.encode(prompt)) == ids
        whole = np.array([tokenizer.encode(prompt) + ids])
        logits = torch.from_numpy(plain.run(None, {"input_ids": whole})[0][0])
        ours = logprobs(weights, whole[0].tolist())
        np.testing.assert_allclose(torch.log_softmax(logits, -1), ours, rtol=0, atol=1e-5)


def onnx_greedy(session: onnxruntime.InferenceSession, prompt: list[int]) -> list[int]:
    """As a program would that knows the graph by its names alone."""
    cache = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_key_values")
    }
    new, found = prompt, []
    while len(found) < LENGTH:
        end = len(prompt) + len(found)
        inputs = {
            "input_ids": np.array([new]),
            "position_ids": np.arange(end - len(new), end)[None],
            "attention_mask": np.ones((1, end), np.int64),
        }
        logits, *present = session.run(None, inputs | cache)
        cache = dict(zip(cache, present, strict=True))
        new = [int(logits[0, -1].argmax())]
        found += new
    return found


# Rounding of the weights, and llama.cpp's own: it keeps GELU in a table of half precision and, with
# q8_0, rounds activations too.
LLAMA = {"f32": 0.005, "f16": 0.02, "q8_0": 0.4}


@pytest.fixture(scope="module", params=LLAMA)
def llama(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, float]]:
    """llama.cpp with one of our files, and how far its log-probabilities may be from ours."""
    import xllamacpp  # late: other tests here need none of it

    out = tmp_path_factory.mktemp("gguf") / request.param
    convert(folder, out, to="gguf", dtype=request.param)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(out / f"model-{request.param}.gguf")
    settings.n_ctx, settings.n_parallel, settings.verbosity, settings.warmup = 64, 1, -1, False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    yield xllamacpp.Server(settings), LLAMA[request.param]


def test_llama_cpp_gives_our_greedy_text_and_logits(
    llama: tuple[Any, float], weights: Weights, expected: list[list[int]]
) -> None:
    server, tolerance = llama
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        request = {"prompt": prompt, "max_tokens": LENGTH, "temperature": 0.0, "logprobs": 400}
        steps = server.handle_completions(request)["choices"][0]["logprobs"]["content"]
        assert [step["id"] for step in steps] == ids
        start = weights.tokenizer.encode(prompt)
        ours = logprobs(weights, start + ids[:-1])[len(start) - 1 :]
        theirs = torch.full_like(ours, torch.nan)
        for row, step in zip(theirs, steps, strict=True):
            for token in step["top_logprobs"]:  # all 400
                row[token["id"]] = token["logprob"]
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance)


def test_llama_cpp_gives_our_ids(llama: tuple[Any, float], weights: Weights) -> None:
    server, _ = llama
    for text in [*TEXTS, "a<|endoftext|>b"]:
        body = json.dumps({"content": text, "parse_special": False, "add_special": True}).encode()
        address = f"{server.listening_address}/tokenize"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["tokens"] == weights.tokenizer.encode(text)
