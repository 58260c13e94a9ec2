"""Guards: who may import whom, public names, size budgets, help against docs."""

import ast
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gptwo
from gptwo.doctor import KERNELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gptwo"
LEAVES = {
    "errors",
    "records",
    "artifacts",
    "lock",
    "progress",
    "config",
    "world",
    "streams",
    "urls",
    "pool",
    "cluster",
}
CONFIGS = {
    f"{room}.config" for room in ("web", "corpus", "tokens", "training", "text", "zeroshot", "demo")
}
# room -> what of ours it may import, besides itself
ALLOWED = {
    **dict.fromkeys(LEAVES, LEAVES),
    "web": LEAVES | {"native"},
    "corpus": LEAVES | {"native"},
    "demo": LEAVES,
    "report": LEAVES,
    "native": set(),
    "tokens": LEAVES | {"native"},
    "model": LEAVES,
    "formats": LEAVES | {"model", "tokens"},
    "text": LEAVES | {"model", "tokens"},
    "training": LEAVES | {"model", "tokens", "native"},
    "serve": LEAVES | {"model", "tokens", "text"},
    "zeroshot": LEAVES | {"model", "tokens", "text"},
    "language_model": LEAVES | {"model", "tokens", "text", "zeroshot", "web"},
    "verify": LEAVES | {"model", "tokens", "language_model"},
    "recipes": LEAVES | CONFIGS | {"model.sizes"},
    "doctor": LEAVES | {"model.sizes"},
    "console": LEAVES,
    "stages": None,  # joins all rooms
    "arrow": None,
    "overlap": None,
    "cli": None,
    "__init__": None,
}
ONLY_FOR = {
    "cli": set(),
    "arrow": {"cli"},
    "stages": {"arrow"},
    "overlap": {"cli"},
    "recipes": {"cli", "arrow", "stages", "overlap"},
    "report": {"cli", "stages"},
    "serve": {"cli"},
    "console": {"cli"},
    "doctor": {"cli"},
    "formats": {"cli"},
    "verify": {"cli"},
    "language_model": {"cli", "stages", "verify", "__init__"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Dotted names of ours that a file imports, without the leading `gptwo.`"""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gptwo"):
            home = (node.module or "").removeprefix("gptwo").lstrip(".")
            names += [home] if home else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [a.name.removeprefix("gptwo.") for a in node.names if a.name[:6] == "gptwo."]
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} has no place in the import rules"
    for name in imports(path):
        target = name.split(".")[0]
        if target in (room, "__version__"):
            continue
        allowed = ALLOWED[room]
        assert allowed is None or target in allowed or name in allowed, f"{path} imports {name}"
        assert target not in ONLY_FOR or room in ONLY_FOR[target], f"{path} imports {name}"


def test_the_model_file_needs_torch_alone() -> None:
    assert set(imports(PACKAGE / "model" / "gpt2.py")) == {"model.sizes", "model.loss"}
    assert imports(PACKAGE / "model" / "sizes.py") == imports(PACKAGE / "model" / "loss.py") == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_size_budgets(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    limit = 300 if path.name == "gpt2.py" else 400
    assert text.count("\n") <= limit, f"{path}: over {limit} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            most = 120 if path.name == "loop.py" else 60
            assert lines <= most, f"{path}:{node.lineno} {node.name} has {lines} lines"
            count = len(node.args.args) + len(node.args.posonlyargs) + len(node.args.kwonlyargs)
            count -= bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
            if room_of(path) != "cli":  # a command's parameters are its flags
                assert count <= 8, f"{path}:{node.lineno} {node.name} takes {count} parameters"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_say_what_a_module_is(path: Path) -> None:
    assert path.stem not in ("utils", "util", "common", "helpers", "manager", "base")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and len(docstring) > 10, f"{path} does not say what it is"


def test_public_names() -> None:
    assert gptwo.__all__ == [
        "GPT2",
        "GPT2Config",
        "LanguageModel",
        "Tokenizer",
        "build_corpus",
        "evaluate",
        "load",
        "train",
    ]
    for name in gptwo.__all__:
        assert getattr(gptwo, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        gptwo.nothing_of_ours  # noqa: B018


def test_importing_and_asking_for_help_load_nothing_heavy() -> None:
    code = (
        "import sys, gptwo.cli\n"
        "try: gptwo.cli.main(['--help'])\n"
        "finally: print(sorted({'torch', 'numpy', 'pyarrow', 'duckdb', 'matplotlib', 'pydantic'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


@pytest.mark.skipif(not shutil.which("cc"), reason="without a compiler the plain twins serve")
def test_every_kernel_is_built() -> None:
    """So that no test of a kernel is skipped unseen; doctor knows all of them."""
    sources = {path.stem for path in (PACKAGE / "native").glob("*.c")}
    assert sources == set(KERNELS)
    assert [name for name in KERNELS if not find_spec(f"gptwo.native._{name}")] == []


def test_every_command_is_in_the_readme() -> None:
    from gptwo.cli import app

    commands = [name for name in app if not name.startswith("-")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"`gptwo {name}" not in readme] == []
    assert readme.count("\n") <= 150


def test_the_repo_names_no_place_of_its_makers() -> None:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "*.py", "*.md", "*.toml", "Makefile", "*.html"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "/" + "work/" not in text and "/" + "tmp/w/" not in text, name
