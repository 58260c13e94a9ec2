"""How fast this machine can multiply, and what share of that a training step uses."""

import ctypes
import resource
import sys
import time
from contextlib import suppress

import torch

from gptwo.model.sizes import GPT2Config

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def flops_per_token(model: GPT2Config) -> int:
    """Arithmetic of one training step per token: 2 forward and 4 backward per weight used.

    Positions, and an embedding that is not the head too, are only looked up. Attention counts its
    causal half: a token sees n_ctx / 2 others on average, at 4 operations per channel forward and
    twice that backward.
    """
    looked_up = model.n_ctx + (0 if model.tied_head else model.vocab_size)
    used = model.parameters() - looked_up * model.n_embd
    return 6 * used + 6 * model.n_layer * model.n_ctx * model.n_embd


def matrix_rate(device: str, precision: str = "fp32") -> float:
    """Operations per second in a large matrix product, the best of a few. Under 1 s.

    The rate of `precision` is what a step made in it can reach: float32, or bfloat16 for "bf16".
    """
    side = 1024 if device == "cpu" else 8192
    numbers = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b, c = (torch.ones(side, side, device=device, dtype=numbers) for _ in range(3))
    best, ends = 0.0, time.perf_counter() + 0.5
    while not best or time.perf_counter() < ends:
        started = time.perf_counter()
        torch.mm(a, b, out=c)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 2.0 * side**3 / (time.perf_counter() - started))
    return best


def keep_freed_memory() -> None:
    """Ask the C library not to hand freed memory back to the system between steps.

    Every step allocates the same large buffers. By default each is mapped anew and zeroed page by
    page, which takes a fifth of the time of a small model. Does nothing where it is not glibc.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(M_TOP_PAD, 64 << 20)


def peak_memory_mb(device: str) -> int:
    """The most memory held so far: the device's, or the process's own."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20
