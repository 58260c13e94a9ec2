"""The steps of the arrow: what each owns in the run folder, depends on, and calls.

Rooms are imported when their step runs, so that a finished run costs nothing to look at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwo.artifacts import digest, fingerprint_inputs, read_json, read_manifest, write_json
from gptwo.config import from_dict, to_dict
from gptwo.errors import DataError
from gptwo.progress import Reporter
from gptwo.recipes import Recipe

RUN = "run.json"


@dataclass(frozen=True)
class Stage:
    """One step of the arrow.

    `parts` are the files and folders it owns in the run folder, `may_have` those it does not always
    make; `settings` what its result depends on besides the stages named in `after`.
    """

    name: str
    parts: tuple[str, ...]
    after: tuple[str, ...]
    settings: Callable[["Run"], Any]
    make: Callable[["Run"], str]  # returns the fingerprint of what it made
    wanted: Callable[[Recipe], bool] = lambda recipe: True
    may_have: tuple[str, ...] = ()


class Run:
    """A run folder: its recipe, the state of each stage, and who reports progress."""

    def __init__(self, folder: Path, recipe: Recipe, reporter: Reporter) -> None:
        self.folder, self.recipe, self.reporter = folder, recipe, reporter
        path = folder / RUN
        self.state: dict[str, Any] = read_json(path) if path.exists() else {"stages": {}}
        known = self.state.get("stages") if isinstance(self.state, dict) else None
        if not isinstance(known, dict) or not all(isinstance(e, dict) for e in known.values()):
            raise DataError(
                f"{path} is not the record of a run",
                remedy="restore it, or delete it to make every stage anew",
            )

    def path(self, name: str) -> Path:
        return self.folder / name

    def fingerprint(self, stage: str) -> str:
        return self.state["stages"].get(stage, {}).get("fingerprint", "")

    def record(self, stage: str, **entry: Any) -> None:
        """Merge `entry` into the stage's line of run.json."""
        self.state["stages"].setdefault(stage, {}).update(entry)
        self.save()

    def save(self) -> None:
        write_json(self.folder / RUN, self.state)


def _make_demoweb(run: Run) -> str:
    from gptwo.demo.web import build_demo_web

    assert run.recipe.demo is not None
    return build_demo_web(run.path("demoweb"), run.recipe.demo, run.reporter).fingerprint


def _link_files(run: Run) -> list[Path]:
    own = [run.path("demoweb/links.jsonl")] if run.recipe.demo else []
    return own + [Path(name) for name in run.recipe.link_files]


def _make_links(run: Run) -> str:
    from gptwo.web.links import collect_links

    return collect_links(
        _link_files(run), run.path("links"), run.recipe.links, run.reporter
    ).fingerprint


def _make_pages(run: Run) -> str:
    from gptwo.web.crawl import crawl

    with _demo_server(run) as address:
        return crawl(
            run.path("links"),
            run.path("pages"),
            run.recipe.crawl,
            run.reporter,
            connect_to=address,
        ).fingerprint


@contextmanager
def _demo_server(run: Run) -> Iterator[str]:
    if run.recipe.demo is None:
        yield ""
        return
    from gptwo.demo.server import serve_demo_web

    with serve_demo_web(run.path("demoweb")) as address:
        yield address


def _make_corpus(run: Run) -> str:
    from gptwo.corpus.build import build_corpus

    own = [run.path("pages")] if run.path("pages").exists() else []
    sources = own + [Path(name) for name in run.recipe.sources]
    return build_corpus(
        sources, run.path("corpus"), run.recipe.corpus, reporter=run.reporter
    ).fingerprint


def _make_tokenizer(run: Run) -> str:
    from gptwo.tokens.learn import import_tokenizer, train_tokenizer

    out = run.path("tokenizer")
    if run.recipe.vocabulary:
        return import_tokenizer(Path(run.recipe.vocabulary), out, run.reporter).fingerprint
    return train_tokenizer(run.path("corpus"), out, run.recipe.tokenizer, run.reporter).fingerprint


def _make_tokens(run: Run) -> str:
    from gptwo.tokens.pack import pack

    return pack(
        run.path("corpus"), run.path("tokenizer"), run.path("tokens"), run.recipe.pack, run.reporter
    ).fingerprint


def _training_settings(run: Run) -> dict[str, Any]:
    """Both configs and the time; under a budget, the choice made once for these tokens."""
    budget = run.state["budget"]
    if not budget:
        return {"model": to_dict(run.recipe.model), "training": to_dict(run.recipe.training)}
    asked = digest({"budget": budget, "tokens": run.fingerprint("tokens")})
    choice = run.state.get("choice")
    if not choice or choice["asked"] != asked:
        from gptwo.training.budgets.budget import choose
        from gptwo.world import here

        tokens = read_manifest(run.path("tokens"))
        made = choose(
            budget["seconds"],
            tokens.details["vocab_size"],
            tokens.counts["train"]["tokens"],
            here(),
            run.reporter,
            size=budget["size"],
            settings=tuple(budget["settings"]),
        )
        settings = {"model": to_dict(made.model), "training": to_dict(made.training)}
        choice = {
            "asked": asked,
            "size": made.size,
            "sentence": made.sentence,
            "measured": made.measured,
            "settings": {**settings, "seconds": made.seconds},
        }
        run.state["choice"] = choice
        run.save()
    settings = choice["settings"]
    run.state["recipe"] |= {  # what is really done
        "size": choice["size"],
        **{part: settings[part] for part in ("model", "training")},
    }
    return settings


