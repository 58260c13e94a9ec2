"""Checkpoints are written beside the training: a step is copied, then a thread puts it on the disk.

Between two steps all tensors are copied; from then on training goes on and the thread hashes,
writes, syncs and renames the copy, by the same function that writes without a thread. One is under
way at most. The copy is one more of weights and optimiser state in memory (the host's, pinned, when
training on a device), and stays for the next; where there is no room for it, training waits while
the tensors themselves are written.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwo.model.tensor_file import TensorFile, bytes_to_copy, copied
from gptwo.training.checkpoints import checkpoint
from gptwo.training.checkpoints.checkpoint import State
from gptwo.training.config import TrainingConfig
from gptwo.training.guards.free import bytes_available

SPARE_SHARE = 0.1  # of the free memory, to be left free by a copy


class Writer:
    """What a run commits, and the thread that does. Close it before the folder's lock is given up.

    Of several processes the first one's writes, those of the others do nothing.
    `logs` are files that must be on the disk before a checkpoint counts. An error of the thread is
    raised by the next call of `check`, `wait` or `save`.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainingConfig,
        *,
        tokenizer: Path,
        plan: dict[str, Any],
        logs: tuple[Path, ...] = (),
        writes: bool = True,
    ) -> None:
        self.folder, self.config, self.logs = folder, config, logs
        self.tokenizer, self.plan, self.writes = tokenizer, plan, writes
        self._buffer: Tensor | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self, state: State, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> None:
        """Copy a model's `state_dict` and the optimiser's tensors; commit them in the background.

        They may change as soon as this returns. Waits for the one before, if it is still under way.
        """
        if not self.writes:
            return
        self.wait()
        files = checkpoint.tensor_files(weights, optimizer)
        copies = self._copied(files)
        if copies is None:
            self._write(state, files)
            return
        copy_is_done = _mark(files)
        self._thread = threading.Thread(
            target=self._run, args=(state, copies, copy_is_done), name="checkpoint"
        )
        self._thread.start()

    def commit(
        self, state: State, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> Path:
        """Commit now, without a copy; on the disk when this returns.

        An error of the one under way no longer counts: this one takes its place.
        """
        if not self.writes:
            return self.folder / checkpoint.name_of(state.step)
        with suppress(Exception):
            self.wait()
        return self._write(state, checkpoint.tensor_files(weights, optimizer))

    def check(self) -> None:
        """Raise what went wrong in the background, if it has. Returns at once."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is under way; raise what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Let the one under way end, well or not: whoever leaves has an error of their own."""
        with suppress(Exception):
            self.wait()

    def _copied(self, files: Mapping[str, TensorFile]) -> dict[str, TensorFile] | None:
        """The files with their tensors as they are now, or None for want of memory."""
        size = bytes_to_copy(files)
        if self._buffer is None or len(self._buffer) != size:
            self._buffer = None
            if size > (1 - SPARE_SHARE) * bytes_available("cpu"):
                return None
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=_device(files) != "cpu")
        return copied(files, self._buffer)

    def _run(
        self,
        state: State,
        files: Mapping[str, TensorFile],
        copy_is_done: "torch.cuda.Event | None",
    ) -> None:
        try:
            if copy_is_done is not None:
                copy_is_done.synchronize()
            self._write(state, files)
        except BaseException as error:
            self._error = error  # for the thread that trains

    def _write(self, state: State, files: Mapping[str, TensorFile]) -> Path:
        saved = checkpoint.save(
            self.folder, state, files, tokenizer=self.tokenizer, plan=self.plan, logs=self.logs
        )
        checkpoint.settle(self.folder, self.config)
        return saved


def _device(files: Mapping[str, TensorFile]) -> str:
    return next(t.device.type for file in files.values() for t in file.tensors)


def _mark(files: Mapping[str, TensorFile]) -> "torch.cuda.Event | None":
    """A mark behind the copies in the device's queue.

    The next step is queued behind them too, so that it cannot change what is still to be copied.
    """
    if _device(files) == "cpu":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
