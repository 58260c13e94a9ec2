"""Settings of a training run.

The paper (section 2.3) leaves most of them open. The defaults are what reached a loss in the least
time in `experiments/LOG.md`; `paper` has what its reproductions settled on.
"""

from dataclasses import dataclass, replace

from gptwo.model.sizes import GPT2Config
from gptwo.training.data.mixture import shares

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "wsd")
PRECISIONS = ("fp32", "bf16")
COMPILE = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Muon and AdamW on batches of `batch_tokens`, a warm-up in a line, a decay in a line to zero.

    `micro_batch` is how many rows of n_ctx tokens go through the model at once; gradients
    accumulate until `batch_tokens` are seen. Intervals are in steps; 0 means never.
    """

    steps: int = 1000
    batch_tokens: int = 2_048
    micro_batch: int = 8
    mix: str = ""  # share of each token folder, such as 0.7,0.3; "": all are one corpus
    precision: str = "fp32"  # of products; "bf16": bfloat16, with weights and sums in float32
    compile: str = "auto"  # by torch.compile: on a GPU; processors have kernels that need none
    optimizer: str = "muon"  # for the maps of the blocks, AdamW for the rest; or "adamw" for all
    lr: float = 4e-3  # of AdamW at the end of the warm-up; see optim.table_share for embeddings
    muon_lr: float = 0.02  # of Muon, likewise
    schedule: str = "wsd"  # the rate stays, then falls in a line; or "cosine"
    decay_ratio: float = 1.0  # of wsd: share of the steps after the warm-up in which it falls
    lr_final_ratio: float = 0.0  # of the peak, reached at the end
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1  # matrices and embeddings only
    clip: float = 1.0  # largest L2 norm of all gradients together
    validation_interval: int = 100
    validation_tokens: int = 32_768
    checkpoint_interval: int = 200
    keep_checkpoints: int = 2
    sharding: str = ""  # "fsdp": each process keeps its part of the weights, not all of them
    activation_checkpointing: bool = False  # memory for arithmetic: blocks run once more backward
    skip_limit: int = 3  # steps in a row that may go wrong before the weights are rolled back
    spike_zscore: float = 6.0  # standard deviations above its running mean: a spike
    skip_spikes: bool = False  # a spike is always told; True: and its step is not applied
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "micro_batch", "keep_checkpoints"):
            _require(getattr(self, name) >= 1, name, "at least 1")
        if self.mix:
            shares(self.mix)
        for name in ("warmup_steps", "validation_interval", "checkpoint_interval"):
            _require(getattr(self, name) >= 0, name, "0 or more")
        _require(self.precision in PRECISIONS, "precision", " or ".join(PRECISIONS))
        _require(self.compile in COMPILE, "compile", "auto, on or off")
        _require(self.optimizer in OPTIMIZERS, "optimizer", " or ".join(OPTIMIZERS))
        _require(self.schedule in SCHEDULES, "schedule", " or ".join(SCHEDULES))
        _require(0 < self.decay_ratio <= 1, "decay_ratio", "above 0 and at most 1")
        for name in ("lr", "muon_lr"):
            _require(0 < getattr(self, name) <= 1, name, "above 0 and at most 1")
        _require(0 < self.clip < float("inf"), "clip", "a positive number")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        _require(self.sharding in ("", "fsdp"), "sharding", "empty or fsdp")
        _require(0 <= self.lr_final_ratio <= 1, "lr_final_ratio", "from 0 to 1")
        _require(0 <= self.weight_decay < float("inf"), "weight_decay", "0 or more")
        _require(self.skip_limit >= 0, "skip_limit", "0 or more")
        _require(0 < self.spike_zscore < float("inf"), "spike_zscore", "a positive number")
        _require(self.validation_tokens >= 1, "validation_tokens", "at least 1")
        _require(0 <= self.seed < 2**32, "seed", "from 0 to 2^32 - 1")


def paper(config: TrainingConfig, lr: float) -> TrainingConfig:
    """`config` as the paper's reproductions have it: AdamW, a cosine from `lr` to a tenth."""
    return replace(config, optimizer="adamw", schedule="cosine", lr=lr, lr_final_ratio=0.1)


def rate_for(model: GPT2Config) -> float:
    """Peak rate: 6e-4 at 124M parameters, as the reproductions use, more for smaller models."""
    return float(f"{6e-4 * (124e6 / model.parameters()) ** 0.35:.1e}")


def _require(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}")
