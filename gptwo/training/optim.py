"""The optimiser: AdamW.

The paper (section 2.3) names neither; these are what its reproductions settled on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gptwo.training.config import TrainingConfig

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names for Adam's two running means


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and embeddings, and leaves biases and gains alone."""
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,  # one pass over memory; the same bits on every run
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's running means under the parameters' names: "wte.weight.exp_avg" and so on."""
    return {
        f"{name}.{kind}": optimizer.state[weight][kind]
        for name, weight in model.named_parameters()
        for kind in MOMENTS
        if weight in optimizer.state
    }


def restore_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor], step: int
) -> None:
    """Give `optimizer` the state it had after `step` updates; a missing name is a KeyError."""
    for name, weight in model.named_parameters():
        optimizer.state[weight] = {"step": torch.tensor(float(step), device=weight.device)} | {
            kind: saved[f"{name}.{kind}"].to(weight.device) for kind in MOMENTS
        }
