"""dlspec in Python and notebooks: `build`, `train`, `load`, `resume` and `sweep`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, wraps
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from torch import nn

from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import format_choice
from dlspec.data.dataset import Dataset
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.sources import SOURCES
from dlspec.errors import UserError, format_value
from dlspec.formatting import format_digits
from dlspec.inference.loading.loaded_run import load_run
from dlspec.jobs import run_resuming
from dlspec.jobs.data_inspection import inspect_python_data
from dlspec.jobs.job import Job
from dlspec.jobs.job_hash import compute_data_checksum
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import (
    DataInput,
    SpecInput,
    apply_changes,
    prepare_spec,
    to_plain_value,
)
from dlspec.jobs.ranks import join_ranks, refuse_sweep_of_ranks
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.limits import allow_deep_recursion, explain_raising_limit, get_limit
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from dlspec.report.results import Results, results
from dlspec.runs.file_names import DEFAULT_RUNS_FOLDER
from dlspec.runs.io import make_run_folder
from dlspec.runs.job_result import JobResult
from dlspec.standard_streams import tolerate_output_errors
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.executor_choice import choose_executor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.records.planned_job import JobPlan, JobSteps
from dlspec.sweeps.records.sweep_folder import open_sweep_folder
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.sweep_run import SweepRun
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.distributed import ProcessGroup
from dlspec.training.health.out_of_memory import OutOfMemory, clear_traceback
from dlspec.training.runtime.interruption import Interrupted
from dlspec.training.runtime.randomness import preserve_generators

P = ParamSpec("P")
T = TypeVar("T")
OVER_FIX = "write the values to try by key: over={'optimizer.lr': [0.01, 0.001], 'seed': range(3)}"
Values = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Result:
    """A trained network and its results."""

    network: nn.Module  # with the weights that were tested
    results: Mapping[str, float]  # by name: those of the best epoch and of the test
    best_epoch: int  # counted from 1; 0 if there is none
    history: tuple[Mapping[str, float], ...]  # the results of each epoch
    spec: Mapping[str, Any]  # the whole spec, with every default
    folder: Path | None = None  # the run's folder; None if nothing was written

    def __repr__(self) -> str:
        """Format the results in one line, which is what a notebook should show."""
        results = ", ".join(f"{name} {format_digits(value)}" for name, value in self.results.items())
        folder_note = "" if self.folder is None else f", folder {self.folder}"
        return f"Result({results}, best epoch {self.best_epoch}{folder_note})"


@allow_deep_recursion()
def build(spec: SpecInput, data: DataInput = None, *, target: str | None = None) -> nn.Module:
    """Build the network that a spec describes, with weights drawn from the spec's seed.

    The random generators of Python, NumPy and PyTorch are restored afterwards.

    Args:
        spec: A mapping as in YAML, such as `{"model": "cnn", "seed": 1}` or `{"layers": [...]}`, or a list of overrides
            as on the command line, `["model=cnn"]`. Its `data` section may say how arrays are split (`validation`,
            `test`, `split_seed`) and which targets are `labels`, or change settings of the data set that `data` names.
        data: Arrays by field name with a `target`; or a data set's name or settings; or the data's shapes, such as
            `{"shape": [3, 32, 32], "num_classes": 10}` (`"num_classes": None` makes the target a number); or rows: a
            frame of pandas, polars or pyarrow, a list of mappings, or `(X, y)`, with the settings of `data=table`. It
            replaces a data set that the spec names.
        target: The column, array or field to predict, short for `data.target`.

    Returns:
        The network, on the CPU.

    Raises:
        SpecError: With every problem in the spec.
        UserError: If `spec` is not a spec, or `data` can't be used as data.
    """
    with preserve_generators():
        return prepare_spec(spec, data, target=target).build().network.module.cpu()


def inspect(data: DataInput | Path, **settings: Any) -> Inspection:
    """Read data without training: the kinds of columns and why, missing cells, splits, and what to check.

    Args:
        data: Rows as for `train` (a frame, a list of mappings, `(X, y)`), arrays by name, a file such as "churn.csv",
            the name of a data set, or its settings.
        settings: Settings of `data`, such as `target="churned"`.

    Returns:
        The inspection; `print` shows it as the command `inspect` does, `to_json()` returns its values.

    Raises:
        SpecError: If a setting is wrong, or the data do not fit it.
    """
    return inspect_python_data(data, settings)


def _release_memory_on_error(function: Callable[P, T]) -> Callable[P, T]:
    """Clear an out-of-memory error's traceback: a notebook keeps the error, and with it all tensors in its frames."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except OutOfMemory as error:
            clear_traceback(error)
            raise

    return wrapper


def load(folder: str | Path, data: DataInput = None, *, imports: Sequence[str] = ()) -> nn.Module:
    """Load the network of a run with its best weights, or with its last ones if no best ones were saved.

    The run's data are not read, unless an older version of dlspec trained it.

    Args:
        folder: The run's folder.
        data: The data of the run again, if an older version trained it on data that were given in Python.
        imports: Modules that the run's spec may import.

    Returns:
        The network, on the CPU and in eval mode.

    Raises:
        UserError: If the folder does not contain a run, or its weights are missing.
        SpecError: If its spec imports modules that `imports` does not name.
    """
    run = load_run(folder, imports=imports, data=data, device="cpu")
    return run.network.float() if run.spec.trainer.precision == 64 else run.network


