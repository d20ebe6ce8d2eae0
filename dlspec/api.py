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
from dlspec.config.overrides import format_choice, parse_overrides
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES
from dlspec.errors import UserError, format_value
from dlspec.formatting import format_override
from dlspec.jobs import run_resuming
from dlspec.jobs.job import Job
from dlspec.jobs.job_hash import compute_data_checksum
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import (
    DataInput,
    SpecInput,
    extract_data_settings,
    prepare_spec,
    split_spec,
    to_plain_value,
)
from dlspec.language.problems import Problems, raise_problems
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.limits import allow_deep_recursion
from dlspec.network.weights.weight_loading import load_weights
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from dlspec.report.results import Results, results
from dlspec.runs.file_names import DEFAULT_RUNS_FOLDER, SPEC_FILE
from dlspec.runs.io import make_run_folder
from dlspec.runs.job_result import JobResult
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.executor_choice import choose_executor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.records.planned_job import JobSteps, PlanJob, plan_job
from dlspec.sweeps.records.sweep_record import SweepRecord, read_sweep_record
from dlspec.sweeps.sweep_run import SweepRun
from dlspec.training.health.out_of_memory import OutOfMemory, clear_traceback
from dlspec.training.runtime.interruption import Interrupted
from dlspec.training.runtime.randomness import preserve_generators

P = ParamSpec("P")
T = TypeVar("T")
OVER_FIX = "write what to try by its key: over={'optimizer.lr': [0.01, 0.001], 'seed': range(3)}"
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
        folder_note = "" if self.folder is None else f", folder {self.folder}"
        return f"Result({results}, best epoch {self.best_epoch}{folder_note})"


@allow_deep_recursion()
def build(spec: SpecInput, data: DataInput = None) -> nn.Module:
    """The network that `spec` describes, built for `data`, its weights drawn from the spec's seed.

    `spec` is a mapping as in YAML, `{"model": "cnn", "seed": 1}` or `{"layers": [...]}`, or a list of overrides as on
    the command line. `data` is arrays by field name with a `target`, a data set's name, its settings, or what it would
    state (`{"shape": [3, 32, 32], "num_classes": 10}`; None classes: the target is a number). The spec's own `data`
    says how arrays are split (validation, test, split_seed) or changes a setting of the set that `data` names; where it
    names a data set itself, `data` takes its place. The random generators of Python, NumPy and PyTorch are left as they
    were. Raises SpecError with every mistake, UserError for what is no spec or no data.
    """
    with preserve_generators():
        return prepare_spec(spec, data).build().network.module.cpu()


def _release_memory_on_error(function: Callable[P, T]) -> Callable[P, T]:
    """Out of memory, nothing is held by the error, which a notebook keeps."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except OutOfMemory as error:
            clear_traceback(error)
            raise

    return wrapper


def load(folder: str | Path, data: DataInput = None) -> nn.Module:
    """The network of the run in `folder` with its best weights (or its last), on the CPU and in eval mode.

    `data` are given again where the run's were made in Python. Raises UserError where there is no such run or its
    weights are not there, SpecError where its spec imports modules that were not imported before.
    """
    run_folder = run_resuming.find_run_folder(str(folder))
    spec, _ = _apply_changes(run_folder, {}, data)
    problems = Problems()
    with preserve_generators(), allow_deep_recursion():
        network = prepare_spec(spec, data, is_resumed=True).build().network.module.cpu().eval()
        load_weights(network, WeightsSpec(path=str(run_folder), strict=True), problems)
    raise_problems(problems, SourceMap)
    return network


@_release_memory_on_error
def train(spec: SpecInput, data: DataInput = None, *, folder: str | Path | None = None) -> Result:
    """Trains and tests; a new run folder is made below `folder`, and nothing is written where there is none.

    `spec` and `data` are those of `build`, and as there the random generators are left as they were. Raises SpecError
    for a wrong spec, TrainingFailed where the training itself fails.
    """
    with preserve_generators():
        with allow_deep_recursion():
            job = make_job(prepare_spec(spec, data))
        if folder is None:
            return _make_result(job, job.run(), None)
        job.check_space(Path(folder))
        run_folder = make_run_folder(Path(folder), "run")
        return _make_result(job, job.run(run_folder), run_folder)


@_release_memory_on_error
def resume(folder: str | Path, data: DataInput = None, *, changes: SpecInput = (), allow: Sequence[str] = ()) -> Result:
    """Goes on with the run in `folder` from its newest checkpoint, as if it had never stopped.

    Where the data were arrays or a data set made in Python, the same are given again as `data`. `changes` are a spec
    that says only what is other than before (`{"trainer": {"epochs": 40}}`); keys that change what was trained before
    must be named in `allow`. A run that is finished is tested once more. The generators are left as they were. Raises
    SpecError for changes that are not allowed, UserError where there is no run or another process trains there,
    TrainingFailed where the checkpoint does not fit or the training fails.
    """
    run_folder = run_resuming.find_run_folder(str(folder))
    spec, written_keys = _apply_changes(run_folder, changes, data)
    with preserve_generators(), run_resuming.lock_newest_checkpoint(run_folder) as found:
        with allow_deep_recursion():
            job = make_job(prepare_spec(spec, data, is_resumed=found is not None))
        changed = run_resuming.find_changes(run_folder, job, found, written_keys)
        run_resuming.refuse_changes(run_folder, job, changed, allow)
        return _make_result(job, run_resuming.continue_run(job, run_folder, found), run_folder)


def _apply_changes(run_folder: Path, changes: SpecInput, data: DataInput) -> tuple[SpecInput, list[str]]:
    """The run's spec with what is changed, and the keys of that; arrays are split as they were."""
    changed_sections, overrides = split_spec(changes)
    saved = load_yaml_file(run_folder / SPEC_FILE).tree.get("data") if isinstance(data, Mapping) else None
    splits = extract_data_settings(saved) if isinstance(saved, Mapping) and saved.get("type") == "arrays" else {}
    if isinstance(changes, Mapping):
        kept = {"data": splits | dict(changed_sections.get("data", {}))} if splits else {}
        return {"run": str(run_folder), **changed_sections, **kept}, list(changes)
    keys = [each.key_or_group.lstrip("+~") for each in parse_overrides(overrides)]
    return [
        format_override("run", str(run_folder)),
        *(f"data.{key}={value}" for key, value in splits.items()),
        *overrides,
    ], keys


