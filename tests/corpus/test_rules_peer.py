"""Rule by rule the same decisions as datatrove, on real documents whose words are split as ours."""

import importlib.util
import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what it imports
]
SHORT_ONLY = {"top-2-gram", "top-3-gram", "top-4-gram"}  # what does not recur counts there
NO_CASE = {"no-stop-words"}  # `The` is none there
SYMBOLS = {"too-few-words", "word-length"}  # a bullet by itself is a word there
NO_EMPTY_LINES = {"ellipsis-lines", "bullet-lines"}  # they are lines there


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    for name in ("datatrove", "spacy"):
        pytest.importorskip(name)
    path = Path(__file__).parents[2] / "benchmarks" / "rules.py"
    spec = importlib.util.spec_from_file_location("rules_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def broken_up(text: str, chance: random.Random) -> str:
    """A text with some lines and stretches again, so that repetition is found at every limit."""
    lines = text.split("\n")
    repeated = chance.choices(lines, k=chance.randrange(1 + len(lines) // 2))
    words = text.split()
    begin = chance.randrange(len(words))
    stretch = " ".join(words[begin : begin + chance.randrange(60)])
    apart = chance.choice(["\n", "\n\n"])
    return apart.join(part for part in [*lines, *repeated, stretch] if part.strip())


def shredded(text: str, chance: random.Random) -> str:
    """A text in short lines with marks, up to where half of them and more have one."""
    words, lines = text.split()[:300], []
    begin, end = chance.choice(["- ", "• ", "# ", ""]), chance.choice(["...", "…", ".", " 4 5", ""])
    often, longest = chance.random() ** 0.3, chance.randrange(2, 9)
    while words:
        size = chance.randrange(1, longest)
        line, words = " ".join(words[:size]), words[size:]
        lines.append(f"{begin}{line}{end}" if chance.random() < often else line)
    return "\n".join(lines)


def test_every_rule_decides_as_datatrove(benchmark: ModuleType, data_dir: Path) -> None:
    chance = random.Random(1)
    kinds = benchmark.news(data_dir), benchmark.books(data_dir), benchmark.manuals(data_dir)
    texts = [text for kind in kinds for text in islice(map(benchmark.cut, kind), 40) if text]
    texts += [change(text, chance) for text in texts for change in (broken_up, shredded)]
    with benchmark.split_as_we_do():
        found = benchmark.agreement(texts)
    assert len(found) == 27
    decided = {name for name, tally in found.items() if tally["both"]}
    assert set(found) - decided <= {"too-many-words", "top-2-gram", "word-length"}
    for name, tally in found.items():
        ours, theirs, long = (tally[f"only_{who}"] for who in ("ours", "theirs", "theirs_long"))
        assert not ours or name in NO_EMPTY_LINES | SYMBOLS, (name, tally)
        assert not long or name in NO_CASE | SYMBOLS, (name, tally)
        assert not theirs or name in SHORT_ONLY | NO_CASE | SYMBOLS, (name, tally)
