"""One run: from a composed config to a folder with its results."""

from __future__ import annotations

import gc
import json
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.hydra import Hydra

from dlspec.app.compose import Composed, Refused, compose
from dlspec.app.conf_files import GROUPS
from dlspec.errors import SpecError, UserError
from dlspec.preparing import Preparation, Prepared
from dlspec.run_folder import SPEC, create_run_folder, environment, log_to, package_version, write_json, write_yaml
from dlspec.run_lock import held
from dlspec.run_status import resume_command
from dlspec.spec.yaml_files import display_name
from dlspec.training.checkpoint_files import Snapshot
from dlspec.training.interruption import Interrupted, interruptible
from dlspec.training.standard import standard_callbacks
from dlspec.training.state import Outcome, TrainingFailed
from dlspec.training.trainer import Trainer

log = logging.getLogger("dlspec")


def composed_or_refused(overrides: Sequence[str], hydra: Hydra) -> Composed:
    """The config, or every mistake at once: the overrides' own, and those of form in what they would have changed."""
    try:
        return compose(overrides, hydra)
    except Refused as refused:
        try:
            preparation(refused.composed).read()
        except SpecError as error:
            others = [each for each in error.problems if re.split("[. ]", each.path)[0] not in refused.groups]
            raise SpecError([*refused.problems, *others]) from None
        raise


def preparation(composed: Composed, *, is_resumed: bool = False) -> Preparation:
    """The steps from a composed config to a run."""
    choices = {group: composed.loader.files(group) for group in GROUPS}
    return Preparation(composed.tree, composed.places, choices, is_resumed=is_resumed)


@dataclass(frozen=True)
class Job:
    """A run that was checked to the last shape and may begin."""

    prepared: Prepared
    trainer: Trainer

    def run(self, folder: Path | None = None, snapshot: Snapshot | None = None) -> Outcome:
        """Trains and tests, from `snapshot` on if there is one.

        Everything is written to `folder`, nothing where there is none. A signal that asks for the end raises
        `Interrupted` once everything is saved. Raises UserError where another process trains in that folder.
        """
        if not gc.isenabled():  # a process of the command line: see dlspec.__main__
            gc.freeze()
            gc.enable()
        self.trainer.use(standard_callbacks(self.prepared.spec.trainer, folder, self._metadata()))
        if snapshot is not None:
            self.trainer.restore(snapshot)
        if folder is None:
            return self.trainer.run()
        with held(folder), _logging(folder), interruptible(self.trainer.interruption):
            self._describe(folder)
            for note in self.prepared.notes:
                log.info(note)
            try:
                return self.trainer.run()
            except Interrupted as error:
                log.info(error)
                raise Interrupted(error.number, f"; to go on: {resume_command(Path(display_name(folder)))}") from None
            except Exception as error:
                log.debug("the run failed\n%s", traceback.format_exc())
                if isinstance(error, UserError | TrainingFailed | OSError):
                    raise
                # PyTorch's own complaint: out of memory, a layer that takes no batch of one
                reason = str(error).strip().split("\n")[0]
                where = display_name(folder / "log.txt")
                raise TrainingFailed(f"the training failed: {type(error).__name__}: {reason} (see {where})") from error

    def _metadata(self) -> dict[str, str]:
        """What makes a checkpoint whole in itself: its spec, and how the data were prepared (a text's vocabulary)."""
        prepared = self.prepared
        about = {"spec": prepared.resolved, "preprocessing": prepared.data.preprocessing}
        return {"dlspec": package_version("dlspec") or "", **{key: json.dumps(value) for key, value in about.items()}}

    def _describe(self, folder: Path) -> None:
        write_yaml(folder / SPEC, dict(self.prepared.resolved))
        write_json(folder / "environment.json", {"seed": self.prepared.spec.seed, **environment()})


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


def new_folder(root: Path, name: str) -> Path:
    """A run's or sweep's new folder; UserError where it can't be made there."""
    try:
        return create_run_folder(root, name)
    except OSError as error:
        fix = "choose another place: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER"
        raise UserError(f"can't make a folder in '{root}': {error.strerror}; {fix}") from None


def make_job(preparing: Preparation) -> Job:
    """Checks and builds everything; raises UserError for whatever is wrong, and writes nothing."""
    prepared = preparing.prepare()
    spec = prepared.spec
    trainer = Trainer(
        prepared.network.module,
        prepared.criterion,
        prepared.optimizer,
        prepared.data,
        spec.trainer,
        inputs=prepared.network.inputs,
        schedule=prepared.schedule,
        freezing=prepared.freezing,
        metrics=prepared.make_metrics,
        seed=spec.seed,
        trim=prepared.network.any_length,
        widest=prepared.network.widest,
        fewest_steps=prepared.network.fewest_steps,
    )
    return Job(prepared, trainer)
