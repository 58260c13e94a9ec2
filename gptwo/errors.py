"""The errors a person sees: one line of what, where and why, one line of remedy, an exit code.

A room raises the class that names whose fault it was; the command line prints it without a
traceback and exits with its code.
"""


class GptwoError(Exception):
    """A failure the user can act on.

    `message` says what was found, what was expected and where; `remedy` what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple:  # worker processes send errors home by pickle
        return _rebuild, (type(self), self.message, self.remedy)


def _rebuild(kind: type[GptwoError], message: str, remedy: str) -> GptwoError:
    return kind(message, remedy=remedy)


class UsageError(GptwoError):
    """A wrong option, setting or combination of them."""

    exit_code = 2


class DataError(GptwoError):
    """Input data, a corpus, a shard or an evaluation file that is not what it should be."""

    exit_code = 3


class ModelError(GptwoError):
    """A model, checkpoint or tokenizer that is damaged, foreign or of another shape."""

    exit_code = 4


class ResourceError(GptwoError):
    """Not enough disk, memory or processes."""

    exit_code = 5


class DivergedError(GptwoError):
    """Training met a loss or a gradient that is not a finite number."""

    exit_code = 6


class NetworkError(GptwoError):
    """The network did not answer, or answered with something else."""

    exit_code = 7


class Interrupted(GptwoError):  # noqa: N818 - a stop, not a failure
    """Stopped on request; the same command continues where this one stopped."""

    exit_code = 75
