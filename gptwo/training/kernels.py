"""Elementwise parts of a step in C (`native/step.c`), over float32 tensors on a processor.

Each is one pass over memory where torch takes several. The plain twin of what they make together
is the model itself; `fast.py` joins them.
"""

from typing import Any

import torch
from torch import Tensor


def kernel() -> Any:
    """The compiled module, or None where it is not built."""
    try:
        from gptwo.native import _step  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _step


def cross_entropy(logits: Tensor, targets: Tensor, *, scale: float, slopes: bool) -> Tensor:
    """Losses (n) of logits (n, V); these become the slopes of scale * loss, or are spoilt.

    An id outside of the vocabulary is an IndexError.
    """
    losses = logits.new_empty(logits.size(0))
    sizes = (*logits.shape, scale, slopes, torch.get_num_threads())
    _check(logits, targets)
    kernel().cross_entropy(_at(logits), _at(targets), _at(losses), *sizes)
    return losses


def norm(
    x: Tensor, branch: Tensor | None, bias: Tensor | None, gain: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x + branch + bias, its layer normalisation, mean and 1 / deviation of each row).

    x and branch (..., C); statistics (N, 2). Without a branch the sum is `x` itself.
    """
    C = x.size(-1)
    _check(x, branch, bias, gain, shift)
    total = x if branch is None else torch.empty_like(x)
    out, stats = torch.empty_like(x), x.new_empty(x.numel() // C, 2)
    arrays = [_at(part) for part in (x, branch, bias, gain, shift, total, out, stats)]
    kernel().norm(*arrays, len(stats), C, eps, torch.get_num_threads())
    return total, out, stats


def norm_back(
    x: Tensor, stats: Tensor, gain: Tensor, slope: Tensor, stream: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes of (x, gain, shift, bias), given those of the normalised and of the sum (`stream`)."""
    C = x.size(-1)
    slope, stream = slope.contiguous(), None if stream is None else stream.contiguous()
    _check(x, stats, gain, slope, stream)
    out, sums = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), 3, C)
    arrays = [_at(part) for part in (x, stats, gain, slope, stream, out, sums)]
    kernel().norm_back(*arrays, len(stats), C, len(sums))
    gain_slope, shift_slope, bias_slope = sums[0].unbind()
    return out, gain_slope, shift_slope, bias_slope


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU(x + bias) in its tanh form; `bias` is added to x (..., C) in place."""
    C = x.size(-1)
    _check(x, bias)
    out = torch.empty_like(x)
    kernel().gelu(_at(x), _at(bias), _at(out), x.numel() // C, C, torch.get_num_threads())
    return out


def gelu_back(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(GELU(x), the slope of what was added to every row); `slope` becomes that of x, in place."""
    C = x.size(-1)
    _check(x, slope)
    out, sums = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), C)
    arrays = [_at(part) for part in (x, slope, out, sums)]
    kernel().gelu_back(*arrays, x.numel() // C, C, len(sums))
    return out, sums[0]


def add_rows(table: Tensor, ids: Tensor, rows: Tensor) -> None:
    """table[ids[i]] += rows[i], in this order. table (V, C), ids (n), rows (n, C)."""
    _check(table, ids, rows)
    arrays = (_at(table), _at(ids), _at(rows))
    kernel().add_rows(*arrays, len(ids), *table.shape, torch.get_num_threads())


def _at(part: Tensor | None) -> int:
    return 0 if part is None else part.data_ptr()


def _check(*parts: Tensor | None) -> None:
    """C reads addresses: what lies there must be what it takes it for."""
    for part in parts:
        if part is not None and not (
            part.dtype in (torch.float32, torch.int64)
            and part.is_contiguous()
            and part.device.type == "cpu"
        ):
            raise TypeError(f"{part.dtype} on {part.device}, strides {part.stride()}")