def _make_result(job: Job, result: JobResult, folder: Path | None) -> Result:
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
    spec: SpecInput,
    over: Mapping[str, Sequence[Any]],
    data: DataInput = None,
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
    grid, section = _expand_grid(over), _make_sweep_section(settings)
    with preserve_generators(), allow_deep_recursion():
        dataset = prepare_spec(spec, data).data
        _refuse_data_keys(over, dataset)
        worker = JobWorker(None, threads=section.threads, modules=_find_part_modules(), data=dataset)
        sweep_folder = None if folder is None else Path(folder)
        with SweepRun(
            section,
            None if sweep_folder is None else read_sweep_record(sweep_folder),
            partial(_open_sweep_record, sweep_folder),
            partial(_make_executor, worker, section),
        ) as sweep_run:
            checksum = "" if dataset is None else compute_data_checksum(dataset)
            try:
                sweep_run.launch(
                    [_make_plan(partial(_prepare_job, spec, data, values), values, checksum) for values in grid]
                )
            except Interrupted as error:
                raise Interrupted(
                    error.number, f"; to go on call it again with folder='{_get_sweep_folder(sweep_run)}'"
                ) from None
            return results(_get_sweep_folder(sweep_run))


def _make_sweep_section(settings: SweepSettings) -> SweepSpec:
    """The settings as a config has them; TypeError names one that there is not, as Python would."""
    unknown = [name for name in settings if name not in SweepSpec.model_fields]
    if unknown:
        raise TypeError(f"sweep() got an unexpected keyword argument '{unknown[0]}'")
    return SweepSpec(**settings)


def _get_sweep_folder(sweep_run: SweepRun) -> Path:
    assert sweep_run.record is not None  # or something was raised
    return sweep_run.record.folder


def _expand_grid(over: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination, the last key's values the fastest."""
    if not isinstance(over, Mapping) or not over:
        raise UserError(f"nothing to sweep over; {OVER_FIX}")
    for key, values in over.items():
        if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
            raise UserError(f"over['{key}'] is no list of values; {OVER_FIX}")
    combinations = product(*([to_plain_value(each) for each in values] for values in over.values()))
    return [dict(zip(over, each, strict=True)) for each in combinations]


def _refuse_data_keys(over: Mapping[str, Any], dataset: Dataset | None) -> None:
    wrong = [key for key in over if key.split(".")[0] == "data"]
    if wrong and dataset is not None:
        raise UserError(f"over['{wrong[0]}']: the data were given in Python; sweep over each of them by itself")


def _make_plan(prepare: Callable[[], JobSteps], values: Values, checksum: str) -> PlanJob:
    overrides = tuple(f"{key}={_format_value(value)}" for key, value in values.items())
    return partial(plan_job, overrides, prepare, checksum)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else format_value(value)


def _prepare_job(spec: SpecInput, data: DataInput, values: Values) -> JobSteps:
    """A job's steps, without arrays: those are given to each process once."""
    chosen = {key: value for key, value in values.items() if key in GROUPS and isinstance(value, str)}
    others = {key: value for key, value in values.items() if key not in chosen}
    choices = [format_choice(key, value) for key, value in chosen.items()]
    preparation = prepare_spec({**spec, **chosen} if isinstance(spec, Mapping) else [*spec, *choices], data, others)
    return replace(preparation, data=None), None


def _open_sweep_record(folder: Path | None) -> SweepRecord:
    if folder is None:
        now = datetime.now()
        return SweepRecord(make_run_folder(Path(DEFAULT_RUNS_FOLDER) / f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}_sweep"))
    folder.mkdir(parents=True, exist_ok=True)
    return SweepRecord(folder)


def _make_executor(worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
    """Processes; this one where they could not know the parts that a notebook or script has registered itself."""
    if "__main__" in worker.modules:
        return InlineExecutor(worker)
    return choose_executor(worker, settings.workers, jobs, devices)


def _find_part_modules() -> list[str]:
    """The modules that have registered parts of their own."""
    classes = [each for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS) for each in registry.classes()]
    names = {each.__module__ for each in (*classes, *SOURCES.values())}
    return sorted(name for name in names if name.split(".")[0] not in ("torch", "dlspec"))
