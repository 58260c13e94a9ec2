"""Packages that count a published score; only some tasks need them."""

import importlib
from typing import Any

from gptwo.errors import DataError


def extra(module: str, package: str) -> Any:
    """The module of an installed package; its absence is told before the task begins."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"this task is scored by the package {package}, which is not installed",
            remedy="pip install 'gptwo[eval]'",
        ) from error
