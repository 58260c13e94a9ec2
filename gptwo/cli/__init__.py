"""The commands, in arrow order. Each parses, calls one function and prints one result."""

import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

from gptwo import __version__
from gptwo.cli.data import corpus, crawl, links, pack, reproduce, tokenizer
from gptwo.cli.models import convert, doctor, evaluate, report, sample, train, verify
from gptwo.cli.overlap import overlap
from gptwo.cli.serving import serve
from gptwo.console import answer
from gptwo.progress import Reporter

app = App(
    name="gptwo",
    version=__version__,
    version_flags=["--version"],
    help="GPT-2 as one system: "
    "web -> corpus -> tokens -> model -> training -> zeroshot -> text.\n\n"
    "`gptwo reproduce demo` runs all of it in minutes on two CPU cores.",
    help_format="markdown",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,
    sort_key=None,
)
COMMANDS = {
    "reproduce": reproduce,
    "links": links,
    "crawl": crawl,
    "corpus": corpus,
    "tokenizer": tokenizer,
    "pack": pack,
    "train": train,
    "eval": evaluate,
    "overlap": overlap,
    "sample": sample,
    "serve": serve,
    "report": report,
    "convert": convert,
    "verify": verify,
    "doctor": doctor,
}
for place, (name, command) in enumerate(COMMANDS.items()):
    app.command(command, name=name, sort_key=place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every failure becomes two lines on stderr and an exit code."""
    if arguments is None:  # a process of its own
        Reporter.listen_early()
    return answer(app, list(sys.argv[1:] if arguments is None else arguments))
