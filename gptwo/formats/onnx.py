"""ONNX: the graph that onnxruntime and the tools built on it run.

Two graphs over one file of weights, so that both together take the disk of one:

    model.onnx               with a cache, under the names Optimum gives to everything:
                             input_ids (B, T), attention_mask (B, S), position_ids (B, T),
                             past_key_values.N.{key,value} (B, H, P, D)
                             -> logits (B, T, V), present.N.{key,value} (B, H, S, D)
    model_without_past.onnx  input_ids (B, T) -> logits (B, T, V)
    model.onnx_data          the tensors of both; it has to lie beside them

Axes as in the model file, and P the positions in the cache, which may be none; S = P + T.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

from gptwo import __version__
from gptwo.artifacts import atomic_write, write_json
from gptwo.formats.weights import Weights
from gptwo.model.gpt2 import LAYER_NORM_EPSILON
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import CONFIG, HEAD, hf_config

WITH_PAST, PLAIN, DATA = "model.onnx", "model_without_past.onnx", "model.onnx_data"
OPSET, IR_VERSION = 20, 9  # the first with GELU as a node
PAGE = 4096  # a tensor starts on a page, so that readers can map the file
HIDE = float(np.finfo(np.float32).min)  # finite: a row of padding sees nothing and must not be NaN
B, T, P = "batch_size", "sequence_length", "past_sequence_length"
S = f"{P} + {T}"


def write(weights: Weights, out: Path, dtype: str) -> list[str]:
    """Write both graphs, their tensors and config.json into the folder `out`."""
    with atomic_write(out / DATA) as handle:
        tensors = list(_write_tensors(weights.tensors, handle))
    for name, with_past in ((WITH_PAST, True), (PLAIN, False)):
        model = helper.make_model(
            _graph(weights.config, tensors, with_past=with_past),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="gptwo",
            producer_version=__version__,
        )
        with atomic_write(out / name) as handle:
            handle.write(model.SerializeToString())
    write_json(out / CONFIG, hf_config(weights.config))
    return []


def _write_tensors(tensors: dict[str, Tensor], handle: IO[bytes]) -> Iterator[TensorProto]:
    """Write each tensor's bytes; yield what a graph says about where they are."""
    for name, tensor in tensors.items():
        handle.seek(-handle.tell() % PAGE, 1)
        place = {"location": DATA, "offset": handle.tell(), "length": tensor.nbytes}
        handle.write(np.ascontiguousarray(tensor.numpy(), "<f4").data)
        yield TensorProto(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=tensor.shape,
            data_location=TensorProto.EXTERNAL,
            external_data=[{"key": key, "value": str(value)} for key, value in place.items()],
        )


