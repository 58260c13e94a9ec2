"""Released models: from the public hub into a cache, by pinned revision and SHA-256.

Nothing is trusted on first use: `released.json` says how every file must hash, and where a hash is
not known the name is not there. A download is a stage like any other: partial files survive a kill,
the manifest makes the folder count, and a folder that counts is used without any request.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from gptwo.artifacts import MANIFEST, damage, read_manifest, stage
from gptwo.errors import ModelError
from gptwo.progress import Reporter
from gptwo.web.download import PATIENCE, Download, Patience, Pin, Purpose, client

HUB = "https://huggingface.co"
KIND = "released"
MODEL = Purpose(
    error=ModelError,
    mirror=", for a mirror HF_ENDPOINT",
    instead="name a folder with the model",
    room="set GPTWO_CACHE to a folder on another disk",
)


@dataclass(frozen=True)
class Released:
    """The files of one model, at one revision of its repository on the hub."""

    name: str
    repository: str
    revision: str
    files: dict[str, Pin]


def released() -> dict[str, Released]:
    """The models whose hashes are pinned, by name."""
    known = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
    return {
        name: Released(
            name,
            model["repository"],
            model["revision"],
            {file: Pin(**pin) for file, pin in model["files"].items()},
        )
        for name, model in known.items()
    }


def cache_folder(model: Released) -> Path:
    """$GPTWO_CACHE/NAME/REVISION, or the same under ~/.cache/gptwo."""
    root = os.environ.get("GPTWO_CACHE", "") or Path.home() / ".cache" / "gptwo"
    return Path(root).expanduser() / model.name / model.revision


def fetch_released(model: Released, reporter: Reporter, patience: Patience = PATIENCE) -> Path:
    """The folder of a released model, downloaded unless it is there.

    The hub is $HF_ENDPOINT or huggingface.co; proxies are those of the environment. Raises
    NetworkError where there is no answer, ModelError where the answer is something else,
    ResourceError where the disk is too small.
    """
    folder = cache_folder(model)
    if not (folder / MANIFEST).exists():
        hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
        reporter.say(f"{model.name}: downloading from {hub} into {folder}")
        plan = {
            "repository": model.repository,
            "revision": model.revision,
            "files": {name: pin.sha256 for name, pin in model.files.items()},
        }
        with stage(folder, kind=KIND, config=plan, inputs={}) as made:
            if made.done is None:
                with client(patience) as connection:
                    for name, pin in model.files.items():
                        url = f"{hub}/{model.repository}/resolve/{model.revision}/{name}"
                        part = made.work / f"{name}.part"
                        download = Download(connection, url, part, pin, MODEL)
                        download.finish(folder / name, reporter, patience)
                made.commit(counts={"files": len(model.files)})
    check_released(folder, model)
    return folder


def check_released(folder: Path, model: Released) -> None:
    """Hold the manifest of a cached model to the pins, and its files to the manifest's sizes."""
    manifest = read_manifest(folder, error=ModelError)
    found = {name: entry["sha256"] for name, entry in manifest.files.items()}
    problems = [
        f"{folder / name} is recorded with SHA-256 {found.get(name, 'missing')}, not {pin.sha256}"
        for name, pin in model.files.items()
        if found.get(name) != pin.sha256
    ]
    problems += damage(folder, manifest, hashes=False)
    if problems:
        raise ModelError(
            problems[0], remedy=f"delete {folder} and run the command again to download it anew"
        )
