"""Models larger than one device: weights spread over processes, activations computed twice.

Both are laid around the readable model from outside and change no number of what it computes.
FSDP2 leaves each process 1/N of every weight, gradient and moment; a block's weights are gathered
when it runs and dropped again. Activation checkpointing keeps only what enters each block and
runs it once more in the backward pass: about a third more arithmetic for a fraction of the memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from gptwo.model.gpt2 import GPT2
from gptwo.training.config import TrainingConfig
from gptwo.world import World


def spread(model: GPT2, config: TrainingConfig, world: World) -> None:
    """Lay the settings' `activation_checkpointing` and `sharding` around the model, in place.

    All processes hold the same whole model before; sharded, each keeps its part of every weight.
    """
    if config.activation_checkpointing:
        for block in model.h:
            plain = block.forward
            # The random state matters to dropout alone, and saving it costs a copy for each block.
            block.forward = partial(
                checkpoint,
                plain,
                use_reentrant=False,
                preserve_rng_state=model.config.dropout > 0,
            )
    if config.sharding == "fsdp":
        mesh = init_device_mesh(world.device.partition(":")[0], (world.size,))
        for block in model.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "loss")  # it runs the model without calling it


def whole(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """The tensors as one process alone would have them, for the first process.

    All must ask, in the same order. What is gathered lies in the first one's own memory, not on
    its device, and one tensor at a time: no device ever holds all of a model that is spread.
    """
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if world.is_first:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


@contextmanager
def readable(model: GPT2, world: World) -> Iterator[GPT2 | None]:
    """The model for the first process alone to read, None for the others. All must ask.

    A model that is spread is gathered in the first one's own memory.
    """
    if not any(isinstance(weight, DTensor) for weight in model.parameters()):
        yield model if world.is_first else None
        return
    weights = whole(model.state_dict(), world)
    if not world.is_first:
        yield None
        return
    with torch.device("meta"):
        copy = GPT2(model.config)
    copy.load_state_dict(weights, assign=True)
    yield copy.train(model.training)


def parts(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Whole tensors cut as the weights are that they are named after ("wte.weight.exp_avg")."""
    weights = dict(model.named_parameters())
    return {
        name: _part(tensor, weights.get(name.rpartition(".")[0]))
        for name, tensor in tensors.items()
    }


def _part(tensor: Tensor, weight: Any) -> Tensor:
    if not isinstance(weight, DTensor) or tensor.shape != weight.shape:
        return tensor
    return distribute_tensor(
        tensor.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None
    )
