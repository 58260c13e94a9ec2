"""Muon: momentum for matrices, made orthogonal (Jordan et al. 2024).

A matrix of gradients has a few large directions and many small ones. Its momentum is replaced by
the nearest matrix whose directions all count the same, found by a few matrix products. Where the
step goes then depends on the direction of the gradient and not on its size.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Factors a, b, c of X <- a X + b (X X^T) X + c (X X^T)^2 X, one row for each turn: the first three
# of Polar Express (Amsel et al. 2025). Singular values from 0.002 to 1 end between 0.18 and 1.87:
# not even, but five turns of Jordan's factors, which end between 0.7 and 1.2, trained no better.
TURNS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
MOMENTUM = 0.95  # of the running mean of gradients
SMALLEST_NORM = 1e-12  # a gradient of zeros stays zeros
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # instructions for products, as torch names them


class Muon(torch.optim.Optimizer):
    """Steps matrices stored [in, out]; maps stored side by side are stepped one by one.

    A step changes a weight by lr sqrt(max(1, out / in)) times a matrix of singular values near 1,
    so that the same `lr` moves a layer's output as much at every width: it serves all sizes.
    """

    def __init__(self, weights: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "share": 1.0}
        super().__init__(list(weights), settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix; those of one shape are made orthogonal together."""
        for group in self.param_groups:
            same = defaultdict[torch.Size, list[tuple[Tensor, Tensor]]](list)
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                update = self._update(weight, weight.grad)
                for part in zip(maps(weight), maps(update), strict=True):
                    same[part[0].shape].append(part)
            for parts in same.values():
                stack = torch.stack([update for _, update in parts])
                directions = orthogonal(stack, quickest_type(stack))
                for (weight, _), direction in zip(parts, directions, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction, alpha=-group["lr"] * scale(weight))

    def _update(self, weight: Tensor, grad: Tensor) -> Tensor:
        """The gradient, led by its running mean (Nesterov's momentum)."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        return grad.lerp(mean, MOMENTUM)


def maps(weight: Tensor) -> tuple[Tensor, ...]:
    """The maps that a weight [in, out] holds: queries, keys and values lie side by side."""
    n_in, n_out = weight.shape
    return weight.split(n_in, dim=1) if n_out == 3 * n_in else (weight,)


def scale(weight: Tensor) -> float:
    """What makes one rate serve maps of all shapes [in, out]."""
    n_in, n_out = weight.shape
    return max(1.0, n_out / n_in) ** 0.5


def quickest_type(matrices: Tensor) -> torch.dtype:
    """In which to make (k, m, n) orthogonal: bfloat16 where its products are quicker.

    That is on a GPU and on processors with instructions for them (twice as fast from 64 rows or
    columns on). The directions are then as exact as they need to be: see `experiments/LOG.md`.
    """
    if matrices.is_cuda:
        return torch.bfloat16
    processor = torch.cpu.get_capabilities()
    quick = matrices.device.type == "cpu" and any(processor.get(name) for name in BFLOAT16)
    return torch.bfloat16 if quick and min(matrices.shape[1:]) >= 64 else matrices.dtype


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """About the nearest orthogonal matrix to each of (k, m, n), by Newton-Schulz in `dtype`."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # (k, m, n), m <= n
    norm = torch.linalg.matrix_norm(x, keepdim=True)  # at least the largest singular value
    x = (x / norm.clamp(min=SMALLEST_NORM)).to(dtype)
    for a, b, c in TURNS:
        square = x @ x.mT  # (k, m, m)
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.to(matrices.dtype)
    return x.mT if tall else x
