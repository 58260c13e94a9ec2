"""Packages that only some formats need."""

from collections.abc import Iterator
from contextlib import contextmanager

from gptwo.errors import UsageError


@contextmanager
def extra_for(what: str) -> Iterator[None]:
    """Around an import: a package that is not installed is a UsageError that names it."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{what} needs {error.name}, which is not installed",
            remedy="pip install 'gptwo[formats]'",
        ) from error
