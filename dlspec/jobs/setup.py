"""Everything that a run needs, checked and built: from the steps of a spec to a job."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlspec.jobs.environment import value_at
from dlspec.jobs.job import Job
from dlspec.jobs.preparation import Opened, Preparation, Prepared
from dlspec.language.yaml.yaml_files import load_file
from dlspec.runs.layout import SPEC
from dlspec.training.health.out_of_memory import free
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.batch_size import find_batch_size
from dlspec.training.tuning.tuning import TUNED, tune


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


def keep_found_settings(preparing: Preparation, folder: Path) -> Preparation:
    """The steps of a run that goes on, with the settings that were found when it began, where some were to be found."""
    trainer = preparing.tree.get("trainer")
    if not isinstance(trainer, Mapping) or not (trainer.get("batch_size") == "auto" or trainer.get("tune")):
        return preparing
    saved = value_at(load_file(folder / SPEC).tree, "trainer")
    found = ("batch_size", *(("tune", *TUNED) if trainer.get("tune") else ()))
    kept = {**trainer, **{key: saved[key] for key in found}}
    return replace(preparing, tree={**preparing.tree, "trainer": kept})


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
