"""The loss of a micro-batch, by the quickest way that the settings and the machine allow.

On a processor that is `fast.loss`, whose kernels need no compilation at run time. Elsewhere it is
the module itself: in bfloat16 where asked for, its blocks compiled on a GPU. Logits are never whole
on any way.
"""

import torch
from torch import Tensor

from gptwo.model.gpt2 import GPT2
from gptwo.training import fast
from gptwo.training.config import TrainingConfig


def loss(model: GPT2, ids: Tensor, targets: Tensor, config: TrainingConfig) -> Tensor:
    """`model.loss(ids, targets)`: the mean cross-entropy in nats, float32. Both (B, T) int64."""
    device = ids.device.type
    as_it_is = config.compile == "on" or config.activation_checkpointing  # with what is around it
    if config.precision == "fp32" and not as_it_is and fast.serves(model):
        return fast.loss(model, ids, targets)
    if config.compile == "on" or (config.compile == "auto" and device == "cuda"):
        compile_blocks(model)
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
        return model.loss(ids, targets)


def compile_blocks(model: GPT2) -> None:
    """Have each block compiled at its first call. They share their code: one is compiled, not all.

    Does nothing the second time.
    """
    for block in model.h:
        if block._compiled_call_impl is None:  # torch has no public question for it
            block.compile()
