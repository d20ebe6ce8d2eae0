"""Checkpoints of processes that each have a part of the parameters: all of them write, at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dlspec.runs.job_state import JobState
from dlspec.training.callbacks.checkpoints import CheckpointSaver, Weights
from dlspec.training.checkpoint.checkpoint_files import Snapshot, delete_old_checkpoints
from dlspec.training.checkpoint.sharded_checkpoint import (
    remove_unused_shards,
    write_gathered_tensors,
    write_sharded_checkpoint,
)
from dlspec.training.state import TrainingState


class ShardedCheckpointSaver(CheckpointSaver):
    """Saves what `CheckpointSaver` saves, and waits for it. Every process has this callback; the first one decides.

    The best and the last weights are gathered, one tensor at a time, and written to one file.
    """

    def _start_writing(self, write: Callable[[], None]) -> None:
        self._writer.run_and_wait(write)

    def _write_checkpoint(self, snapshot: Snapshot) -> None:
        try:
            with self._name_failed_rank():
                write_sharded_checkpoint(self.folder, snapshot, self._metadata, self._group)
        except BaseException:
            self._remove_unused_shards()
            raise

    def _delete_old_checkpoints(self) -> None:
        if self._group.is_writer:
            delete_old_checkpoints(self.folder, self._max_kept)
        self._remove_unused_shards()

    def _remove_unused_shards(self) -> None:
        if self._group.is_writer:
            remove_unused_shards(self.folder)

    def _write_weights(self, path: Path, weights: Weights, texts: Mapping[str, str]) -> None:
        with self._name_failed_rank():
            write_gathered_tensors(path, weights, texts, self._group)

    @contextmanager
    def _name_failed_rank(self) -> Iterator[None]:
        """Turn an error that is due to another process into one that says which process has failed."""
        try:
            yield
        except RuntimeError as error:
            raise self._group.find_failure_elsewhere(error) or error from None

    def close(self, state: TrainingState) -> None:
        # After an error, the processes are not at the same point: nothing can be gathered.
        is_together = state.status is JobState.INTERRUPTED and not state.must_exit_now
        if is_together and state.phase != "test" and state.history and not self._writer.has_failed:
            self._write_last_weights(state)
