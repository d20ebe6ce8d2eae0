"""A job of a sweep: as it is planned, and as it goes on in the sweep."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlspec.config.composition import InvalidOverrides
from dlspec.config.hydra_run import HydraJob
from dlspec.jobs.composed_spec import collect_problems
from dlspec.jobs.error_reporting import format_error_details, format_error_line, message_and_exit_code
from dlspec.jobs.job_hash import compute_job_hash, compute_shape_key
from dlspec.jobs.run_preparation import Preparation
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState

NO_FOLDER = Path()  # of a job that has no number yet, or was refused
JobSteps = tuple[Preparation, HydraJob | None]
"""A job's preparation, and what Hydra runs it by if it does."""


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep: what it trains, and where. In the process that trains it, a `jobs.job.Job` is made of it.

    By its `hash` the sweep's folder recognizes it; jobs of one `compute_shape_key` have networks of the same shapes. `pickled`
    are its steps: as objects those of ten thousand jobs fill a memory. `number` and `folder` are there once the sweep
    begins. What a run left in the folder is gone on with, unless the job `starts_over`; `is_known` says that the sweep
    had the job already when it was started again. One that `only_builds` is built to check its shapes, and not trained.
    """

    overrides: tuple[str, ...]
    hash: str
    shape_key: str = ""
    device: str = ""
    pickled: bytes = b""
    number: int = -1
    folder: Path = NO_FOLDER
    starts_over: bool = False
    is_recorded: bool = False
    only_builds: bool = False

    def load_steps(self) -> JobSteps:
        steps: JobSteps = pickle.loads(self.pickled)
        return steps


@dataclass(eq=False)
class SweepEntry:
    """A line of a sweep's table and of its sweep.json: a planned job, and its result so far.

    It changes as the sweep goes on: one or the other is replaced. `code` and `data` say by which code and of which data
    the last finished result is, '' where there is none. A job `is_run_complete` where an earlier call has finished it, and
    `changed` says what has changed since, `code` or `data`. `began` and `seconds` are for the display.
    """

    job: PlannedJob
    result: JobResult = JobResult()  # noqa: RUF009  # it is frozen
    code: str = ""
    data: str = ""
    is_done: bool = False
    changed: str = ""
    started_at: float = 0.0
    seconds: float = 0.0

    @property
    def status(self) -> JobState:
        return self.result.status

    @property
    def is_refused(self) -> bool:
        return self.status is JobState.REFUSED

    @property
    def needs_training(self) -> bool:
        return not self.is_refused and not self.is_done

    def refuse(self, result: JobResult) -> None:
        """Give up a job whose spec is wrong. One that the sweep's folder does not know gets the hash of wrong ones."""
        if not self.job.is_recorded:
            self.job = replace(self.job, hash=_hash_refused_job(self.job.overrides))
        self.result = result


PlanJob = Callable[[], SweepEntry]
"""Plans a job that was asked for: composes its config and checks the form."""


def plan_jobs(plans: Sequence[PlanJob], max_refused: int) -> list[SweepEntry]:
    """The jobs as far as the first `max_refused` that are wrong: finding a mistake's place takes 0.1 s."""
    entries: list[SweepEntry] = []
    refused = 0
    for plan in plans:
        entries.append(plan())
        if entries[-1].is_refused:
            refused += 1
        if refused == max_refused:
            break
    return entries


def plan_job(overrides: tuple[str, ...], prepare: Callable[[], JobSteps], data_checksum: str = "") -> SweepEntry:
    """The job that `prepare` gives the steps of, its form checked; a wrong one is refused.

    `prepare` raises an error that `told` knows for a wrong one; `compute_data_checksum` is that of data that come from Python.
    """
    try:
        preparation, hydra_job = prepare()
        spec = preparation.read()
    except InvalidOverrides as refused:
        return _make_refused_entry(overrides, collect_problems(refused))
    except Exception as error:
        if message_and_exit_code(error) is None:
            raise
        return _make_refused_entry(overrides, error)
    pickled = pickle.dumps((preparation, hydra_job))
    hash_ = compute_job_hash(spec, data_checksum)
    return SweepEntry(PlannedJob(overrides, hash_, compute_shape_key(spec), spec.trainer.device, pickled))


def _make_refused_entry(overrides: tuple[str, ...], error: Exception) -> SweepEntry:
    result = JobResult(JobState.REFUSED, error=format_error_line(error), text=format_error_details(error))
    return SweepEntry(PlannedJob(overrides, _hash_refused_job(overrides)), result)


def _hash_refused_job(overrides: Sequence[str]) -> str:
    """By what a sweep recognizes a wrong job, as long as it stays wrong."""
    return "refused " + hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:16]
