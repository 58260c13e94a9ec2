"""`gptwo verify`: hashes, shapes, numbers, and golden outputs made here by transformers."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from gptwo import language_model, verify
from gptwo.artifacts import read_json, stage, write_json
from gptwo.cli import main
from gptwo.errors import DataError, ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import load_model, save_checkpoint_model
from gptwo.progress import SILENT
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.verify import OUTPUTS, PROMPTS, check_golden, outputs_of, read_golden

MERGES = [(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b"a", b"t")]
SHAPE = GPT2Config(vocab_size=261, n_ctx=24, n_layer=3, n_head=4, n_embd=32)
PROMPTS_HERE = ["the cat sat", "at the hat", "a dog", "he that hath", "Data, the"]


def model_folder(folder: Path, shape: GPT2Config = SHAPE) -> Path:
    """Random weights, large enough that scores and logits reach those of trained models."""
    torch.manual_seed(5)
    model = GPT2(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    save_checkpoint_model(model, folder)
    Tokenizer(MERGES).save(folder)
    return folder


def write_golden(folder: Path, model: Path, activation: str = "gelu_new") -> Path:
    """Golden outputs in the layout of the released model's, computed by transformers alone."""
    peer = GPT2LMHeadModel.from_pretrained(
        model, attn_implementation="eager", activation_function=activation
    ).eval()
    width, heads = peer.config.n_embd, peer.config.n_head
    tokenizer, arrays, prompts = Tokenizer.load(model), {}, []
    for number, prompt in enumerate(PROMPTS_HERE):
        ids = tokenizer.encode(prompt)
        with torch.inference_mode():
            out = peer(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
            logits = out.logits[0, -1, : tokenizer.vocab_size]
            scores = []
            for block, hidden in zip(peer.transformer.h, out.hidden_states, strict=False):
                q, k, _ = block.attn.c_attn(block.ln_1(hidden[0])).split(width, dim=-1)
                q, k = (x.view(len(ids), heads, -1).transpose(0, 1) for x in (q, k))
                scores.append(torch.einsum("htd,hsd->hts", q, k))
        arrays[f"logits_{number}"] = logits.numpy()
        arrays[f"attn_{number}"] = torch.stack(scores).numpy()
        arrays[f"attn_scaled_{number}"] = arrays[f"attn_{number}"] / math.sqrt(width // heads)
        arrays[f"attn_softmax_{number}"] = torch.cat(out.attentions).numpy()
        top = [{"id": int(i), "logit": float(v)} for v, i in zip(*logits.topk(10), strict=True)]
        prompts.append({"prompt": prompt, "token_ids": ids, "top10": top})
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / OUTPUTS, **arrays)
    write_json(folder / PROMPTS, prompts)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("verify") / "model")


@pytest.fixture(scope="module")
def golden(folder: Path) -> Path:
    return write_golden(folder.parent / "gpt2_golden", folder)


def held(model: GPT2, golden: Path) -> dict:
    return check_golden(model, Tokenizer(MERGES), golden, SILENT)


# Golden outputs


def test_a_good_model_passes_with_its_differences(folder: Path, golden: Path) -> None:
    found = held(load_model(folder), golden)
    assert (found["prompts"], found["activation"], found["token_ids"]) == (5, "gelu_new", "equal")
    kinds = [k for k in found if isinstance(found[k], dict)]
    assert len(kinds) == 5
    for kind in kinds:
        assert found[kind]["worst_difference"] < 2e-4 < found[kind]["tolerance"], kind
    assert found["attention_scores"]["worst_difference"] > 0  # another order of sums: not a copy
    scores = np.abs(np.concatenate([one.outputs["attn"].ravel() for one in read_golden(golden)]))
    assert scores.max() > 20 and np.percentile(scores, 50) > 0.5  # it compares something


