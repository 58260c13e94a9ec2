"""Which format a file or folder is, told by what lies in it."""

from pathlib import Path

from gptwo.errors import ModelError
from gptwo.formats import llmc, pickles
from gptwo.model.weights import CONFIG, resolve, what_is

HEAD_BYTES = 4096
READABLE = (
    "a Hugging Face folder (config.json with model.safetensors or pytorch_model.bin), nanoGPT's "
    "ckpt.pt, llm.c's .bin, OpenAI's TensorFlow checkpoint, minGPT's JSON, or a run of gptwo"
)


def locate(path: Path) -> tuple[str, Path]:
    """(format, what its reader takes: the folder, or the one file of it that counts)."""
    if not path.exists():
        raise ModelError(f"{path} does not exist", remedy="name a model file or folder")
    return _in_folder(path) if path.is_dir() else _file(path)


def recognise(path: Path) -> str:
    """The format of a file or folder: a key of `convert.READERS`. Raises ModelError."""
    return locate(path)[0]


def _in_folder(folder: Path) -> tuple[str, Path]:
    if any(folder.glob("*.ckpt.index")):
        return "openai", folder
    if (folder / CONFIG).exists():
        weights = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]
        pickled = not weights and any(folder.glob("pytorch_model*.bin"))
        return ("pytorch" if pickled else "hf"), folder
    if any(folder.glob("checkpoints/step-*")):
        return "hf", resolve(folder)
    names = [*folder.glob("*.pt"), *folder.glob("*.bin"), *folder.glob("*.json")]
    found = [(kind, path) for path in sorted(names) if (kind := _kind(path))]
    if len(found) != 1:
        several = f"several models ({', '.join(path.name for _, path in found)})"
        raise ModelError(
            f"{folder} holds {several if found else 'no model of a known format'}",
            remedy=f"name one file, or {READABLE}",
        )
    return found[0]


def _file(path: Path) -> tuple[str, Path]:
    folder = path.parent
    beside = (folder / CONFIG).exists()
    if path.name.startswith("pytorch_model") and beside:
        return "pytorch", folder
    if path.name.endswith(".ckpt.index"):
        return "openai", folder
    kind = _kind(path)
    if kind:
        return kind, path
    what = what_is(path)
    if what == "a safetensors file" and beside:
        return "hf", folder
    lone = f" without a {CONFIG} beside it" if what == "a safetensors file" else ""
    raise ModelError(
        f"{path} ({path.stat().st_size:,} bytes) is {what}{lone}", remedy=f"name {READABLE}"
    )


def _kind(path: Path) -> str | None:
    """The format of a single file that is a whole model, by its first bytes."""
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head.startswith(pickles.STARTS):
        return "nanogpt"
    if head[:4] == llmc.MAGIC.to_bytes(4, "little"):
        return "llmc"
    # minGPT's JSON may be long: what it begins with, "config", is enough to know it.
    begun = head.lstrip()[:1] == b"{" and head.lstrip()[1:].lstrip().startswith(b'"config"')
    return "mingpt" if begun else None
