"""docs/commands.md from the help of the commands.

.venv/bin/python scripts/commands.py          writes it
.venv/bin/python scripts/commands.py --check  says whether it is current
"""

import io
import sys
from pathlib import Path

from rich.console import Console

from gptwo.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
RENEW = ".venv/bin/python scripts/commands.py"
WIDTH = 80
HEAD = f"""# Commands

Generated from the commands' own help by `{RENEW}`; do not edit.
What the commands do: [00-reproduce.md](00-reproduce.md) and the pages after it.
Exit codes: [00-reproduce.md](00-reproduce.md#exit-codes).
"""


def names() -> list[str]:
    """The commands, in arrow order."""
    return [name for name in app if not name.startswith("-")]


def help_of(words: list[str]) -> str:
    """What `gptwo WORDS --help` prints, at a fixed width, without colours."""
    printed = io.StringIO()
    console = Console(
        file=printed,
        width=WIDTH,
        force_terminal=False,
        color_system=None,
        legacy_windows=False,
        _environ={},
    )
    app.help_print(words, console=console)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()).strip("\n")


def page() -> str:
    """The whole of docs/commands.md."""
    whole = f"```text\n{help_of([])}\n```\n"
    each = (f"## gptwo {name}\n\n```text\n{help_of([name])}\n```\n" for name in names())
    return "\n".join([HEAD, whole, *each])


def main(words: list[str]) -> int:
    if words == ["--check"]:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print("current" if current else f"docs/commands.md is out of date; run {RENEW}")
        return 0 if current else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
