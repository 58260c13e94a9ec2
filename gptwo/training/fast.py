"""The model's loss on a processor in half the memory and two thirds of the time, to the same maths.

`GPT2.loss` is what is computed; here is how, where the step's kernels are built:

    a branch's bias, its sum with the stream, and the next normalisation are one pass;
    GELU's output is not kept: backward makes it again in the pass that makes its slope;
    a chunk's softmax, its loss and the slope of its logits are one pass over the cache;
    the gradient of the input embedding is added, row by row, to that of the output head;
    nothing of the size of the vocabulary is filled with zeros, scaled or copied.

Products of matrices and attention are torch's. Gradients arrive through autograd as from the
module, so what is around a model (hooks of parameters, accumulation) works as with it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptwo.model.gpt2 import GPT2, Attention, Block
from gptwo.model.sizes import GPT2Config
from gptwo.training import kernels

CHUNK_LOGITS = 1 << 25  # numbers held at once: 128 MB. Every chunk reads all of the head, twice


def knows(config: GPT2Config) -> bool:
    """Is this way built, and made for such models? It has no dropout and no exact GELU."""
    built = kernels.kernel() is not None
    return built and config.dropout == 0.0 and config.activation == "gelu_new"


def serves(model: GPT2) -> bool:
    """Is this way made for this model, as it lies in memory?"""
    return knows(model.config) and all(
        type(weight) is torch.nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        for weight in model.parameters()
    )


def loss(model: GPT2, ids: Tensor, targets: Tensor) -> Tensor:
    """`model.loss(ids, targets)`, both (B, T) int64; for a model that `serves` accepts."""
    C, positions = model.config.n_embd, ids.size(1)
    if positions > model.config.n_ctx:
        raise ValueError(f"{positions} positions, but the model has {model.config.n_ctx} (n_ctx)")
    ids, targets = ids.contiguous(), targets.contiguous()
    x, wte = _Embed.apply(model.wte.weight, model.wpe.weight, ids)  # (B T, C)
    branch = bias = None
    for block in model.h:
        assert isinstance(block, Block)
        x, y = _Norm.apply(x, branch, bias, block.ln_1.weight, block.ln_1.bias, block.ln_1.eps)
        branch, bias = _attend(block.attn, y, ids.shape), block.attn.c_proj.bias
        x, y = _Norm.apply(x, branch, bias, block.ln_2.weight, block.ln_2.bias, block.ln_2.eps)
        mlp = block.mlp
        branch = _MLP.apply(y, mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight)
        bias = mlp.c_proj.bias
    ln_f = model.ln_f
    _, y = _Norm.apply(x, branch, bias, ln_f.weight, ln_f.bias, ln_f.eps)
    head = wte if model.config.tied_head else model.lm_head.weight
    return _Entropy.apply(y.view(-1, C), head, targets.view(-1))


def _attend(attention: Attention, y: Tensor, batch: torch.Size) -> Tensor:
    """Attention without the bias of its last map. (B T, C) -> (B T, C); `batch` is (B, T)."""
    B, T = batch
    C, H = y.size(1), attention.n_head
    joint = torch.addmm(attention.c_attn.bias, y, attention.c_attn.weight)  # (B T, 3 C)
    q, k, v = (
        part.view(B, T, H, C // H).transpose(1, 2)  # (B, H, T, D)
        for part in joint.split(C, dim=1)
    )
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).reshape(B * T, C) @ attention.c_proj.weight


class _Embed(torch.autograd.Function):
    """The stream's start, and the table of token vectors once more for the output head.

    Handing the table on makes the head's gradient pass through here on its way back.
    """

    @staticmethod
    def forward(ctx: Any, wte: Tensor, wpe: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.set_materialize_grads(False)
        ctx.tables = wte.shape, wpe.shape
        x = wte[ids] + wpe[: ids.size(1)]  # (B, T, C)
        return x.view(-1, wte.size(1)), wte.view_as(wte)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, head = slopes
        (ids,) = ctx.saved_tensors
        tokens, positions = ctx.tables
        if head is None:  # a head of its own
            head = x.new_zeros(tokens)
        x = x.contiguous()
        kernels.add_rows(head, ids.view(-1), x)  # in place: the head's slope has no other reader
        places = x.new_zeros(positions)
        torch.sum(x.view(*ids.shape, -1), dim=0, out=places[: ids.size(1)])
        return head, places, None


class _Norm(torch.autograd.Function):
    """(x + branch + bias, its layer normalisation)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        bias: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor]:
        total, out, stats = kernels.norm(x, branch, bias, gain, shift, epsilon)
        ctx.set_materialize_grads(False)
        ctx.branched = branch is not None
        ctx.save_for_backward(total, stats, gain)
        return total.view_as(total) if branch is None else total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        stream, normalised = slopes
        total, stats, gain = ctx.saved_tensors
        x, gain, shift, bias = kernels.norm_back(total, stats, gain, normalised, stream)
        branch = (x, bias) if ctx.branched else (None, None)
        return x, *branch, gain, shift, None


class _MLP(torch.autograd.Function):
    """c_proj(GELU(c_fc(y))) without the last bias."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, w_in: Tensor, bias: Tensor, w_out: Tensor) -> Tensor:
        inner = y @ w_in  # (N, 4 C)
        active = kernels.gelu(inner, bias)
        ctx.save_for_backward(y, inner, w_in, w_out)
        return active @ w_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        y, inner, w_in, w_out = ctx.saved_tensors
        slope = slopes[0] @ w_out.t()  # (N, 4 C)
        active, bias = kernels.gelu_back(inner, slope)
        return slope @ w_in.t(), y.t() @ slope, bias, active.t() @ slopes[0]


class _Entropy(torch.autograd.Function):
    """Mean cross-entropy of the logits hidden weight^T, a chunk of rows at a time.

    As `model.loss.linear_cross_entropy`: both slopes are made in the forward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        wants = ctx.needs_input_grad[0]
        N, V = hidden.size(0), weight.size(0)
        chunks = -(-N * V // CHUNK_LOGITS)
        rows = max(-(-N // chunks), 1)
        logits = hidden.new_empty(rows, V)
        to_hidden = torch.empty_like(hidden) if wants else None
        to_weight = torch.empty_like(weight) if wants else None
        total = hidden.new_zeros((), dtype=torch.float64)
        for start in range(0, N, rows):
            h, t = hidden[start : start + rows], targets[start : start + rows]
            chunk = logits[: len(h)]
            torch.mm(h, weight.t(), out=chunk)
            losses = kernels.cross_entropy(chunk, t, scale=1 / N, slopes=wants)
            total += losses.sum(dtype=torch.float64)
            if to_hidden is None or to_weight is None:
                continue
            torch.mm(chunk, weight, out=to_hidden[start : start + rows])
            torch.addmm(to_weight, chunk.t(), h, beta=float(start > 0), out=to_weight)
        ctx.save_for_backward(to_hidden, to_weight)
        return (total / N).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        to_hidden, to_weight = ctx.saved_tensors
        if slopes[0] != 1.0:  # a step of one micro-batch needs no scaling
            to_hidden, to_weight = to_hidden * slopes[0], to_weight.mul_(slopes[0])
        return to_hidden, to_weight, None
