"""GPT-2 as one system: web -> corpus -> tokens -> model -> training -> zeroshot -> text."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptwo.corpus.build import build_corpus
    from gptwo.language_model import LanguageModel, load
    from gptwo.model.gpt2 import GPT2, GPT2Config
    from gptwo.tokens.tokenizer import Tokenizer
    from gptwo.training.loop import train
    from gptwo.zeroshot.run import evaluate

__version__ = "0.1.0"

# Public names and where they live; loaded on first use so that `import gptwo` stays instant.
_HOMES = {
    "GPT2": "gptwo.model.gpt2",
    "GPT2Config": "gptwo.model.gpt2",
    "LanguageModel": "gptwo.language_model",
    "Tokenizer": "gptwo.tokens.tokenizer",
    "build_corpus": "gptwo.corpus.build",
    "evaluate": "gptwo.zeroshot.run",
    "load": "gptwo.language_model",
    "train": "gptwo.training.loop",
}

__all__ = [
    "GPT2",
    "GPT2Config",
    "LanguageModel",
    "Tokenizer",
    "build_corpus",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gptwo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