def _make_training(run: Run) -> str:
    from gptwo.model.sizes import GPT2Config
    from gptwo.text.watch import sampler
    from gptwo.training.config import TrainingConfig
    from gptwo.training.loop import train
    from gptwo.training.run import Sitting

    settings = _training_settings(run)
    checkpoint = train(
        from_dict(TrainingConfig, settings["training"]),
        from_dict(GPT2Config, settings["model"]),
        tokens=run.path("tokens"),
        tokenizer=run.path("tokenizer"),
        out=run.folder,
        sitting=Sitting(
            seconds=settings.get("seconds", 0.0),
            at_validation=sampler(run.path("tokenizer"), run.folder, run.recipe.prompts[:1]),
        ),
        reporter=run.reporter,
    )
    return read_manifest(checkpoint).fingerprint


def _make_scores(run: Run) -> str:
    from gptwo.language_model import load
    from gptwo.zeroshot.run import evaluate

    results = evaluate(
        load(run.folder),
        list(run.recipe.tasks),
        out=run.path("scores"),
        data=Path(run.recipe.data) if run.recipe.data else None,
        corpus=run.path("corpus"),
        config=run.recipe.evaluation,
        reporter=run.reporter,
    )
    return digest({name: result.metrics for name, result in results.items()})


def _make_samples(run: Run) -> str:
    from gptwo.language_model import load
    from gptwo.text.samples import write_samples

    model = load(run.folder)
    return write_samples(
        model.model,
        model.tokenizer,
        list(run.recipe.prompts),
        run.path("samples"),
        run.recipe.sampling,
        n=run.recipe.samples,
        inputs={"training": run.fingerprint("training")},
        reporter=run.reporter,
    ).fingerprint


def _make_report(run: Run) -> str:
    from gptwo.artifacts import sha256_file
    from gptwo.report.page import write_report

    return sha256_file(write_report(run.folder, reporter=run.reporter))


def _crawls(recipe: Recipe) -> bool:
    return bool(recipe.demo or recipe.link_files)


STAGES = (
    Stage(
        "demoweb",
        ("demoweb",),
        (),
        lambda run: to_dict(run.recipe.demo),
        _make_demoweb,
        lambda recipe: recipe.demo is not None,
    ),
    Stage(
        "links",
        ("links",),
        ("demoweb",),
        lambda run: {
            "links": to_dict(run.recipe.links),
            "files": fingerprint_inputs([Path(name) for name in run.recipe.link_files]),
        },
        _make_links,
        _crawls,
    ),
    Stage(
        "pages",
        ("pages",),
        ("demoweb", "links"),
        lambda run: to_dict(run.recipe.crawl),
        _make_pages,
        _crawls,
    ),
    Stage(
        "corpus",
        ("corpus",),
        ("pages",),
        lambda run: {
            "corpus": to_dict(run.recipe.corpus),
            "sources": fingerprint_inputs([Path(name) for name in run.recipe.sources]),
        },
        _make_corpus,
    ),
    Stage(
        "tokenizer",
        ("tokenizer",),
        ("corpus",),
        lambda run: {
            "tokenizer": to_dict(run.recipe.tokenizer),
            "vocabulary": run.recipe.vocabulary
            and fingerprint_inputs([Path(run.recipe.vocabulary)]),
        },
        _make_tokenizer,
    ),
    Stage(
        "tokens",
        ("tokens",),
        ("corpus", "tokenizer"),
        lambda run: to_dict(run.recipe.pack),
        _make_tokens,
    ),
    Stage(
        "training",
        ("checkpoints", "metrics.jsonl", "timings.jsonl", "training.json"),
        ("tokens", "tokenizer"),
        _training_settings,
        _make_training,
        may_have=("samples.jsonl", "pace.json"),
    ),
    Stage(
        "scores",
        ("scores",),
        ("training", "corpus"),
        lambda run: {
            "tasks": run.recipe.tasks,
            "data": run.recipe.data and fingerprint_inputs([Path(run.recipe.data) / "eval"]),
            "evaluation": to_dict(run.recipe.evaluation),
        },
        _make_scores,
    ),
    Stage(
        "samples",
        ("samples",),
        ("training",),
        lambda run: {
            "sampling": to_dict(run.recipe.sampling),
            "prompts": run.recipe.prompts,
            "n": run.recipe.samples,
        },
        _make_samples,
    ),
    Stage(
        "report",
        ("report.html",),
        ("links", "pages", "corpus", "tokenizer", "tokens", "training", "scores", "samples"),
        lambda run: None,
        _make_report,
    ),
)