def test_the_exact_gelu_is_recognised(folder: Path, tmp_path: Path) -> None:
    """The released golden outputs come from an implementation with the exact form."""
    exact = write_golden(tmp_path, folder, "gelu")
    model = load_model(folder)
    assert held(model, exact)["activation"] == "gelu"
    assert model.config.activation == "gelu_new"  # the model itself is as it was
    with pytest.raises(ModelError):  # and is no way around a wrong weight
        broken = load_model(folder)
        with torch.no_grad():
            broken.h[1].mlp.c_fc.weight[3, 7] += 1
        held(broken, exact)


def test_padding_rows_are_not_compared(golden: Path, folder: Path) -> None:
    model = load_model(folder)
    padded = GPT2(GPT2Config(**(SHAPE.__dict__ | {"vocab_size": 304}))).eval()
    weights = model.state_dict()
    weights["wte.weight"] = torch.cat([weights["wte.weight"], torch.full((43, 32), 9.0)])
    padded.load_state_dict(weights)
    assert held(padded, golden)["ten_likeliest_tokens"]["worst_difference"] == 0


def add(name: str, place: tuple[int, ...], value: float) -> Callable[[GPT2], None]:
    def change(model: GPT2) -> None:
        model.get_parameter(name)[place] += value

    return change


def swap_layers(model: GPT2) -> None:
    for one, other in zip(model.h[0].parameters(), model.h[1].parameters(), strict=True):
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


def transpose(name: str) -> Callable[[GPT2], None]:
    def change(model: GPT2) -> None:
        weight = model.get_parameter(name)
        weight.copy_(weight.T.clone())

    return change


def shift_heads(model: GPT2) -> None:
    """The heads of the values in another order: no score of layer 2 changes, but what follows."""
    bias, weight = model.h[2].attn.c_attn.bias, model.h[2].attn.c_attn.weight
    weight[:, 64:] = weight[:, 64:].roll(8, dims=1)
    bias[64:] = bias[64:].roll(8)


def nothing_is_a_number(model: GPT2) -> None:
    model.h[1].attn.c_attn.bias[3] = math.nan


