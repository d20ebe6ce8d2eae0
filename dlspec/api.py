"""dlspec in Python and notebooks: `build`, `train`, `resume` and `sweep` take what a YAML file would say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, wraps
from itertools import product
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from torch import nn

from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import parse_overrides, write_choice
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES
from dlspec.errors import UserError, shown
from dlspec.jobs import resumption
from dlspec.jobs.identity import data_checksum
from dlspec.jobs.job import Job
from dlspec.jobs.python_spec import Data, Spec, data_settings, plain_value, prepare_spec, written_spec
from dlspec.jobs.setup import make_job
from dlspec.language.problems import Problems, refuse
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import load_file
from dlspec.limits import deep_stack
from dlspec.network.weights.loading import load_weights
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from dlspec.report.results import Results, results
from dlspec.runs.io import new_folder
from dlspec.runs.job_result import JobResult
from dlspec.runs.layout import RUNS, SPEC
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.inline import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.executors.pool import choose_executor
from dlspec.sweeps.records.planned_job import PlanJob, Steps, plan_job
from dlspec.sweeps.records.record import SweepRecord, read_sweep
from dlspec.sweeps.run import SweepRun
from dlspec.text import write_override
from dlspec.training.health.out_of_memory import OutOfMemory, forget
from dlspec.training.runtime.interruption import Interrupted
from dlspec.training.runtime.randomness import kept_generators

P = ParamSpec("P")
T = TypeVar("T")
OVER = "write what to try by its key: over={'optimizer.lr': [0.01, 0.001], 'seed': range(3)}"
Values = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Result:
    """What training in Python gave: the network in memory, with the weights that were tested, and its results."""

    network: nn.Module
    results: Mapping[str, float]
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    spec: Mapping[str, Any]
    folder: Path | None = None

    def __repr__(self) -> str:
        """The results in a line: a notebook shows them, not the layers and the spec."""
        results = ", ".join(f"{name} {value:.4g}" for name, value in self.results.items())
        where = "" if self.folder is None else f", folder {self.folder}"
        return f"Result({results}, best epoch {self.best_epoch}{where})"


@deep_stack()
def build(spec: Spec, data: Data = None) -> nn.Module:
    """The network that `spec` describes, built for `data`, its weights drawn from the spec's seed.

    `spec` is a mapping as in YAML, `{"model": "cnn", "seed": 1}` or `{"layers": [...]}`, or a list of overrides as on
    the command line. `data` is arrays by field name with a `target`, a data set's name, its settings, or what it would
    state (`{"shape": [3, 32, 32], "num_classes": 10}`; None classes: the target is a number). The spec's own `data`
    says how arrays are split (validation, test, split_seed) or changes a setting of the set that `data` names; where it
    names a data set itself, `data` takes its place. The random generators of Python, NumPy and PyTorch are left as they
    were. Raises SpecError with every mistake, UserError for what is no spec or no data.
    """
    with kept_generators():
        return prepare_spec(spec, data).build().network.module.cpu()


def _letting_go(function: Callable[P, T]) -> Callable[P, T]:
    """Out of memory, nothing is held by the error, which a notebook keeps."""

    @wraps(function)
    def called(*args: P.args, **settings: P.kwargs) -> T:
        try:
            return function(*args, **settings)
        except OutOfMemory as error:
            forget(error)
            raise

    return called


def load(folder: str | Path, data: Data = None) -> nn.Module:
    """The network of the run in `folder` with its best weights (or its last), on the CPU and in eval mode.

    `data` are given again where the run's were made in Python. Raises UserError where there is no such run or its
    weights are not there, SpecError where its spec imports modules that were not imported before.
    """
    run_folder = resumption.run_folder(str(folder))
    spec, _ = _changed(run_folder, {}, data)
    problems = Problems()
    with kept_generators(), deep_stack():
        network = prepare_spec(spec, data, is_resumed=True).build().network.module.cpu().eval()
        load_weights(network, WeightsSpec(path=str(run_folder), strict=True), problems)
    refuse(problems, SourceMap)
    return network


@_letting_go
def train(spec: Spec, data: Data = None, *, folder: str | Path | None = None) -> Result:
    """Trains and tests; a new run folder is made below `folder`, and nothing is written where there is none.

    `spec` and `data` are those of `build`, and as there the random generators are left as they were. Raises SpecError
    for a wrong spec, TrainingFailed where the training itself fails.
    """
    with kept_generators():
        with deep_stack():
            job = make_job(prepare_spec(spec, data))
        if folder is None:
            return _result(job, job.run(), None)
        job.check_space(Path(folder))
        run_folder = new_folder(Path(folder), "run")
        return _result(job, job.run(run_folder), run_folder)


@_letting_go
def resume(folder: str | Path, data: Data = None, *, changes: Spec = (), allow: Sequence[str] = ()) -> Result:
    """Goes on with the run in `folder` from its newest checkpoint, as if it had never stopped.

    Where the data were arrays or a data set made in Python, the same are given again as `data`. `changes` are a spec
    that says only what is other than before (`{"trainer": {"epochs": 40}}`); keys that change what was trained before
    must be named in `allow`. A run that is finished is tested once more. The generators are left as they were. Raises
    SpecError for changes that are not allowed, UserError where there is no run or another process trains there,
    TrainingFailed where the checkpoint does not fit or the training fails.
    """
    run_folder = resumption.run_folder(str(folder))
    spec, written = _changed(run_folder, changes, data)
    with kept_generators(), resumption.lock_newest_checkpoint(run_folder) as found:
        with deep_stack():
            job = make_job(prepare_spec(spec, data, is_resumed=found is not None))
        changed = resumption.find_changes(run_folder, job, found, written)
        resumption.refuse_changes(run_folder, job, changed, allow)
        return _result(job, resumption.continue_run(job, run_folder, found), run_folder)


def _changed(run_folder: Path, changes: Spec, data: Data) -> tuple[Spec, list[str]]:
    """The run's spec with what is changed, and the keys of that; arrays are split as they were."""
    own, overrides = written_spec(changes)
    saved = load_file(run_folder / SPEC).tree.get("data") if isinstance(data, Mapping) else None
    splits = data_settings(saved) if isinstance(saved, Mapping) and saved.get("type") == "arrays" else {}
    if isinstance(changes, Mapping):
        kept = {"data": splits | dict(own.get("data", {}))} if splits else {}
        return {"run": str(run_folder), **own, **kept}, list(changes)
    keys = [each.key_or_group.lstrip("+~") for each in parse_overrides(overrides)]
    return [
        write_override("run", str(run_folder)),
        *(f"data.{key}={value}" for key, value in splits.items()),
        *overrides,
    ], keys


