"""The optimiser: AdamW for all weights, or Muon for the maps of the blocks and AdamW for the rest.

The paper (section 2.3) names none. `experiments/LOG.md` has how these compare.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.muon import Muon

ADAM_STATE = ("exp_avg", "exp_avg_sq")  # torch's names for Adam's two running means
MUON_STATE = ("momentum",)
TABLES_AT_128 = 7.5  # beside Muon: the rate of embeddings at 128 channels, as a multiple of `lr`


class Optimizer:
    """Moves the weights along their gradients. Its parts are optimisers of torch.

    A part's groups carry `share`: their learning rate is that share of the run's.
    """

    def __init__(self, parts: tuple[torch.optim.Optimizer, ...]) -> None:
        self.parts = parts

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimiser that `config` asks for."""
    if config.optimizer == "adamw":
        return Optimizer((adamw(model, config),))
    matrices = block_matrices(model)
    muon = Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay)
    muon.param_groups[0]["share"] = config.muon_lr / config.lr
    rest = adamw(model, config, without=matrices)
    rest.param_groups[0]["share"] = table_share(model)
    return Optimizer((muon, rest))


def table_share(model: nn.Module) -> float:
    """The rate of embeddings beside Muon, as a multiple of `lr`: in inverse proportion to width.

    A step of AdamW moves each number of a table by about the rate, and a logit is a sum over all
    channels: it moves by as much at every width when the rate falls as the width grows.
    """
    return TABLES_AT_128 * 128 / model.get_parameter("wte.weight").size(1)


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The maps of attention and MLP. Embeddings are tables of vectors, and the head is one too."""
    return [
        weight
        for name, weight in model.named_parameters()
        if name.startswith("h.") and weight.dim() == 2
    ]


def adamw(
    model: nn.Module, config: TrainingConfig, *, without: Iterable[Tensor] = ()
) -> torch.optim.AdamW:
    """AdamW that decays matrices and embeddings, and leaves biases and gains alone."""
    others = set(without)
    weights = [weight for weight in model.parameters() if weight not in others]
    matrices = [weight for weight in weights if weight.dim() >= 2]
    vectors = [weight for weight in weights if weight.dim() < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay, "share": 1.0},
            {"params": vectors, "weight_decay": 0.0, "share": 1.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,  # one pass over memory; the same bits on every run
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for part in optimizer.parts:
        for group in part.param_groups:
            group["lr"] = rate * group["share"]


def clip_gradients(model: nn.Module, most: float) -> float:
    """Scale all gradients so that their L2 norm together is at most `most`.

    Returns the norm they had. The usual step is not clipped: then they are only read.
    """
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    total = nn.utils.get_total_norm(grads)
    norm = total.item()
    if norm > most:
        nn.utils.clip_grads_with_norm_(model.parameters(), most, total)
    return norm


def state_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, under the weights' names: "wte.weight.exp_avg" and so on."""
    return {
        f"{name}.{kind}": part.state[weight][kind]
        for name, weight in model.named_parameters()
        for part in optimizer.parts
        if weight in part.state
        for kind in _kinds(part)
    }


def restore(model: nn.Module, optimizer: Optimizer, saved: Mapping[str, Tensor], step: int) -> None:
    """Give `optimizer` the state it had after `step` updates; a missing name is a KeyError."""
    names = {weight: name for name, weight in model.named_parameters()}
    for part in optimizer.parts:
        for weight in (weight for group in part.param_groups for weight in group["params"]):
            part.state[weight] = {"step": torch.tensor(float(step), device=weight.device)} | {
                kind: saved[f"{names[weight]}.{kind}"].to(weight.device) for kind in _kinds(part)
            }


def _kinds(part: torch.optim.Optimizer) -> tuple[str, ...]:
    return MUON_STATE if isinstance(part, Muon) else ADAM_STATE