@_release_memory_on_error
@tolerate_output_errors()
def train(
    spec: SpecInput, data: DataInput = None, *, target: str | None = None, folder: str | Path | None = None
) -> Result:
    """Train the network that a spec describes, and test it.

    The random generators of Python, NumPy and PyTorch are restored afterwards. In a script that `torchrun` starts, all
    processes train the network together: each of them must make this call, and gets the result.

    Args:
        spec: The spec, as for `build`.
        data: The data, as for `build`.
        target: What to predict, as for `build`.
        folder: Where a new run folder is made; with None, nothing is written.

    Returns:
        The trained network and its results.

    Raises:
        SpecError: With every problem in the spec.
        UserError: If `spec` is not a spec, or `data` can't be used as data.
        TrainingFailed: If the training fails, for example because the loss becomes nan.
    """
    with preserve_generators(), join_ranks() as group:
        with allow_deep_recursion():
            job = make_job(prepare_spec(spec, data, target=target))
        if not group.is_writer:
            return _make_result(job, job.take_part(), group.broadcast(None))
        _print_data_notes(job)
        run_folder = None if folder is None else _make_folder(job, Path(folder))
        result = job.run(run_folder)
        return _make_result(job, result, group.broadcast(run_folder))


def _make_folder(job: Job, folder: Path) -> Path:
    job.check_disk_space(folder)
    return make_run_folder(folder, "run")


@_release_memory_on_error
@tolerate_output_errors()
def resume(folder: str | Path, data: DataInput = None, *, changes: SpecInput = (), allow: Sequence[str] = ()) -> Result:
    """Resume a run from its newest checkpoint, as if it had never stopped. A finished run is only tested again.

    The random generators of Python, NumPy and PyTorch are restored afterwards.

    Args:
        folder: The run's folder.
        data: The data of the run again, if they were given in Python.
        changes: A spec with only the settings that change, such as `{"trainer": {"epochs": 40}}`.
        allow: Keys that may change although they affect what was trained before.

    Returns:
        The trained network and its results.

    Raises:
        SpecError: For changes that are not allowed.
        UserError: If the folder does not contain a run, or another process trains there.
        TrainingFailed: If the checkpoint does not fit or the training fails.
    """
    run_folder = run_resuming.find_run_folder(str(folder))
    spec, written_keys = apply_changes(run_folder, changes, data)
    with preserve_generators(), join_ranks() as group, _lock_newest_checkpoint(run_folder, group) as found:
        with allow_deep_recursion():
            job = run_resuming.make_resumed_job(prepare_spec(spec, data), found)
        if not group.is_writer:
            return _make_result(job, job.take_part(found), run_folder)
        changed = run_resuming.find_changes(run_folder, job, found, written_keys)
        run_resuming.refuse_changes(run_folder, job, found, changed, allow)
        return _make_result(job, run_resuming.continue_run(job, run_folder, found), run_folder)


@contextmanager
def _lock_newest_checkpoint(folder: Path, group: ProcessGroup) -> Iterator[Snapshot | None]:
    """Lock a run and read its newest checkpoint, in the first process, which sends it to the others."""
    with run_resuming.lock_newest_checkpoint(folder) if group.is_writer else nullcontext() as found:
        yield group.broadcast(found)


def _print_data_notes(job: Job) -> None:
    """Print what was inferred from the data, as the command line does, unless no progress is wanted."""
    if job.prepared.spec.trainer.progress != "none":
        for note in job.prepared.data.notes:
            print(note, file=sys.stderr)


def _make_result(job: Job, result: JobResult, folder: Path | None) -> Result:
    results, history = {**result.best, **result.test}, tuple(job.trainer.state.history)
    return Result(job.trainer.state.network, results, result.best_epoch or 0, history, job.prepared.resolved, folder)


# ---- many runs -------------------------------------------------------------------------------------------------------


class SweepSettings(TypedDict, total=False):
    """Keyword arguments of `sweep`: the settings of the `sweep` section."""

    workers: int | None
    vectorize: bool | Literal["auto"] | None
    threads: int
    on_invalid: Literal["stop", "skip"]
    fail_fast: bool
    rerun: Literal["failed", "changed"]


