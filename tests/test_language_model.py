"""The Python face: one folder in, scores and text out, each checked by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gptwo
from gptwo.artifacts import sha256_file, stage
from gptwo.errors import ModelError, UsageError
from gptwo.language_model import LanguageModel, load
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import save_checkpoint_model
from gptwo.text.config import SampleConfig
from gptwo.text.generate import stream
from gptwo.tokens.tokenizer import Tokenizer

MERGES = [(b" ", b"t"), (b"h", b"e"), (b" t", b"he")]
TEXT = "the cat sat on the mat, and the dog"


def save(folder: Path, padding: int = 0, merges: list[tuple[bytes, bytes]] = MERGES) -> Path:
    """A checkpoint folder with random weights, large enough that scores differ."""
    torch.manual_seed(0)
    vocab_size = 257 + len(MERGES) + padding
    model = GPT2(GPT2Config(vocab_size=vocab_size, n_ctx=16, n_layer=2, n_head=2, n_embd=16))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    save_checkpoint_model(model, folder)
    Tokenizer(merges).save(folder)
    return folder


@pytest.fixture(params=[0, 5], ids=["exact", "padded"])
def loaded(tmp_path: Path, request: pytest.FixtureRequest) -> LanguageModel:
    """Also with rows in the embedding that no token has: they must not count."""
    return load(save(tmp_path / "model", padding=request.param))


def plain_logprobs(
    model: LanguageModel, context: list[int], continuation: list[int]
) -> list[float]:
    with torch.no_grad():
        logits = model.model(torch.tensor([[*context, *continuation[:-1]]]))[0]
    scores = torch.log_softmax(logits[:, : model.tokenizer.vocab_size], dim=-1)
    return [float(scores[len(context) - 1 + i, token]) for i, token in enumerate(continuation)]


def test_scores_are_those_of_the_plain_logits(loaded: LanguageModel) -> None:
    pairs = [("the cat", " sat"), ("the cat", " the"), ("", "the"), ("a", "b")]
    encode = loaded.tokenizer.encode
    expected = [
        sum(plain_logprobs(loaded, encode(a) or [loaded.tokenizer.eot], encode(b)))
        for a, b in pairs
    ]
    found = loaded.score(pairs)
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(set(found)) == 4 and max(found) < 0


def test_the_chances_of_all_tokens_add_up_to_one(loaded: LanguageModel) -> None:
    single = [bytes([byte]).decode() for byte in range(128)]
    chances = sum(math.exp(score) for score in loaded.score([("the", text) for text in single]))
    assert 0 < chances < 1
    logprobs = plain_logprobs(loaded, [5], [7])
    assert loaded.score([("&", "(")]) == pytest.approx(logprobs, abs=1e-4)  # ids 5 and 7


def test_perplexity_by_hand(loaded: LanguageModel) -> None:
    """Windows of 16 that move on by 8: the first scores 16 tokens, each later one its last 8."""
    ids = loaded.tokenizer.encode(TEXT)
    assert 24 < len(ids) <= 32
    tokens = [loaded.tokenizer.eot, *ids]
    found = plain_logprobs(loaded, tokens[:1], tokens[1:17])
    found += plain_logprobs(loaded, tokens[8:17], tokens[17:25])
    found += plain_logprobs(loaded, tokens[max(0, len(tokens) - 17) : 25], tokens[25:])
    assert len(found) == len(ids)
    expected = math.exp(-sum(found) / len(found))
    assert loaded.perplexity(TEXT) == pytest.approx(expected, rel=1e-4)


def test_a_short_text_is_one_window(loaded: LanguageModel) -> None:
    ids = loaded.tokenizer.encode("the cat")
    found = plain_logprobs(loaded, [loaded.tokenizer.eot], ids)
    assert loaded.perplexity("the cat") == pytest.approx(math.exp(-sum(found) / len(ids)), rel=1e-4)


def test_text_is_that_of_the_stream(loaded: LanguageModel) -> None:
    config = SampleConfig(max_tokens=12, temperature=0.5, seed=3, stop=("zz",))
    expected = "".join(stream(loaded.model, loaded.tokenizer, "the", config))
    found = loaded.generate("the", max_tokens=12, temperature=0.5, seed=3, stop=["zz"])
    assert found == expected and found
    assert loaded.generate(max_tokens=5) == "".join(
        stream(loaded.model, loaded.tokenizer, "", SampleConfig(max_tokens=5))
    )


def test_settings_and_texts_that_cannot_be_are_refused(loaded: LanguageModel) -> None:
    with pytest.raises(UsageError, match="unknown setting 'warmth'") as error:
        loaded.generate("the", warmth=1)
    assert "temperature" in error.value.remedy and error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"temperature must be 0 or more, found -1\.0"):
        loaded.generate("the", temperature=-1)
    with pytest.raises(UsageError, match="top_k"):
        loaded.generate("the", top_k="many")
    with pytest.raises(UsageError, match="the prompt has 20 tokens, the model reads 16"):
        loaded.generate("x" * 20)
    with pytest.raises(UsageError, match="a continuation is empty"):
        loaded.score([("the", "")])
    with pytest.raises(UsageError, match="the text is empty"):
        loaded.perplexity("")


def test_it_says_what_it_is(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    loaded = load(folder)
    assert loaded.path == folder
    assert loaded.description["name"] == str(folder)
    assert loaded.description["parameters"] == loaded.model.config.parameters()
    assert loaded.description["weights_sha256"] == sha256_file(folder / "model.safetensors")
    assert loaded.description["tokenizer_fingerprint"] == Tokenizer(MERGES).fingerprint
    assert loaded.description["dtype"] == "float32"
    assert loaded.description["shape"]["n_ctx"] == 16


def test_a_run_opens_at_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        with stage(checkpoint, kind="checkpoint", config={}, inputs={}) as made:
            save(checkpoint)
            made.commit(counts={})
    loaded = gptwo.load(str(tmp_path / "run"))
    assert loaded.path.name == "step-00000002"
    weights = loaded.path / "model.safetensors"
    assert loaded.description["weights_sha256"] == sha256_file(weights)
    assert loaded.description["name"] == str(tmp_path / "run")


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model", merges=[*MERGES, (b"a", b"t")])
    with pytest.raises(ModelError, match="the tokenizer has 261 tokens, the model 260") as error:
        load(tmp_path / "model")
    assert error.value.exit_code == 4


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    folder = save(tmp_path / "model")
    for name in ("vocab.bpe", "tokenizer.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"holds neither vocab\.bpe nor merges\.txt"):
        load(folder)


def test_scores_do_not_depend_on_dropout(tmp_path: Path) -> None:
    """Weights saved with dropout are read in evaluation mode."""
    folder = save(tmp_path / "model")
    calm = load(folder).score([("the", " cat")])
    model = load(folder).model
    shaken = GPT2(replace(model.config, dropout=0.5))
    shaken.load_state_dict(model.state_dict())
    save_checkpoint_model(shaken, tmp_path / "shaken")
    Tokenizer(MERGES).save(tmp_path / "shaken")
    again = load(tmp_path / "shaken")
    assert again.model.config.dropout == 0.5
    assert again.score([("the", " cat")]) == pytest.approx(calm, abs=1e-6)
