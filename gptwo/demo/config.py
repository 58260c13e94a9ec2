"""Settings of the demo web."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How large the demo web is."""

    pages: int = 0  # articles; 0 for all the packaged prose gives
    seed: int = 1787

    def __post_init__(self) -> None:
        if self.pages and self.pages < 40:
            raise ValueError(f"pages must be 0 (all) or at least 40, found {self.pages}")
