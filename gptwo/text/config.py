"""How text is drawn from a model."""

from dataclasses import dataclass


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
    seed: int = 0
    """The same seed gives the same text."""
    stop: tuple[str, ...] = ()
    """End before this text; repeatable."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, found {self.max_tokens}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, found {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, found {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, found {self.top_p}")
        if any(not text for text in self.stop):
            raise ValueError("stop must not be an empty text")