class _Nodes:
    """A graph being laid down. Each method adds to it and returns the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        result = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], result, **attributes))
        return result

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def input(self, name: str, shape: list[str | int], kind: int = TensorProto.INT64) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, shape: list[str | int]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def size(self, x: str, axis: int) -> str:
        return self.op("Squeeze", self.op("Shape", x, start=axis, end=axis + 1))

    def split_heads(self, x: str, heads: int) -> str:
        """(B, T, C) -> (B, H, T, D)"""
        shape = self.constant([0, 0, heads, -1])  # 0 keeps an axis
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def layer_norm(self, x: str, layer: str) -> str:
        inputs = x, f"{layer}.weight", f"{layer}.bias"
        return self.op("LayerNormalization", *inputs, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def affine(self, x: str, layer: str) -> str:
        """Conv1D: its weight is [in, out] already."""
        return self.op("Add", self.op("MatMul", x, f"{layer}.weight"), f"{layer}.bias")


def _graph(config: GPT2Config, tensors: list[TensorProto], *, with_past: bool) -> GraphProto:
    """The model from top to bottom, as in the model file."""
    nodes = _Nodes()
    ids = nodes.input("input_ids", [B, T])
    nodes.output("logits", [B, T, config.vocab_size])
    positions, hide = _cached_positions(nodes, config) if with_past else _positions(nodes)
    x = nodes.op(
        "Add",
        nodes.op("Gather", "wte.weight", ids),
        nodes.op("Gather", "wpe.weight", positions),
    )  # (B, T, C)
    for layer in range(config.n_layer):
        x = _block(nodes, config, layer, x, hide, with_past=with_past)
    head = "wte.weight" if config.tied_head else HEAD
    out = nodes.layer_norm(x, "ln_f"), nodes.op("Transpose", head, perm=[1, 0])
    nodes.op("MatMul", *out, name="logits")
    return helper.make_graph(
        nodes.nodes, "gpt2", nodes.inputs, nodes.outputs, [*nodes.constants, *tensors]
    )


def _positions(nodes: _Nodes) -> tuple[str, str]:
    """Positions (T) from 0 and what is added to scores (T, T) to hide the future."""
    zero, one = nodes.constant(0), nodes.constant(1)
    positions = nodes.op("Range", zero, nodes.size("input_ids", axis=1), one)
    return positions, _hide(nodes, _causal(nodes, positions, positions))


def _cached_positions(nodes: _Nodes, config: GPT2Config) -> tuple[str, str]:
    """Positions (B, T) as given and what is added to scores (B, 1, T, S) to hide the future and
    what the attention mask leaves out. Declares the inputs that the cache adds."""
    mask = nodes.input("attention_mask", [B, S])
    positions = nodes.input("position_ids", [B, T])
    cached = [B, config.n_head, P, config.n_embd // config.n_head]
    for layer in range(config.n_layer):
        for part in ("key", "value"):
            nodes.input(f"past_key_values.{layer}.{part}", cached, TensorProto.FLOAT)
    zero, one = nodes.constant(0), nodes.constant(1)
    past = nodes.size("past_key_values.0.key", axis=2)
    end = nodes.op("Add", past, nodes.size("input_ids", axis=1))
    queries, keys = nodes.op("Range", past, end, one), nodes.op("Range", zero, end, one)
    mask = nodes.op("Unsqueeze", mask, nodes.constant([1, 2]))  # (B, 1, 1, S)
    mask = nodes.op("Cast", mask, to=TensorProto.BOOL)
    return positions, _hide(nodes, nodes.op("And", mask, _causal(nodes, queries, keys)))


def _causal(nodes: _Nodes, queries: str, keys: str) -> str:
    """Positions (T) and (S) -> (T, S), true where a query may look."""
    queries = nodes.op("Unsqueeze", queries, nodes.constant([1]))
    return nodes.op("LessOrEqual", keys, queries)


def _hide(nodes: _Nodes, seen: str) -> str:
    return nodes.op("Where", seen, nodes.constant(0, np.float32), nodes.constant(HIDE, np.float32))


def _block(
    nodes: _Nodes, config: GPT2Config, layer: int, x: str, hide: str, *, with_past: bool
) -> str:
    """One layer: attention, then the two maps with a GELU between them."""
    h = f"h.{layer}"
    c_attn = nodes.affine(nodes.layer_norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn")
    qkv = f"{h}.q", f"{h}.k", f"{h}.v"
    nodes.nodes.append(helper.make_node("Split", [c_attn], qkv, axis=2, num_outputs=3))
    q, k, v = (nodes.split_heads(part, config.n_head) for part in qkv)
    if with_past:
        k, v = _extend(nodes, config, layer, k, v)
    mixed = _attention(nodes, config, q, k, v, hide)
    x = nodes.op("Add", x, nodes.affine(mixed, f"{h}.attn.c_proj"))
    c_fc = nodes.affine(nodes.layer_norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
    form = "tanh" if config.activation == "gelu_new" else "none"
    gelu = nodes.op("Gelu", c_fc, approximate=form)
    return nodes.op("Add", x, nodes.affine(gelu, f"{h}.mlp.c_proj"))


def _attention(nodes: _Nodes, config: GPT2Config, q: str, k: str, v: str, hide: str) -> str:
    """Queries (B, H, T, D), keys and values (B, H, S, D) -> (B, T, C)"""
    scale = nodes.constant((config.n_embd // config.n_head) ** -0.5, np.float32)
    scores = nodes.op("MatMul", q, nodes.op("Transpose", k, perm=[0, 1, 3, 2]))  # (B, H, T, S)
    scores = nodes.op("Add", nodes.op("Mul", scores, scale), hide)
    mixed = nodes.op("MatMul", nodes.op("Softmax", scores, axis=-1), v)
    mixed = nodes.op("Transpose", mixed, perm=[0, 2, 1, 3])  # (B, T, H, D)
    return nodes.op("Reshape", mixed, nodes.constant([0, 0, config.n_embd]))


def _extend(nodes: _Nodes, config: GPT2Config, layer: int, *new: str) -> list[str]:
    """New keys and values (B, H, T, D) joined to the cached ones -> (B, H, S, D)"""
    names = []
    for part, value in zip(("key", "value"), new, strict=True):
        name, past = f"present.{layer}.{part}", f"past_key_values.{layer}.{part}"
        nodes.output(name, [B, config.n_head, S, config.n_embd // config.n_head])
        names.append(nodes.op("Concat", past, value, name=name, axis=2))
    return names
