"""How text is drawn from a model."""

import math
from dataclasses import dataclass

WHEN_FULL = ("slide", "refuse")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """One continuation. The defaults sample from the model's own distribution."""

    max_tokens: int = 128
    """Length of a continuation, in tokens."""
    temperature: float = 1.0
    """Sharper below 1; 0 takes the most probable token every time."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this much probability."""
    min_p: float = 0.0
    """Keep the tokens at least this probable, as a share of the most probable one's probability."""
    repetition_penalty: float = 1.0
    """Make tokens that occurred less likely: above 1 (Keskar et al. 2019)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token id and what to add to its logit; repeatable."""
    seed: int = 0
    """The same seed gives the same text, alone or beside others."""
    stop: tuple[str, ...] = ()
    """End before this text; repeatable."""
    logprobs: int = 0
    """With --json: log-probabilities of the tokens, and of so many likely ones at each place."""
    when_full: str = "slide"
    """Past the model's context: slide (read the newest half again) or refuse."""
    openai_compat: bool = False
    """The released sampler's rules: nothing ends the text, top_p leaves out the crossing token."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, found {self.max_tokens}")
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, found {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, found {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, found {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p must be between 0 and 1, found {self.min_p}")
        if not 0.0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0, found {self.repetition_penalty}")
        if any(token < 0 or not math.isfinite(bias) for token, bias in self.logit_bias):
            raise ValueError("logit_bias must be of token ids from 0 on, and finite")
        if any(not text for text in self.stop):
            raise ValueError("stop must not be an empty text")
        if self.logprobs < 0:
            raise ValueError(f"logprobs must be 0 or more, found {self.logprobs}")
        if self.when_full not in WHEN_FULL:
            raise ValueError(f"when_full must be one of {', '.join(WHEN_FULL)}")