def _result(job: Job, result: JobResult, folder: Path | None) -> Result:
    results, history = {**result.best, **result.test}, tuple(job.trainer.state.history)
    return Result(job.trainer.state.network, results, result.best_epoch or 0, history, job.prepared.resolved, folder)


# ---- many runs -------------------------------------------------------------------------------------------------------


class SweepSettings(TypedDict, total=False):
    """What `sweep` may be given by name: the settings of the `sweep` section, with its defaults."""

    workers: int | None
    threads: int
    on_invalid: Literal["stop", "skip"]
    fail_fast: bool
    rerun: Literal["failed", "changed"]


def sweep(
    spec: Spec,
    over: Mapping[str, Sequence[Any]],
    data: Data = None,
    *,
    folder: str | Path | None = None,
    **settings: Unpack[SweepSettings],
) -> Results:
    """Trains every combination of the values in `over`, `{"optimizer.lr": [1e-2, 1e-3], "seed": range(3)}`.

    `spec` and `data` are those of `train`; a key of `over` is one of the config (`model`, `optimizer.lr`,
    `model.params.width`, `model.layers.0.Conv2d.out_channels`). In `folder` (if there is none, in a new one below
    `runs/`) each job has a folder of its own; called again with the same `folder` it does what is left. `settings` are
    those of the `sweep` section, `workers`, `threads`, `on_invalid`, `fail_fast` and `rerun`: as many jobs at a time as
    `workers`, one a core or GPU if not told. Failed jobs are told and stand among the results. Raises SpecError or
    UserError with every wrong spec before anything is trained, where `on_invalid` does not skip them.
    """
    grid, section = _grid(over), _sweep_section(settings)
    with kept_generators(), deep_stack():
        given = prepare_spec(spec, data).data
        _refuse_data(over, given)
        worker = JobWorker(None, threads=section.threads, modules=_modules(), data=given)
        place = None if folder is None else Path(folder)
        with SweepRun(
            section,
            None if place is None else read_sweep(place),
            partial(_sweep_record, place),
            partial(_make_executor, worker, section),
        ) as running:
            checksum = "" if given is None else data_checksum(given)
            try:
                running.launch([_plan(partial(_prepare, spec, data, values), values, checksum) for values in grid])
            except Interrupted as error:
                raise Interrupted(
                    error.number, f"; to go on call it again with folder='{_sweep_folder(running)}'"
                ) from None
            return results(_sweep_folder(running))


def _sweep_section(settings: SweepSettings) -> SweepSpec:
    """The settings as a config has them; TypeError names one that there is not, as Python would."""
    unknown = [name for name in settings if name not in SweepSpec.model_fields]
    if unknown:
        raise TypeError(f"sweep() got an unexpected keyword argument '{unknown[0]}'")
    return SweepSpec(**settings)


def _sweep_folder(running: SweepRun) -> Path:
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


def _plan(prepare: Callable[[], Steps], values: Values, checksum: str) -> PlanJob:
    overrides = tuple(f"{key}={_as_text(value)}" for key, value in values.items())
    return partial(plan_job, overrides, prepare, checksum)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _prepare(spec: Spec, data: Data, values: Values) -> Steps:
    """A job's steps, without arrays: those are given to each process once."""
    chosen = {key: value for key, value in values.items() if key in GROUPS and isinstance(value, str)}
    others = {key: value for key, value in values.items() if key not in chosen}
    words = [write_choice(key, value) for key, value in chosen.items()]
    preparing = prepare_spec({**spec, **chosen} if isinstance(spec, Mapping) else [*spec, *words], data, others)
    return replace(preparing, data=None), None


def _sweep_record(place: Path | None) -> SweepRecord:
    if place is None:
        now = datetime.now()
        return SweepRecord(new_folder(Path(RUNS) / f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}_sweep"))
    place.mkdir(parents=True, exist_ok=True)
    return SweepRecord(place)


def _make_executor(worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
    """Processes; this one where they could not know the parts that a notebook or script has registered itself."""
    if "__main__" in worker.modules:
        return InlineExecutor(worker)
    return choose_executor(worker, settings.workers, jobs, devices)


def _modules() -> list[str]:
    """The modules that have registered parts of their own."""
    classes = [each for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS) for each in registry.classes()]
    names = {each.__module__ for each in (*classes, *SOURCES.values())}
    return sorted(name for name in names if name.split(".")[0] not in ("torch", "dlspec"))
