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
from dlspec.jobs.environment import environment, package_version, resumed_environment
from dlspec.jobs.preparation import Prepared
from dlspec.language.yaml.yaml_files import display_name
from dlspec.runs.io import free_bytes, log_to, read_object, write_json, write_yaml
from dlspec.runs.job_result import JobResult
from dlspec.runs.layout import ENVIRONMENT, LOG, RESULT, SPEC
from dlspec.runs.lock import held
from dlspec.runs.run_status import resume_command
from dlspec.text import first_line, size
from dlspec.training.callbacks.standard import standard_callbacks
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.resuming import checkpoint_bytes
from dlspec.training.runtime.interruption import Interrupted, interruptible
from dlspec.training.trainer import Trainer

log = logging.getLogger("dlspec")


@dataclass(frozen=True)
class Job:
    """A run that was checked to the last shape and may begin, its network and trainer in memory.

    It `shows` its progress, or only writes.
    """

    prepared: Prepared
    trainer: Trainer
    shows: bool = True

    def run(self, folder: Path | None = None) -> JobResult:
        """Trains and tests. Everything is written to `folder`, nothing where there is none.

        A signal that asks for the end raises `Interrupted` once everything is saved. Raises UserError where another
        process trains in that folder.
        """
        if folder is not None:
            with held(folder):
                return self.run_in(folder)
        self._begin(None)
        return self.trainer.run()

    def run_in(self, folder: Path, snapshot: Snapshot | None = None) -> JobResult:
        """As `run`, from `snapshot` on if there is one; the caller holds the folder's lock."""
        self._begin(folder)
        if snapshot is not None:
            self.trainer.restore(snapshot)
        with _logging(folder), interruptible(self.trainer.interruption):
            self._describe(folder)
            for note in self.prepared.notes:
                log.info(note)
            try:
                return self.trainer.run()
            except Interrupted as error:
                log.info(error)
                raise Interrupted(error.number, f"; to go on: {resume_command(_named(folder))}") from None
            except Exception as error:
                log.debug("the run failed\n%s", traceback.format_exc())
                if isinstance(error, UserError | TrainingFailed) or getattr(error, "filename", None) is not None:
                    raise
                # PyTorch's own complaint: out of memory, a layer that takes no batch of one
                reason = first_line(error)
                where = display_name(folder / LOG)
                raise TrainingFailed(f"the training failed: {type(error).__name__}: {reason} (see {where})") from error

    def _begin(self, folder: Path | None) -> None:
        settings = self.prepared.spec.trainer
        shown = settings if self.shows else settings.model_copy(update={"progress": "none"})
        self.trainer.use(standard_callbacks(shown, folder, self._metadata()))

    def check_space(self, root: Path) -> None:
        """Whether checkpoints have room below `root`: UserError where not one has, a warning for less than are kept."""
        settings = self.prepared.spec.trainer
        if not settings.checkpoints:
            return
        one, free = checkpoint_bytes(self.trainer), free_bytes(root)
        if free < one:
            fix = "free some, train in another folder, or without: trainer.checkpoints=false"
            raise UserError(f"no room in '{root}': a checkpoint takes {size(one)}, and {size(free)} are free; {fix}")
        wanted = settings.keep_checkpoints + 2  # one more while it is written, and the best and last weights
        if free < wanted * one:
            log.warning("little room in '%s': the run's files take about %s, and %s are free",
                        root, size(wanted * one), size(free))  # fmt: skip

    def _metadata(self) -> dict[str, str]:
        """What makes a checkpoint whole in itself: its spec, and how the data were prepared (a text's vocabulary)."""
        prepared = self.prepared
        about = {"spec": prepared.resolved, "preprocessing": prepared.data.preprocessing}
        return {"dlspec": package_version("dlspec") or "", **{key: json.dumps(value) for key, value in about.items()}}

    def _describe(self, folder: Path) -> None:
        (folder / RESULT).unlink(missing_ok=True)  # a resumed run's: it is no longer what the run came to
        write_yaml(folder / SPEC, dict(self.prepared.resolved))
        before, now = read_object(folder / ENVIRONMENT), {"seed": self.prepared.spec.seed, **environment()}
        now["threads"] = self.prepared.spec.trainer.threads or now["threads"]
        write_json(
            folder / ENVIRONMENT, now if before is None else resumed_environment(before, now, self.trainer.state.step)
        )


def _named(folder: Path) -> Path:
    """As the user would write it, from where the process began (hydra.job.chdir moves into the folder)."""
    return folder if Path.cwd().is_relative_to(folder) else Path(display_name(folder))


@contextmanager
def _logging(folder: Path) -> Iterator[None]:
    """Everything that dlspec logs goes to the run's log.txt, warnings to the terminal too."""
    handler, level, terminal = log_to(folder), log.level, logging.lastResort
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
