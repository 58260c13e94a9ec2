"""Settings of the tokens room."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How a vocabulary is learned."""

    vocab_size: int = 50257  # 256 bytes + merges + <|endoftext|>
    ties: str = "printable"  # which of equally frequent pairs merges first; "greatest" otherwise

    def __post_init__(self) -> None:
        if self.vocab_size < 257:
            raise ValueError(f"vocab_size must be at least 257, found {self.vocab_size}")
        if self.ties not in ("printable", "greatest"):
            raise ValueError(f"ties must be 'printable' or 'greatest', found {self.ties!r}")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How documents become shards."""

    shard_tokens: int = 100_000_000  # a shard is closed at the first document past this

    def __post_init__(self) -> None:
        if self.shard_tokens < 1:
            raise ValueError(f"shard_tokens must be at least 1, found {self.shard_tokens}")
