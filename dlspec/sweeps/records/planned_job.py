"""A job of a sweep: its plan, and its entry in the sweep with the result so far."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dlspec.config.composition import InvalidOverrides
from dlspec.config.hydra_run import HydraJob
from dlspec.jobs.composed_spec import collect_override_problems
from dlspec.jobs.error_reporting import format_error_details, format_error_line, message_and_exit_code
from dlspec.jobs.job_hash import compute_job_hash, compute_shape_key
from dlspec.jobs.run_preparation import Preparation
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions

# What has changed since a job was trained; "unknown" if the versions that trained it were lost or never written.
Change = Literal["code", "data", "unknown", ""]
NO_FOLDER = Path()  # the folder of a job that has no number yet, or was refused
# A job's preparation, and the job as Hydra runs it (None outside Hydra).
JobSteps = tuple[Preparation, HydraJob | None]


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep: what it trains, and where. The process that trains it builds a `jobs.job.Job` from it."""

    overrides: tuple[str, ...]
    hash: str  # identifies the job in `sweep.json` when the sweep is started again
    shape_key: str = ""  # equal for jobs whose networks have the same shapes
    device: str = ""  # `trainer.device`
    pickled: bytes = b""  # its `JobSteps`: as objects, those of ten thousand jobs would fill the memory
    number: int = -1  # set when the sweep starts
    folder: Path = NO_FOLDER  # set when the sweep starts
    starts_over: bool = False  # whether an earlier run in the folder is removed instead of resumed
    is_recorded: bool = False  # whether `sweep.json` contained the job before
    only_builds: bool = False  # whether it is only built, to check its shapes, and not trained

    def load_steps(self) -> JobSteps:
        """Unpickle the job's steps."""
        steps: JobSteps = pickle.loads(self.pickled)
        return steps


@dataclass(eq=False)
class SweepEntry:
    """A row of a sweep's table and of `sweep.json`: a planned job and its result so far.

    The fields are replaced while the sweep runs.
    """

    job: PlannedJob
    result: JobResult = JobResult()  # noqa: RUF009  # it is frozen
    versions: JobVersions = JobVersions()  # noqa: RUF009  # the code and data that it was trained with
    is_done: bool = False  # whether an earlier start of the sweep finished it
    is_started: bool = False  # whether an earlier start of the sweep left a checkpoint that it is resumed from
    changed: Change = ""  # what has changed since it was finished or started
    started_at: float = 0.0  # by `time.monotonic`, for the display
    seconds: float = 0.0  # how long it ran, for the display

    @property
    def status(self) -> JobState:
        """The job's state."""
        return self.result.status

    @property
    def is_refused(self) -> bool:
        """Whether the job's spec is invalid."""
        return self.status is JobState.REFUSED

    @property
    def needs_training(self) -> bool:
        """Whether the job is valid and not finished."""
        return not self.is_refused and not self.is_done

    @property
    def was_trained(self) -> bool:
        """Whether an earlier start of the sweep trained the job, or a part of it."""
        return self.is_done or self.is_started

    def refuse(self, result: JobResult) -> None:
        """Mark the job as refused with `result`. A new job is then identified by a hash of its overrides."""
        if not self.job.is_recorded:
            self.job = replace(self.job, hash=_hash_refused_job(self.job.overrides))
        self.result = result


# Plans one job: composes its config and checks its settings.
PlanJob = Callable[[], SweepEntry]


def plan_jobs(
    plans: Sequence[PlanJob], max_refused: int, show_progress: Callable[[int], None] = lambda done: None
) -> list[SweepEntry]:
    """Plan the jobs, and stop after `max_refused` invalid ones: locating a problem in its file takes 0.1 s.

    Args:
        plans: Plan a job each.
        max_refused: The number of invalid jobs after which the rest is not planned.
        show_progress: Called with the number of jobs that are planned.
    """
    entries: list[SweepEntry] = []
    refused = 0
    for plan in plans:
        entries.append(plan())
        show_progress(len(entries))
        if entries[-1].is_refused:
            refused += 1
        if refused == max_refused:
            break
    return entries


def plan_job(overrides: tuple[str, ...], prepare: Callable[[], JobSteps], data_checksum: str = "") -> SweepEntry:
    """Plan a job and check its settings; a job with an invalid spec gets a refused entry.

    Args:
        overrides: The overrides in which the job differs from the other jobs of the sweep.
        prepare: Makes the job's steps. Errors that `message_and_exit_code` has a message for refuse the job; others
            are raised.
        data_checksum: Checksum of data that were given in Python; '' if there are none.
    """
    try:
        preparation, hydra_job = prepare()
        spec = preparation.read()
    except InvalidOverrides as refused:
        return _make_refused_entry(overrides, collect_override_problems(refused))
    except Exception as error:
        if message_and_exit_code(error) is None:
            raise
        return _make_refused_entry(overrides, error)
    pickled = pickle.dumps((preparation, hydra_job))
    hash_ = compute_job_hash(spec, data_checksum)
    job = PlannedJob(overrides, hash_, compute_shape_key(spec), spec.trainer.device, pickled)
    return SweepEntry(job, versions=JobVersions(data=data_checksum))


def _make_refused_entry(overrides: tuple[str, ...], error: Exception) -> SweepEntry:
    result = JobResult(JobState.REFUSED, error=format_error_line(error), text=format_error_details(error))
    return SweepEntry(PlannedJob(overrides, _hash_refused_job(overrides)), result)


def _hash_refused_job(overrides: Sequence[str]) -> str:
    """Hash an invalid job by its overrides: an invalid spec has no other hash by which a sweep could match it."""
    return "refused " + hashlib.sha256("\n".join(overrides).encode(errors="backslashreplace")).hexdigest()[:16]
