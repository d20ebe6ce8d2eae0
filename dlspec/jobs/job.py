"""One job: a run that was checked and may begin, and what it writes to its folder."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlspec.errors import TrainingFailed, UserError
from dlspec.formatting import first_line, format_bytes
from dlspec.jobs.environment import collect_environment, find_package_version, merge_resumed_environment
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.file_names import ENVIRONMENT_FILE, LOG_FILE, RESULT_FILE, SPEC_FILE
from dlspec.runs.io import add_log_file, free_bytes, read_json_object, write_json, write_yaml
from dlspec.runs.job_result import JobResult
from dlspec.runs.lock import lock_run_folder
from dlspec.runs.run_status import resume_command
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint_parts import estimate_checkpoint_bytes
from dlspec.training.runtime.interruption import Interrupted, catch_signals
from dlspec.training.trainer import Trainer

log = logging.getLogger("dlspec")


@dataclass(frozen=True)
class Job:
    """A run that was checked to the last shape and may begin, its network and trainer in memory.

    It `shows` its progress, or only writes.
    """

    prepared: PreparedRun
    trainer: Trainer
    shows_progress: bool = True

    def run(self, folder: Path | None = None) -> JobResult:
        """Trains and tests. Everything is written to `folder`, nothing where there is none.

        A signal that asks for the end raises `Interrupted` once everything is saved. Raises UserError where another
        process trains in that folder.
        """
        if folder is not None:
            with lock_run_folder(folder):
                return self.run_in_folder(folder)
        self._add_callbacks(None)
        return self.trainer.run()

    def run_in_folder(self, folder: Path, snapshot: Snapshot | None = None) -> JobResult:
        """As `run`, from `snapshot` on if there is one; the caller holds the folder's lock."""
        self._add_callbacks(folder)
        if snapshot is not None:
            self.trainer.restore(snapshot)
        with _log_to_folder(folder), catch_signals(self.trainer.interruption):
            self._write_spec_and_environment(folder)
            for note in self.prepared.notes:
                log.info(note)
            try:
                return self.trainer.run()
            except Interrupted as error:
                log.info(error)
                raise Interrupted(error.number, f"; to go on: {resume_command(_format_folder(folder))}") from None
            except Exception as error:
                log.debug("the run failed\n%s", traceback.format_exc())
                if isinstance(error, UserError | TrainingFailed) or getattr(error, "filename", None) is not None:
                    raise
                # PyTorch's own complaint: out of memory, a layer that takes no batch of one
                reason = first_line(error)
                log_name = format_file_path(folder / LOG_FILE)
                raise TrainingFailed(
                    f"the training failed: {type(error).__name__}: {reason} (see {log_name})"
                ) from error

    def _add_callbacks(self, folder: Path | None) -> None:
        settings = self.prepared.spec.trainer
        trainer_settings = settings if self.shows_progress else settings.model_copy(update={"progress": "none"})
        self.trainer.set_callbacks(make_default_callbacks(trainer_settings, folder, self._checkpoint_metadata()))

    def check_space(self, root: Path) -> None:
        """Whether checkpoints have room below `root`: UserError where not one has, a warning for less than are kept."""
        settings = self.prepared.spec.trainer
        if not settings.checkpoints:
            return
        checkpoint_size, free = estimate_checkpoint_bytes(self.trainer.state), free_bytes(root)
        if free < checkpoint_size:
            fix = "free some, train in another folder, or without: trainer.checkpoints=false"
            raise UserError(
                f"no room in '{root}': a checkpoint takes {format_bytes(checkpoint_size)}, and {format_bytes(free)} are free; {fix}"
            )
        checkpoint_count = settings.keep_checkpoints + 2  # one more while it is written, and the best and last weights
        if free < checkpoint_count * checkpoint_size:
            log.warning("little room in '%s': the run's files take about %s, and %s are free",
                        root, format_bytes(checkpoint_count * checkpoint_size), format_bytes(free))  # fmt: skip

    def _checkpoint_metadata(self) -> dict[str, str]:
        """What makes a checkpoint whole in itself: its spec, and how the data were prepared (a text's vocabulary)."""
        prepared = self.prepared
        texts = {"spec": prepared.resolved, "preprocessing": prepared.data.preprocessing}
        return {
            "dlspec": find_package_version("dlspec") or "",
            **{key: json.dumps(value) for key, value in texts.items()},
        }

    def _write_spec_and_environment(self, folder: Path) -> None:
        (folder / RESULT_FILE).unlink(missing_ok=True)  # a resumed run's: it is no longer what the run came to
        write_yaml(folder / SPEC_FILE, dict(self.prepared.resolved))
        before, now = (
            read_json_object(folder / ENVIRONMENT_FILE),
            {"seed": self.prepared.spec.seed, **collect_environment()},
        )
        now["threads"] = self.prepared.spec.trainer.threads or now["threads"]
        write_json(
            folder / ENVIRONMENT_FILE,
            now if before is None else merge_resumed_environment(before, now, self.trainer.state.step),
        )


def _format_folder(folder: Path) -> Path:
    """As the user would write it, from where the process began (hydra.job.chdir moves into the folder)."""
    return folder if Path.cwd().is_relative_to(folder) else Path(format_file_path(folder))


@contextmanager
def _log_to_folder(folder: Path) -> Iterator[None]:
    """Everything that dlspec logs goes to the run's log.txt, warnings to the terminal too."""
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
