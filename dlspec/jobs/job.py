"""One job: a checked run that is ready to train, and what it writes to its folder."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlspec.errors import TrainingFailed, UserError
from dlspec.formatting import first_line, format_bytes
from dlspec.jobs.described_data import DescribedData
from dlspec.jobs.environment import collect_environment, find_package_version, merge_resumed_environment
from dlspec.jobs.ranks import describe_launch
from dlspec.jobs.resumed_settings import Changes, find_all_changes, find_resume_changes
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.language.yaml.yaml_files import format_file_path, shorten_path
from dlspec.runs.file_names import (
    ENVIRONMENT_FILE,
    LOG_FILE,
    PREPARE_FILE,
    RATES_FILE,
    RESULT_FILE,
    SPEC_FILE,
    format_rank_log_name,
)
from dlspec.runs.io import (
    get_free_disk_bytes,
    read_json_object,
    sync_folders_once,
    write_bytes,
    write_json,
    write_yaml,
)
from dlspec.runs.job_result import JobResult
from dlspec.runs.lock import lock_run_folder
from dlspec.runs.log_file import add_log_file
from dlspec.runs.run_status import resume_command
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
from dlspec.training.checkpoint.checkpoint_files import DATA_CHECKSUM, Snapshot
from dlspec.training.checkpoint_parts import UNCHANGED, estimate_checkpoint_bytes
from dlspec.training.runtime.interruption import MAX_FORWARDING_SECONDS, Interrupted, catch_signals
from dlspec.training.trainer import Trainer

log = logging.getLogger("dlspec")


@dataclass(frozen=True)
class Job:
    """A run that is ready to train: everything is checked and built."""

    prepared: PreparedRun
    trainer: Trainer
    shows_progress: bool = True  # whether it prints its progress, or only writes to its folder
    is_of_sweep: bool = False  # whether it is one of a sweep's jobs
    described_data: DescribedData | None = None  # the data, if other jobs of the process have the same; None: its own

    @cached_property
    def saved_data(self) -> DescribedData:
        """What the run saves of its data."""
        prepared, described = self.prepared, self.described_data
        if described is not None and described.data is prepared.data is (prepared.source_data or prepared.data):
            return described
        return DescribedData(prepared.data, prepared.source_data)

    @property
    def data_checksum(self) -> str:
        """The checksum of the data, which the run's checkpoints contain."""
        return self.saved_data.content_checksum

    @property
    def saved_preparation(self) -> Mapping[str, Any]:
        """What the run saves of its data: how rows are encoded, and the description of fields and targets."""
        return self.saved_data.preparation

    def run(self, folder: Path | None = None) -> JobResult:
        """Train and test. Everything is written to `folder`; without one, nothing is written.

        Raises:
            Interrupted: After a signal asked the run to stop; by then everything is saved.
            UserError: If another process trains in the folder.
        """
        if folder is not None:
            with lock_run_folder(folder):
                return self.run_in_folder(folder)
        self.trainer.group.broadcast(None)
        self._add_callbacks(None)
        return self.trainer.run()

    def run_in_folder(self, folder: Path, snapshot: Snapshot | None = None) -> JobResult:
        """Train and test as `run` does, from `snapshot` if there is one. The caller must have locked the folder."""
        self.trainer.group.broadcast(folder)
        self._add_callbacks(folder)
        if snapshot is not None:
            prepared = self.prepared
            changes = find_resume_changes(snapshot, folder, prepared.resolved, prepared.data)
            with _log_to_folder(folder):
                self.trainer.restore(snapshot, self.trainer.group.broadcast(changes))
        with _log_to_folder(folder), self._catch_signals():
            self._write_spec_and_environment(folder, snapshot)
            for note in self.prepared.notes:
                log.info(note)
            try:
                return self._train(folder / LOG_FILE)
            except Interrupted as error:
                log.info(error)
                raise Interrupted(error.number, f"; to resume: {resume_command(_format_folder(folder))}") from None

    def _train(self, log_file: Path) -> JobResult:
        """Train and test, and turn an error of PyTorch into TrainingFailed with a line that names the log file."""
        try:
            return self.trainer.run()
        except Exception as error:
            log.debug("the run failed\n%s", traceback.format_exc())
            if isinstance(error, UserError | TrainingFailed) or getattr(error, "filename", None) is not None:
                raise
            elsewhere = self.trainer.group.find_failure_elsewhere(error)
            if elsewhere is not None:
                raise elsewhere from None
            # An error of PyTorch: out of memory, or a layer that does not accept a batch of one sample.
            reason, log_name = first_line(error), format_file_path(log_file)
            raise TrainingFailed(f"the training failed: {type(error).__name__}: {reason} (see {log_name})") from error

    def take_part(self, snapshot: Snapshot | None = None) -> JobResult:
        """Train and test as one of several processes, of which the first calls `run` or `run_in_folder`.

        Only a log is written, where that process's folder is visible.
        """
        group = self.trainer.group
        folder: Path | None = group.broadcast(None)
        self._add_callbacks(folder)
        if folder is None:
            return self.trainer.run()
        if snapshot is not None:
            self.trainer.restore(snapshot, group.broadcast(UNCHANGED))
        with _log_of_rank(folder, group.rank), self._catch_signals():
            return self._train(folder / format_rank_log_name(group.rank))

    def _catch_signals(self) -> AbstractContextManager[None]:
        if self.trainer.stack is not None:  # its process receives none, and has several jobs
            return nullcontext()
        seconds = MAX_FORWARDING_SECONDS if self.trainer.group.is_parallel else 0
        return catch_signals(self.trainer.interruption, repeat_seconds=seconds)

    def _add_callbacks(self, folder: Path | None) -> None:
        settings = self.prepared.spec.trainer
        is_alone = not self.is_of_sweep
        defaults = {"curves": is_alone, "pictures": is_alone and not self.trainer.group.is_sharded}
        drawn = {key: value for key, value in defaults.items() if getattr(settings, key) == "auto"}
        progress = settings.progress if self.shows_progress else "none"
        trainer_settings = settings.model_copy(update={"progress": progress, **drawn})
        metadata = self._checkpoint_metadata() if folder is not None and settings.checkpoints else {}
        self.trainer.set_callbacks(make_default_callbacks(trainer_settings, folder, metadata, self.is_of_sweep))

    def check_disk_space(self, root: Path) -> None:
        """Check that the disk of `root` has space for checkpoints.

        Warn if it is too small for the checkpoints that are kept; raise UserError if not even one fits.
        """
        settings = self.prepared.spec.trainer
        if not settings.checkpoints:
            return
        checkpoint_size, free = estimate_checkpoint_bytes(self.trainer.state), get_free_disk_bytes(root)
        if free < checkpoint_size:
            fix = "free some space, use another folder, or train without checkpoints: trainer.checkpoints=false"
            raise UserError(
                f"not enough disk space in '{root}': a checkpoint needs {format_bytes(checkpoint_size)}, "
                f"and {format_bytes(free)} are free; {fix}"
            )
        checkpoint_count = settings.keep_checkpoints + 2  # one that is being written, and the best and last weights
        if free < checkpoint_count * checkpoint_size:
            log.warning("low disk space in '%s': the run's files need about %s, and %s are free",
                        root, format_bytes(checkpoint_count * checkpoint_size), format_bytes(free))  # fmt: skip

    def _checkpoint_metadata(self) -> dict[str, str]:
        """Make the metadata of a checkpoint: its spec, and how the data were prepared (the vocabulary of a text).

        With these the checkpoint can be used without the run's folder.
        """
        prepared = self.prepared
        texts = {"spec": prepared.resolved, "preprocessing": self.saved_preparation}
        return {
            "dlspec": find_package_version("dlspec") or "",
            DATA_CHECKSUM: self.data_checksum,
            **{key: json.dumps(value) for key, value in texts.items()},
        }

    def _find_all_changes(self, snapshot: Snapshot, folder: Path) -> Changes:
        prepared = self.prepared
        return find_all_changes(snapshot, folder, prepared.resolved, prepared.data, self.data_checksum)

    def _write_spec_and_environment(self, folder: Path, snapshot: Snapshot | None) -> None:
        changes = {} if snapshot is None else self._find_all_changes(snapshot, folder)
        (folder / RESULT_FILE).unlink(missing_ok=True)  # the result of a resumed run is outdated
        with sync_folders_once():
            write_json(folder / PREPARE_FILE, self.saved_preparation)
            if snapshot is None and self.prepared.spec.trainer.pictures:
                self._draw_range_test(folder)
            self._write_environment(folder, changes)
        # After the environment, which says that its changes were made on purpose and not by editing it.
        write_yaml(folder / SPEC_FILE, dict(self.prepared.resolved))

    def _write_environment(self, folder: Path, changes: Changes) -> None:
        before, now = (
            read_json_object(folder / ENVIRONMENT_FILE),
            {"seed": self.prepared.spec.seed, **collect_environment(), **describe_launch(self.trainer.group)},
        )
        now["threads"] = self.prepared.spec.trainer.threads or now["threads"]
        write_json(
            folder / ENVIRONMENT_FILE,
            now if before is None else merge_resumed_environment(before, now, self.trainer.state.step, changes),
        )

    def _draw_range_test(self, folder: Path) -> None:
        """Draw the search for a learning rate, if there was one."""
        found = self.prepared.found_rate
        if found is not None and len(found.losses) > 1:
            from dlspec.plots.rate_plots import draw_range_test  # imports matplotlib

            write_bytes(folder / RATES_FILE, draw_range_test(found.rates, found.losses, found.rate).to_png())


def _format_folder(folder: Path) -> Path:
    """Format a folder as the user would type it, relative to the directory in which the process started.

    With hydra.job.chdir the working directory is the run's folder.
    """
    return folder if Path.cwd().is_relative_to(folder) else shorten_path(folder)


@contextmanager
def _log_of_rank(folder: Path, rank: int) -> Iterator[None]:
    """Write what another process than the first logs to its own file, if it sees the folder."""
    if not folder.is_dir():
        yield
        return
    handler, level = add_log_file(folder, format_rank_log_name(rank)), log.level
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.setLevel(level)
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextmanager
def _log_to_folder(folder: Path) -> Iterator[None]:
    """Write everything that dlspec logs to the run's log.txt, and warnings also to the terminal."""
    handler, level, terminal = add_log_file(folder), log.level, logging.lastResort
    log.setLevel(logging.DEBUG)
    if terminal is not None:
        log.addHandler(terminal)
    try:
        yield
    finally:
        log.setLevel(level)
        if terminal is not None:
            log.removeHandler(terminal)
        logging.getLogger().removeHandler(handler)
        handler.close()