@tolerate_output_errors()
def sweep(
    spec: SpecInput,
    over: Mapping[str, Sequence[Any]],
    data: DataInput = None,
    *,
    folder: str | Path | None = None,
    **settings: Unpack[SweepSettings],
) -> Results:
    """Train every combination of values.

    Failed jobs are printed, and appear in the results.

    Args:
        spec: The spec, as for `build`.
        over: The values to try by key, such as `{"optimizer.lr": [1e-2, 1e-3], "seed": range(3)}`. A key is a dotted
            path in the config: `model`, `model.params.width`, `model.layers.0.Conv2d.out_channels`.
        data: The data, as for `build`.
        folder: The sweep's folder, with one folder for each job; None makes a new one below `runs/`. If it contains a
            sweep, its finished jobs are not trained again.
        settings: Settings of the `sweep` section: `workers` (jobs at a time; default one for each core or GPU),
            `vectorize` (train jobs that differ only in numbers together: False, True or "auto"), `threads`,
            `on_invalid`, `fail_fast`, `rerun`.

    Returns:
        The results of all jobs in the folder.

    Raises:
        UserError: With every invalid spec, before anything is trained, unless `on_invalid="skip"`.
        Interrupted: After a signal asked the sweep to stop; by then all running jobs are saved.
    """
    refuse_sweep_of_ranks()
    grid, section = _expand_grid(over), _make_sweep_section(settings)
    with preserve_generators(), allow_deep_recursion():
        dataset = prepare_spec(spec, data).data
        _refuse_data_keys(over, dataset)
        worker = JobWorker(None, threads=section.threads, modules=_find_part_modules(), data=dataset)
        with SweepRun(
            section,
            _open_sweep_folder(None if folder is None else Path(folder)),
            partial(_make_executor, worker, section),
        ) as sweep_run:
            checksum = "" if dataset is None else compute_data_checksum(dataset)
            try:
                sweep_run.launch(
                    [
                        _make_job_plan(
                            partial(_prepare_job, spec, data, values, sweep_run.spec_version), values, checksum
                        )
                        for values in grid
                    ]
                )
            except Interrupted as error:
                raise Interrupted(
                    error.number, f"; to resume, call it again with folder='{sweep_run.record.folder}'"
                ) from None
            return results(sweep_run.record.folder)


def _make_sweep_section(settings: SweepSettings) -> SweepSpec:
    """Make a `sweep` section from keyword arguments; raises TypeError for an unknown one, as Python does."""
    unknown = [name for name in settings if name not in SweepSpec.model_fields]
    if unknown:
        raise TypeError(f"sweep() got an unexpected keyword argument '{unknown[0]}'")
    return SweepSpec(**settings)


def _expand_grid(over: Mapping[str, Sequence[Any]]) -> list[Values]:
    """List all combinations of the values; those of the last key change fastest."""
    if not isinstance(over, Mapping) or not over:
        raise UserError(f"nothing to sweep over; {OVER_FIX}")
    for key, values in over.items():
        if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
            raise UserError(f"over['{key}'] must be a list of values; {OVER_FIX}")
    _check_job_count(over)
    combinations = product(*([to_plain_value(each) for each in values] for values in over.values()))
    return [dict(zip(over, each, strict=True)) for each in combinations]


def _check_job_count(over: Mapping[str, Sequence[Any]]) -> None:
    total, limit = prod(len(values) for values in over.values() if hasattr(values, "__len__")), get_limit("jobs")
    if total > limit:
        raise UserError(f"the sweep has {total:,} jobs, at most {limit:,} are allowed; {explain_raising_limit('jobs')}")


def _refuse_data_keys(over: Mapping[str, Any], dataset: Dataset | None) -> None:
    wrong = [key for key in over if key.split(".")[0] == "data"]
    if wrong and dataset is not None:
        raise UserError(
            f"can't sweep over '{wrong[0]}': the data were given in Python; call sweep once for each data set"
        )


def _make_job_plan(prepare: Callable[[], JobSteps], values: Values, checksum: str) -> JobPlan:
    overrides = tuple(f"{key}={_format_value(value)}" for key, value in values.items())
    return JobPlan(overrides, prepare, checksum)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else format_value(value)


def _prepare_job(spec: SpecInput, data: DataInput, values: Values, spec_version: int) -> JobSteps:
    """Make the steps of one job, without the arrays: each process gets those once for all of its jobs."""
    chosen = {key: value for key, value in values.items() if key in GROUPS and isinstance(value, str)}
    others = {key: value for key, value in values.items() if key not in chosen}
    choices = [format_choice(key, value) for key, value in chosen.items()]
    preparation = prepare_spec({**spec, **chosen} if isinstance(spec, Mapping) else [*spec, *choices], data, others)
    return replace(preparation, data=None).with_spec_version(spec_version), None


def _open_sweep_folder(folder: Path | None) -> AbstractContextManager[SweepRecord]:
    now = datetime.now()
    new_folder = Path(DEFAULT_RUNS_FOLDER) / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_sweep"
    return open_sweep_folder(folder or new_folder, is_new=folder is None, allows_other_files=True)


def _make_executor(worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
    """Choose the executor: this process if a notebook or script registered parts, as no other could import them."""
    if "__main__" in worker.modules:
        return InlineExecutor(worker)
    return choose_executor(worker, settings.workers, jobs, devices, vectorize=settings.vectorize or False)


def _find_part_modules() -> list[str]:
    """List the user's modules that have registered parts."""
    classes = [each for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS) for each in registry.classes()]
    names = {each.__module__ for each in (*classes, *SOURCES.values())}
    return sorted(name for name in names if name.split(".")[0] not in ("torch", "dlspec"))
