"""Whole configurations of the arrow, one function each.

`size` is the one dial; everything else is a setting (`--set training.lr=3e-4`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gptwo.config import with_settings
from gptwo.corpus.config import CorpusConfig
from gptwo.demo.config import DemoConfig
from gptwo.errors import UsageError
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.text.config import SampleConfig
from gptwo.tokens.config import PackConfig, TokenizerConfig
from gptwo.training.config import TrainingConfig, paper, rate_for
from gptwo.web.config import CrawlConfig, LinksConfig
from gptwo.zeroshot.config import EvalConfig

BUILT_IN_TASKS = ("heldout", "cloze", "lastword")
PAPER_TASKS = ("lambada", "wikitext2", "ptb", "wsc273")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The resolved settings of one run, from web to report."""

    name: str
    size: str
    model: GPT2Config
    training: TrainingConfig
    demo: DemoConfig | None = None  # serve and crawl the demo web
    link_files: tuple[str, ...] = ()  # Reddit dumps, URL lists to crawl
    sources: tuple[str, ...] = ()  # pages and texts that are already here
    data: str = ""  # folder of evaluation sets (eval/lambada/...)
    vocabulary: str = ""  # folder with encoder.json and vocab.bpe; empty: learn one
    links: LinksConfig = LinksConfig()
    crawl: CrawlConfig = CrawlConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pack: PackConfig = PackConfig()
    tasks: tuple[str, ...] = BUILT_IN_TASKS
    evaluation: EvalConfig = EvalConfig()
    sampling: SampleConfig = SampleConfig(max_tokens=160, temperature=0.8, top_k=40)
    prompts: tuple[str, ...] = ("", "The")
    samples: int = 2  # continuations per prompt


def demo() -> Recipe:
    """The embedded default: a synthetic web of real prose, crawled over loopback.

    In five minutes on two cores the smallest size learns most, because it reads most: measured in
    docs/results.md.
    """
    return Recipe(
        name="demo",
        size="femto",
        model=SIZES["femto"],
        training=TrainingConfig(
            steps=2_400,
            batch_tokens=4_096,
            micro_batch=16,
            validation_interval=200,
            checkpoint_interval=400,
        ),
        demo=DemoConfig(),
        links=LinksConfig(),
        crawl=CrawlConfig(allow_private=True, host_delay_seconds=0.0, page_seconds=4.0, retries=1),
        tokenizer=TokenizerConfig(vocab_size=4096),
        prompts=("", "The state of the Union", "Our relations with foreign powers"),
    )


def laptop() -> Recipe:
    """A model of your own texts on two cores in under an hour."""
    return Recipe(
        name="laptop",
        size="nano",
        model=SIZES["nano"],
        training=TrainingConfig(
            steps=6_000,
            batch_tokens=4_096,
            warmup_steps=200,
            validation_interval=300,
            checkpoint_interval=500,
        ),
        tokenizer=TokenizerConfig(vocab_size=8192),
        prompts=("", "It was", "The government said"),
    )


def small() -> Recipe:
    """GPT-2 124M in the paper's shape and batch."""
    return _released("small", lr=6e-4)


def medium() -> Recipe:
    """GPT-2 355M."""
    return _released("medium", lr=3e-4)


def large() -> Recipe:
    """GPT-2 774M."""
    return _released("large", lr=2.5e-4)


def xl() -> Recipe:
    """GPT-2 1558M."""
    return _released("xl", lr=2e-4)


def _released(size: str, lr: float) -> Recipe:
    """The paper's shape and batch of 512 x 1024 tokens (section 2.3), for 10 billion tokens.

    The paper publishes neither rates nor steps: rates are those of GPT-3 at these sizes (Brown et
    al. 2020, table 2.1), warm-up and decay those of the open reproductions.
    """
    return Recipe(
        name=size,
        size=size,
        model=SIZES[size],
        training=paper(
            TrainingConfig(
                steps=19_073,
                batch_tokens=512 * 1024,
                warmup_steps=700,
                validation_interval=250,
                validation_tokens=1 << 20,
                checkpoint_interval=1_000,
            ),
            lr=lr,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "laptop": laptop,
    "small": small,
    "medium": medium,
    "large": large,
    "xl": xl,
}


def recipe(name: str) -> Recipe:
    """The recipe called `name`; an unknown one is a `UsageError`."""
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}", remedy=f"recipes are: {', '.join(RECIPES)}")
    return RECIPES[name]()


def with_size(base: Recipe, size: str) -> Recipe:
    """`base` with another model size."""
    return replace(base, size=size, model=model_of_size(size))


def assemble(
    name: str,
    sources: tuple[Path, ...],
    links: tuple[Path, ...],
    data: Path | None,
    size: str,
    settings: tuple[str, ...],
) -> Recipe:
    """The recipe of a command line: its inputs, then the size, then single settings."""
    resolved = recipe(name)
    if sources or links:
        resolved = replace(
            resolved,
            sources=tuple(str(path) for path in sources),
            link_files=tuple(str(path) for path in links),
        )
    if data:
        tasks = tuple(dict.fromkeys(resolved.tasks + PAPER_TASKS))
        resolved = replace(resolved, data=str(data), tasks=tasks)
    if size:
        resolved = with_size(resolved, size)
    return with_settings(resolved, settings)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Time for training. Size and settings named beside it are kept, the rest is chosen."""

    seconds: float
    size: str = ""
    settings: tuple[str, ...] = ()  # those of model and training, "training.lr=3e-4"


@dataclass(frozen=True, kw_only=True)
class ModelAndTraining:
    """What `gptwo train` resolves."""

    model: GPT2Config
    training: TrainingConfig = TrainingConfig()


def training_of(recipe: str, model: GPT2Config) -> TrainingConfig:
    """`gptwo train`'s settings before any is named: "fast", or the "paper"'s reproductions'."""
    if recipe == "fast":
        return TrainingConfig()
    return paper(TrainingConfig(), lr=rate_for(model))


def model_of_size(size: str) -> GPT2Config:
    """The shape called `size`; an unknown one is a `UsageError`."""
    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}", remedy=f"sizes are: {', '.join(SIZES)}")
    return SIZES[size]