CHANGES: dict[str, tuple[Callable[[GPT2], None], str]] = {
    "one weight of a query": (add("h.1.attn.c_attn.weight", (3, 5), 1), "first .* layer 1 head 0"),
    "one weight of a key": (add("h.2.attn.c_attn.weight", (9, 63), 1), "first .* layer 2 head 3"),
    "one weight of an mlp": (add("h.0.mlp.c_fc.weight", (0, 0), 1), "first .* layer 1 "),
    "one number of a word": (
        add("wte.weight", (Tokenizer(MERGES).encode("a")[0], 0), 1),
        "layer 0",
    ),
    "one position": (add("wpe.weight", (2, 0), 1), "first .* layer 0"),
    "the last normalisation": (add("ln_f.bias", (4,), 0.1), "worst .*logits|logits: "),
    "swapped layers": (swap_layers, "first .* layer 0"),
    "a square map transposed": (transpose("h.0.attn.c_proj.weight"), "first .* layer 1"),
    "the last square map transposed": (transpose("h.2.attn.c_proj.weight"), "logits: "),
    "shifted heads": (shift_heads, "logits: "),
    "not a number": (nothing_is_a_number, "first .* layer 1 .*inf off|inf off.*first .*layer 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_fails_and_the_place_is_named(
    name: str, folder: Path, golden: Path
) -> None:
    model, (change, words) = load_model(folder), CHANGES[name]
    with torch.no_grad():
        change(model)
    with pytest.raises(ModelError, match=f"golden outputs differ: prompt [0-4], .*({words})") as e:
        held(model, golden)
    assert e.value.exit_code == 4 and "allowed; first prompt" in e.value.message


def test_a_small_change_is_found_where_it_is_larger_than_the_tolerance(
    folder: Path, golden: Path
) -> None:
    """Within its tolerance a change passes: golden outputs do not replace hashes."""
    for size, fails in ((1e-4, False), (0.05, True)):
        model = load_model(folder)
        with torch.no_grad():
            model.ln_f.bias[4] += size
        if fails:
            with pytest.raises(ModelError, match=r"logits: .* 0\.01 allowed"):
                held(model, golden)
        else:
            assert held(model, golden)["logits"]["worst_difference"] > 0


def test_other_token_ids_fail(folder: Path, golden: Path) -> None:
    with pytest.raises(ModelError, match="golden prompt 0 'the cat sat'"):
        check_golden(load_model(folder), Tokenizer(MERGES[:-1]), golden, SILENT)


def test_outputs_leave_no_hooks_behind(folder: Path) -> None:
    model = load_model(folder)
    outputs_of(model, [1, 2, 3])
    assert all(not module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="positions"):
        outputs_of(model, [1] * 25)
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("fault", ["prompts", "outputs", "names", "shape", "pickle"])
def test_damaged_golden_outputs_are_no_fault_of_the_model(
    fault: str, folder: Path, golden: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(golden, tmp_path / "golden"))
    if fault == "prompts":
        (copy / PROMPTS).write_text("<html>")
    elif fault == "outputs":
        (copy / OUTPUTS).write_bytes(b"PK\x03\x04" + bytes(99))
    elif fault == "names":
        np.savez(copy / OUTPUTS, logits_0=np.zeros(3))
    elif fault == "shape":
        with np.load(golden / OUTPUTS) as stored:
            np.savez(copy / OUTPUTS, **(dict(stored) | {"attn_2": np.zeros((2, 4, 3, 3))}))
    else:
        np.savez(copy / OUTPUTS, logits_0=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="golden"):
        held(load_model(folder), copy)


def test_the_golden_outputs_of_the_released_model_fit_themselves(data_dir: Path) -> None:
    """Scores, weights and logits of the real file agree with each other and with our tokens."""
    tokenizer = Tokenizer.load(data_dir / "bpe")
    assert tokenizer.fingerprint == verify.GPT2_FINGERPRINT
    golden = read_golden(data_dir / verify.GOLDEN)
    entries = read_json(data_dir / verify.GOLDEN / PROMPTS)
    assert len(golden) == len(entries) == 5
    for one, entry in zip(golden, entries, strict=True):
        T = len(one.ids)
        assert tokenizer.encode(one.prompt) == one.ids
        assert [tokenizer.decode([i]) for i in one.ids] == entry["tokens"]
        out = one.outputs
        assert out["logits"].shape == (50_257,) and out["attn"].shape == (12, 12, T, T)
        assert all(np.isfinite(value).all() for value in out.values())
        assert np.array_equal(out["attn"] / np.float32(8), out["attn_scaled"])
        masked = np.where(np.tri(T, dtype=bool), out["attn_scaled"].astype(np.float64), -np.inf)
        weights = np.exp(masked - masked.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        assert np.abs(weights - out["attn_softmax"]).max() < 1e-6
        logits = out["logits"].astype(np.float64)
        assert np.argsort(-logits)[:10].tolist() == out["top10"].tolist()
        chances = np.exp(logits - logits.max())
        for token in entry["top10"]:
            assert token["logit"] == logits[token["id"]]
            assert token["prob"] == pytest.approx(chances[token["id"]] / chances.sum())


# The whole command


@pytest.fixture
def signed(folder: Path, tmp_path: Path) -> Path:
    """The same model with a manifest."""
    made = tmp_path / "signed"
    with stage(made, kind="checkpoint", config={}, inputs={}) as work:
        for name in ("model.safetensors", "config.json"):
            shutil.copy(folder / name, made / name)
        Tokenizer(MERGES).save(made)
        work.commit(counts={})
    return made


def test_what_is_reported(
    folder: Path, signed: Path, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verify.verify(signed, data=None, reporter=SILENT)
    assert (found["folders"], found["files"]) == (1, 5)
    assert found["golden_outputs"] == "not checked, there are none for this vocabulary and shape"
    model = found["model"]
    assert (model["parameters"], model["n_layer"], model["padding_rows"]) == (
        SHAPE.parameters(),
        3,
        0,
    )
    assert model["released_as"] == "none of the pinned models"
    assert verify.verify(folder, data=None, reporter=SILENT)["hashes"].startswith("no manifest")
    # as if this were the 124M model
    monkeypatch.setattr(verify, "GPT2_FINGERPRINT", Tokenizer(MERGES).fingerprint)
    monkeypatch.setattr(verify, "GPT2Config", lambda: SHAPE)
    found = verify.verify(signed, data=None, reporter=SILENT)
    assert found["golden_outputs"] == "not checked, no data"
    found = verify.verify(signed, data=folder, reporter=SILENT)
    assert found["golden_outputs"] == "not checked, no data"
    found = verify.verify(signed, data=golden.parent, reporter=SILENT)
    assert found["golden_outputs"]["prompts"] == 5


def test_the_command(
    signed: Path, golden: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "GPT2_FINGERPRINT", Tokenizer(MERGES).fingerprint)
    monkeypatch.setattr(verify, "GPT2Config", lambda: SHAPE)
    monkeypatch.setattr("gptwo.progress.Reporter.listen", lambda self: None)
    words = ["verify", str(signed), "--data", str(golden.parent), "--quiet"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["golden_outputs"]["logits"]["tolerance"] == 0.01
    assert main(words) == 0
    assert "worst_difference" in capsys.readouterr().out
    monkeypatch.setattr(verify, "TOLERANCES", dict.fromkeys(verify.TOLERANCES, 1e-12))
    assert main(words) == 4
    assert "golden outputs differ: prompt" in capsys.readouterr().err


def test_numbers_that_are_not_finite(tmp_path: Path, folder: Path) -> None:
    model = load_model(folder)
    with torch.no_grad():
        model.h[2].mlp.c_proj.weight[:2, 1] = torch.tensor([math.inf, math.nan])
    save_checkpoint_model(model, tmp_path / "model")
    Tokenizer(MERGES).save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"h\.2\.mlp\.c_proj\.weight has 2 of 4,096 numbers"):
        verify.verify(tmp_path / "model", data=None, reporter=SILENT)


def test_a_released_model_is_known_by_its_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = verify.verify(folder, data=None, reporter=SILENT)["model"]["weights_sha256"]
    known = language_model.released()
    pin = type(known["gpt2"].files["model.safetensors"])(sha256)
    known["gpt2"].files["model.safetensors"] = pin
    monkeypatch.setattr(language_model, "released", lambda: known)
    found = verify.verify(folder, data=None, reporter=SILENT)
    assert found["model"]["released_as"] == "gpt2"


def test_a_folder_without_a_model_is_held_to_its_hashes(tmp_path: Path) -> None:
    with stage(tmp_path / "out", kind="corpus", config={}, inputs={}) as work:
        (tmp_path / "out" / "config.json").write_text("{}")  # as an ONNX folder has one
        work.commit(counts={})
    found = verify.verify(tmp_path / "out", data=None, reporter=SILENT)
    assert found["files"] == 1 and "model" not in found
    (tmp_path / "out" / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="does not match its SHA-256"):
        verify.verify(tmp_path / "out", data=None, reporter=SILENT)


def test_damage_of_a_model_is_the_models(signed: Path) -> None:
    weights = signed / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.safetensors .* does not match its SHA-256"):
        verify.verify(signed, data=None, reporter=SILENT)


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere does not exist"):
        verify.verify(tmp_path / "nowhere", data=None, reporter=SILENT)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"void holds no manifest\.json"):
        verify.verify(tmp_path / "void", data=None, reporter=SILENT)


def test_scores_are_those_of_the_plain_formula(folder: Path) -> None:
    """q . k of the first layer, by hand: LayerNorm of the embeddings, one map, heads of 8."""
    model, ids = load_model(folder), [5, 70, 9]
    state: dict[str, Tensor] = {k: v.double() for k, v in model.state_dict().items()}
    x = state["wte.weight"][ids] + state["wpe.weight"][:3]
    normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    normal = normal * state["h.0.ln_1.weight"] + state["h.0.ln_1.bias"]
    maps = normal @ state["h.0.attn.c_attn.weight"] + state["h.0.attn.c_attn.bias"]
    found = outputs_of(model, ids)["attn"][0]
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        expected = maps[:, :32][:, part] @ maps[:, 32:64][:, part].T
        assert np.abs(expected.numpy() - found[head]).max() < 1e-4
