"""The shapes of GPT-2 and of GPT-1, and the named sizes."""

from dataclasses import dataclass

CHOICES = {
    "activation": ("gelu_new", "gelu"),
    "residual_scale": ("2L", "L", "none"),
}


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The shape of the model and how it starts (paper section 2.3)."""

    vocab_size: int = 50257
    n_ctx: int = 1024  # longest sequence, rows of wpe
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768  # channels
    dropout: float = 0.0  # on embeddings, attention weights and both residual branches
    wpe_std: float = 0.01  # as in the released code; wte and all matrices use 0.02
    residual_scale: str = "2L"  # c_proj starts at 0.02 / sqrt(N): N is 2 n_layer, n_layer or 1
    activation: str = "gelu_new"  # the tanh form, as released; "gelu" is the exact one, by erf
    tied_head: bool = True  # wte is the output head too; False: a head of its own, lm_head

    def __post_init__(self) -> None:
        _check_shape(self)
        if self.wpe_std < 0:
            raise ValueError(f"wpe_std must not be negative, found {self.wpe_std}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, "
                    f"found {getattr(self, name)!r}"
                )

    def parameters(self) -> int:
        """Exact count: V C + n_ctx C + L (12 C^2 + 13 C) + 2 C, and V C for a head of its own."""
        C = self.n_embd
        rows = self.vocab_size * (1 if self.tied_head else 2) + self.n_ctx + 2
        return rows * C + self.n_layer * (12 * C * C + 13 * C)


@dataclass(frozen=True, kw_only=True)
class GPT1Config:
    """The shape of GPT-1; the defaults are the published one (Radford et al. 2018, section 4.1)."""

    vocab_size: int = 40478
    n_ctx: int = 512
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.1  # on embeddings, attention weights and both residual branches

    def __post_init__(self) -> None:
        _check_shape(self)

    def parameters(self) -> int:
        """Exact count: V C + n_ctx C + L (12 C^2 + 13 C); there is no last normalisation."""
        C = self.n_embd
        return (self.vocab_size + self.n_ctx) * C + self.n_layer * (12 * C * C + 13 * C)


def _check_shape(config: GPT2Config | GPT1Config) -> None:
    for name in ("vocab_size", "n_ctx", "n_layer", "n_head", "n_embd"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, found {getattr(config, name)}")
    if config.n_embd % config.n_head:
        raise ValueError(f"n_embd {config.n_embd} is not a multiple of n_head {config.n_head}")
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), found {config.dropout}")


# The four of the paper (table 2), and a ladder for processors: learned vocabularies are smaller
# there, so parameter counts follow the vocabulary. Head width is 32 below the released sizes.
SIZES: dict[str, GPT2Config] = {
    "femto": GPT2Config(n_layer=2, n_head=2, n_embd=64, n_ctx=256),
    "nano": GPT2Config(n_layer=3, n_head=4, n_embd=128, n_ctx=256),
    "micro": GPT2Config(n_layer=4, n_head=6, n_embd=192, n_ctx=256),
    "mini": GPT2Config(n_layer=6, n_head=8, n_embd=256, n_ctx=256),
    "tiny": GPT2Config(n_layer=8, n_head=12, n_embd=384, n_ctx=512),
    "base": GPT2Config(n_layer=8, n_head=16, n_embd=512, n_ctx=512),
    "small": GPT2Config(n_layer=12, n_head=12, n_embd=768),
    "medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024),
    "large": GPT2Config(n_layer=36, n_head=20, n_embd=1280),
    "xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600),
}
