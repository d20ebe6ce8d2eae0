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
from dlspec.jobs.job_hash import compute_data_key, compute_job_hash, compute_shape_key, compute_stack_key
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
    stack_key: str = ""  # equal for jobs that may be trained as a stack
    data_key: str = ""  # equal for jobs that read the same data
    device: str = ""  # `trainer.device`
    pickled: bytes = b""  # its `JobSteps`: as objects, those of ten thousand jobs would fill the memory
    number: int = -1  # set when the sweep starts
    folder: Path = NO_FOLDER  # set when the sweep starts
    starts_over: bool = False  # whether an earlier run in the folder is removed instead of resumed
    is_recorded: bool = False  # whether `sweep.json` contained the job before
    only_builds: bool = False  # whether it is only built, to check its shapes, and not trained

    @property
    def settings(self) -> tuple[str, ...]:
        """The overrides without those that only say how the sweep runs its jobs."""
        return tuple(each for each in self.overrides if not each.lstrip("+~").startswith(("sweep.", "hydra.")))

    def load_steps(self) -> JobSteps:
        """Unpickle the job's steps."""
        steps: JobSteps = pickle.loads(self.pickled)
        return steps


@dataclass(frozen=True)
class JobPlan:
    """What a job is made from. Composing its config and checking its spec takes 6 ms, so it is not done at once."""

    overrides: tuple[str, ...]  # in which the job differs from the other jobs of the sweep
    prepare: Callable[[], JobSteps]  # makes the job's steps; raises what is wrong with its spec
    data_checksum: str = ""  # of data that were given in Python

    def check(self) -> SweepEntry:
        """Check the spec and return the job; one with an invalid spec is refused."""
        return plan_job(self.overrides, self.prepare, self.data_checksum)


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
    reserved: SweepEntry | None = None  # while the spec is not checked: the recorded job that it probably is
    plan: JobPlan | None = None  # what the job is made from; None for a job read from `sweep.json`
    is_checked: bool = True  # whether the spec was checked; if not, the job has only its overrides and its number

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
    def is_probably_done(self) -> bool:
        """Whether its spec is not checked, and the sweep has finished a job with the same overrides."""
        return self.reserved is not None and self.reserved.status is JobState.FINISHED

    @property
    def was_trained(self) -> bool:
        """Whether an earlier start of the sweep trained the job, or a part of it."""
        return self.is_done or self.is_started

    def check(self) -> None:
        """Check the job's spec, and refuse the job if it is invalid."""
        assert self.plan is not None and not self.is_checked
        checked, self.reserved = self.plan.check(), None
        self.job = replace(checked.job, number=self.job.number)
        self.result, self.versions, self.is_checked = checked.result, checked.versions, True

    def refuse(self, result: JobResult) -> None:
        """Mark the job as refused with `result`. A new job is then identified by a hash of its overrides."""
        if not self.job.is_recorded:
            self.job = replace(self.job, hash=_hash_refused_job(self.job.settings))
        self.result = result


def make_unchecked_entry(plan: JobPlan) -> SweepEntry:
    """Make the entry of a job whose spec is not checked yet."""
    return SweepEntry(PlannedJob(plan.overrides, hash=""), plan=plan, is_checked=False)


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
    shape_key, data_key = compute_shape_key(spec), compute_data_key(spec)
    job = PlannedJob(overrides, hash_, shape_key, compute_stack_key(spec), data_key, spec.trainer.device, pickled)
    return SweepEntry(job, versions=JobVersions(data=data_checksum))


def _make_refused_entry(overrides: tuple[str, ...], error: Exception) -> SweepEntry:
    result = JobResult(JobState.REFUSED, error=format_error_line(error), text=format_error_details(error))
    job = PlannedJob(overrides, "")
    return SweepEntry(replace(job, hash=_hash_refused_job(job.settings)), result)


def _hash_refused_job(settings: Sequence[str]) -> str:
    """Hash an invalid job by its settings as written: a sweep could not match an invalid spec otherwise."""
    return "refused " + hashlib.sha256("\n".join(settings).encode(errors="backslashreplace")).hexdigest()[:16]
