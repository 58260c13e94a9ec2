"""Cross-entropy over a large vocabulary without holding the logits of a whole batch.

The logits of a batch are by far its largest tensor. Here they exist for a few hundred positions at
a time: each chunk's loss and gradient are computed together, in the forward pass, and the chunk is
dropped. Backward only scales what is already there.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 1 << 24  # numbers held at once: 64 MB in float32. Every chunk reads all of the head
GPU_CHUNKS = 16  # times as many fill a GPU


def plain_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The readable twin of `linear_cross_entropy`: all logits at once."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log softmax(hidden weight^T)[target], in nats.

    hidden (N, C), weight (V, C), targets (N). Differentiable once in hidden and weight. Under
    autocast products are made in its number type; sums, and the slope of `weight`, are not.
    """
    wants = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(hidden, weight, targets, wants)  # type: ignore[no-any-return]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, wants: bool) -> Tensor:
        N, V = hidden.size(0), weight.size(0)
        step = max(64, CHUNK_LOGITS * (GPU_CHUNKS if hidden.is_cuda else 1) // V)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wants else None
        grad_weight = torch.zeros_like(weight) if wants else None
        factors = _product_type(hidden)
        head = weight.to(factors)
        for start in range(0, N, step):
            h, t = hidden[start : start + step].to(factors), targets[start : start + step]
            logits = (h @ head.t()).float()  # (n, V)
            log_sum = torch.logsumexp(logits, dim=1)  # (n)
            picked = logits.gather(1, t[:, None])[:, 0]  # (n)
            total += (log_sum - picked).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            logits.sub_(log_sum[:, None]).exp_()  # now the probabilities
            logits.scatter_add_(1, t[:, None], torch.full_like(log_sum[:, None], -1.0))
            slope = logits.to(factors)  # d loss / d logits, times N
            grad_hidden[start : start + step] = slope @ head
            if factors == grad_weight.dtype:
                grad_weight.addmm_(slope.t(), h)
            else:
                grad_weight += slope.t() @ h
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.count = N
        return total / N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = slopes[0] / ctx.count
        return grad_hidden * factor, grad_weight * factor, None, None


def _product_type(x: Tensor) -> torch.dtype:
    """In what numbers products with `x` are made."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
