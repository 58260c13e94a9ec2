"""Settings of zero-shot evaluation: the choices that move a number, and how much to run."""

from dataclasses import dataclass

MODES = ("paper", "harness")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How the zero-shot tasks are run.

    `mode` "paper" asks as the paper does, "harness" as lm-evaluation-harness, which has some of the
    tasks. `window` and `stride` are in tokens, 0 meaning the model's context and the window;
    `limit` keeps the first so many examples of a task (passages, questions, lines of a text,
    documents per split), 0 all of them.
    """

    mode: str = "paper"
    limit: int = 0
    token_budget: int = 2048  # tokens per forward pass, padding included
    window: int = 0
    stride: int = 0
    eot_prefix: bool = True  # <|endoftext|> before running texts and whole sentences
    questions: int = 200  # made from the test split for each built-in task
    documents: int = 50  # sampled from each split for held-out perplexity
    seed: int = 0  # of the built-in questions, the document sample and the bootstrap
    resamples: int = 1000  # of the bootstrap

    def __post_init__(self) -> None:
        for name in ("limit", "window", "stride", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("token_budget", "questions", "documents", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.window and self.stride > self.window:
            raise ValueError("stride must not exceed window")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}")
