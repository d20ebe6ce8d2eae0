"""`dlspec.sweep`: many runs of a spec, in Python and notebooks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

from dlspec.api import Data, Spec, _preparation, plain_value
from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import quoted
from dlspec.data import SOURCES
from dlspec.data.dataset import Dataset
from dlspec.errors import UserError, shown
from dlspec.jobs.identity import data_checksum
from dlspec.jobs.running import new_folder
from dlspec.limits import deep_stack
from dlspec.registry.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from dlspec.report.results import Results, results
from dlspec.runs.layout import RUNS
from dlspec.spec.sweep import SweepSpec
from dlspec.sweeps.executors.pool import Doers, Here, pool
from dlspec.sweeps.job_worker import Workshop
from dlspec.sweeps.record import SweepRecord, read_sweep
from dlspec.sweeps.run import SweepRun
from dlspec.sweeps.sweep_job import Draft, Made
from dlspec.training.interruption import Interrupted
from dlspec.training.randomness import kept_generators

OVER = "write what to try by its key: over={'optimizer.lr': [0.01, 0.001], 'seed': range(3)}"
Values = Mapping[str, Any]


def sweep(
    spec: Spec,
    over: Mapping[str, Sequence[Any]],
    data: Data = None,
    *,
    folder: str | Path | None = None,
    workers: int | None = None,
    threads: int = 1,
    on_invalid: Literal["stop", "skip"] = "stop",
    fail_fast: bool = False,
    rerun: Literal["failed", "changed"] = "failed",
) -> Results:
    """Trains every combination of the values in `over`, `{"optimizer.lr": [1e-2, 1e-3], "seed": range(3)}`.

    `spec` and `data` are those of `train`; a key of `over` is one of the config (`model`, `optimizer.lr`,
    `model.params.width`, `model.layers.0.Conv2d.out_channels`). In `folder` (if there is none, in a new one below
    `runs/`) each job has a folder of its own; called again with the same `folder` it does what is left. The settings
    are those of the `sweep` section: as many jobs at a time as `workers`, one a core or GPU if not told. Failed jobs
    are told and stand among the results. Raises SpecError or UserError with every wrong spec before anything is
    trained, where `on_invalid` does not skip them.
    """
    grid = _grid(over)
    settings = SweepSpec(workers=workers, threads=threads, on_invalid=on_invalid, fail_fast=fail_fast, rerun=rerun)
    with kept_generators(), deep_stack():
        given = _preparation(spec, data).data
        _refuse_data(over, given)
        workshop = Workshop(None, threads=threads, modules=_modules(), data=given)
        place = None if folder is None else Path(folder)
        with SweepRun(
            settings,
            None if place is None else read_sweep(place),
            partial(_create, place),
            partial(_doers, workshop, settings),
            given="" if given is None else data_checksum(given),
        ) as running:
            try:
                running.launch([_draft(spec, data, values) for values in grid])
            except Interrupted as error:
                raise Interrupted(error.number, f"; to go on call it again with folder='{_folder(running)}'") from None
            return results(_folder(running))


def _folder(running: SweepRun) -> Path:
    assert running.record is not None  # or something was raised
    return running.record.folder


def _grid(over: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination, the last key's values the fastest."""
    if not isinstance(over, Mapping) or not over:
        raise UserError(f"nothing to sweep over; {OVER}")
    for key, values in over.items():
        if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
            raise UserError(f"over['{key}'] is no list of values; {OVER}")
    combinations = product(*([plain_value(each) for each in values] for values in over.values()))
    return [dict(zip(over, each, strict=True)) for each in combinations]


def _refuse_data(over: Mapping[str, Any], given: Dataset | None) -> None:
    wrong = [key for key in over if key.split(".")[0] == "data"]
    if wrong and given is not None:
        raise UserError(f"over['{wrong[0]}']: the data were given in Python; sweep over each of them by itself")


def _draft(spec: Spec, data: Data, values: Values) -> Draft:
    return Draft(tuple(f"{key}={_told(value)}" for key, value in values.items()), partial(_made, spec, data, values))


def _told(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _made(spec: Spec, data: Data, values: Values) -> Made:
    """The job, without arrays: those are given to each process once."""
    chosen = {key: value for key, value in values.items() if key in GROUPS and isinstance(value, str)}
    others = {key: value for key, value in values.items() if key not in chosen}
    words = [quoted(key, value) for key, value in chosen.items()]
    preparing = _preparation({**spec, **chosen} if isinstance(spec, Mapping) else [*spec, *words], data, others)
    preparing.data = None
    return preparing, None


def _create(place: Path | None) -> SweepRecord:
    if place is None:
        now = datetime.now()
        return SweepRecord(new_folder(Path(RUNS) / f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}_sweep"))
    place.mkdir(parents=True, exist_ok=True)
    return SweepRecord(place)


def _doers(workshop: Workshop, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Doers:
    """Processes; this one where they could not know the parts that a notebook or script has registered itself."""
    if "__main__" in workshop.modules:
        return Here(workshop)
    return pool(workshop, settings.workers, jobs, devices)


def _modules() -> list[str]:
    """The modules that have registered parts of their own."""
    classes = [each for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS) for each in registry.classes()]
    names = {each.__module__ for each in (*classes, *SOURCES.values())}
    return sorted(name for name in names if name.split(".")[0] not in ("torch", "dlspec"))
