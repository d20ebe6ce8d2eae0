"""One run: from a composed config to a folder with its results."""

from __future__ import annotations

import gc
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.utils import JobReturn, JobStatus

from dlspec.config.composition import Composed, Refused, compose
from dlspec.config.conf_files import GROUPS
from dlspec.errors import SpecError, UserError, first_line, shown
from dlspec.preparing import Opened, Preparation, Prepared
from dlspec.runs.io import (
    create_run_folder,
    environment,
    free_bytes,
    log_to,
    package_version,
    read_object,
    write_json,
    write_yaml,
)
from dlspec.runs.layout import ENVIRONMENT, LOG, RESULT, SPEC
from dlspec.runs.lock import held
from dlspec.runs.run_status import resume_command
from dlspec.spec.yaml_files import display_name, load_file
from dlspec.training.amounts import size
from dlspec.training.batch_size import find_batch_size
from dlspec.training.checkpoint_files import Snapshot
from dlspec.training.interruption import Interrupted, interruptible
from dlspec.training.out_of_memory import free
from dlspec.training.resuming import checkpoint_bytes
from dlspec.training.standard import standard_callbacks
from dlspec.training.state import Outcome, TrainingFailed
from dlspec.training.trainer import Trainer
from dlspec.training.tuning import TUNED, tune

log = logging.getLogger("dlspec")

MOST_RESUMED = 100
# What the last bits of a result follow from.
_EXACT = ("packages.dlspec", "packages.torch", "packages.numpy", "processor", "threads", "devices", "cuda")


def composed_or_refused(overrides: Sequence[str], hydra: Hydra) -> Composed:
    """The config, or every mistake at once: the overrides' own, and those of form in what they would have changed."""
    try:
        return compose(overrides, hydra)
    except Refused as refused:
        raise every_mistake(refused) from None


def every_mistake(refused: Refused) -> SpecError:
    """The overrides' mistakes and those of form in the config that they would have changed."""
    try:
        preparation(refused.composed).read()
    except SpecError as error:
        others = [each for each in error.problems if re.split("[. ]", each.path)[0] not in refused.groups]
        return SpecError([*refused.problems, *others])
    return refused


def preparation(composed: Composed, *, is_resumed: bool = False) -> Preparation:
    """The steps from a composed config to a run."""
    choices = {group: composed.loader.files(group) for group in GROUPS}
    return Preparation(composed.tree, composed.places, choices, is_resumed=is_resumed)


@dataclass(frozen=True)
class Job:
    """A run that was checked to the last shape and may begin; `shows` its progress, or only writes."""

    prepared: Prepared
    trainer: Trainer
    shows: bool = True

    def run(self, folder: Path | None = None) -> Outcome:
        """Trains and tests. Everything is written to `folder`, nothing where there is none.

        A signal that asks for the end raises `Interrupted` once everything is saved. Raises UserError where another
        process trains in that folder.
        """
        if folder is not None:
            with held(folder):
                return self.run_in(folder)
        self._begin(None)
        return self.trainer.run()

    def run_in(self, folder: Path, snapshot: Snapshot | None = None) -> Outcome:
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
        write_json(folder / ENVIRONMENT, now if before is None else _resumed(before, now, self.trainer.state.step))


def _resumed(before: dict[str, Any], now: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A run's first environment, and what is another one where it goes on; told where last bits may follow from it."""
    first = {key: before.get(key) for key in now}
    changed = {key: (_at(first, key), _at(now, key)) for key in _EXACT if _at(first, key) != _at(now, key)}
    if changed:
        told = ", ".join(f"{key} {shown(value)} (was {shown(was)})" for key, (was, value) in changed.items())
        log.warning("the run goes on elsewhere, so it will not equal an uninterrupted one to the last bit: %s", told)
    earlier = before.get("resumed")
    others = {key: value for key, value in now.items() if first[key] != value}
    resumed = [*(earlier if isinstance(earlier, list) else []), {"step": step, **others}]
    return {**before, "resumed": resumed[-MOST_RESUMED:]}


def _at(tree: Mapping[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    inner = tree.get(first)
    return inner if not rest else inner.get(rest) if isinstance(inner, Mapping) else None


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


def new_folder(root: Path, name: str) -> Path:
    """A run's or sweep's new folder; UserError where it can't be made there."""
    try:
        return create_run_folder(root, name)
    except OSError as error:
        fix = "choose another place: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER"
        raise UserError(f"can't make a folder in '{root}': {error.strerror}; {fix}") from None


def make_job(preparing: Preparation, *, shows: bool = True) -> Job:
    """Checks and builds everything; raises UserError for whatever is wrong, and writes nothing."""
    if not gc.isenabled():  # a process of the command line: see dlspec.cli.main
        gc.freeze()  # before there is a network: what is frozen is never freed
        gc.enable()
    with _telling(shows) as tell:
        prepared = _prepared(preparing, tell)
    return Job(prepared, _trainer(prepared), shows)


@contextmanager
def _telling(shows: bool) -> Iterator[Callable[[str], None]]:
    """What shows on a terminal what is being done, each line in the place of the one before it, and none at the end."""
    if not shows or not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"\r\033[K{text} ...", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _prepared(preparing: Preparation, tell: Callable[[str], None]) -> Prepared:
    """Everything that the run needs, with settings that were found where that is wanted.

    They are tried on networks of their own: the run's is built anew, as if they had been written.
    """
    opened, notes = preparing.open(), list[str]()
    if opened.spec.trainer.batch_size == "auto":
        found = find_batch_size(_trainer(preparing.prepare(opened=opened)))
        opened = opened.with_settings({"batch_size": found.batch_size})
        notes.append(found.told)
        free()
    if opened.spec.trainer.tune:
        opened, told = _tuned(preparing, opened, tell)
        notes.append(told)
        free()
    prepared = preparing.prepare(opened=opened)
    return replace(prepared, notes=(*prepared.notes, *notes))


def _tuned(preparing: Preparation, opened: Opened, tell: Callable[[str], None]) -> tuple[Opened, str]:
    def make(changes: Mapping[str, Any]) -> Trainer:
        return _trainer(preparing.prepare(opened=opened.with_settings(changes)))

    tuned = tune(make, tell)
    return opened.with_settings({**tuned.changes, "tune": False}), tuned.table


def keep_found(preparing: Preparation, folder: Path) -> None:
    """A run that goes on has the settings that were found when it began, where some were to be found."""
    trainer = preparing.tree.get("trainer")
    if isinstance(trainer, Mapping) and (trainer.get("batch_size") == "auto" or trainer.get("tune")):
        saved = _at(load_file(folder / SPEC).tree, "trainer")
        found = ("batch_size", *(("tune", *TUNED) if trainer.get("tune") else ()))
        preparing.tree = {**preparing.tree, "trainer": {**trainer, **{key: saved[key] for key in found}}}


def _trainer(prepared: Prepared) -> Trainer:
    spec = prepared.spec
    return Trainer(
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


def result_of(returned: JobReturn) -> Any:
    """What the task gave; what it raised is raised again. (Hydra's own property prints to stderr first.)"""
    if returned.status == JobStatus.FAILED:
        raise returned._return_value
    return returned._return_value
