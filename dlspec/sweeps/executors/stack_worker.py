"""Train the jobs of a stack in the process that calls it: their steps are computed together."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlspec.config.hydra_run import ActiveHydraConfig
from dlspec.jobs.job import Job
from dlspec.runs.job_result import JobResult
from dlspec.runs.log_file import separate_job_logs
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.training.checkpoint_parts import estimate_checkpoint_bytes
from dlspec.training.stacking.stack import Stack
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.stacking_probe import MIN_GAIN, find_obstacle, find_single_layer, measure_steps

log = logging.getLogger("dlspec")

COMPILED_SAVING = 0.6  # the part of a stacked step's time that compiling saves: measured 0.69 to 0.86
MAX_STACK_BYTES = 2**30  # of weights, gradients, optimizer states and outputs of layers


@dataclass(frozen=True)
class JobStack:
    """Jobs that may be trained as a stack."""

    jobs: tuple[PlannedJob, ...]
    is_forced: bool = False  # whether they are stacked also where that is slower


@dataclass(frozen=True)
class StackReport:
    """What happens to a stack: `refusal` says why it is not trained, '' if it is."""

    refusal: str = ""


@dataclass(frozen=True)
class MemberReport:
    """The result of a job of a stack, sent when it has ended."""

    index: int  # in the stack
    result: JobResult


@dataclass(frozen=True)
class StackMessage:
    """Something about a stack that the user should know."""

    text: str


class StackWorker:
    """Trains single jobs as its `JobWorker` does, and stacks of jobs.

    Args:
        worker: trains a job.
    """

    def __init__(self, worker: JobWorker) -> None:
        self._worker = worker
        self._members: list[JobWorker] = []
        self._is_stopping = False
        self._send: Callable[[Any], None] = _ignore_report

    def send_reports(self, send: Callable[[Any], None]) -> None:
        """Take the function that sends the results of a stack's members as soon as they have ended."""
        self._send = send

    def stop(self) -> None:
        """Ask the running jobs to save and end; every later job ends at once."""
        self._is_stopping = True
        for worker in (self._worker, *self._members):
            worker.stop()

    def __call__(self, task: PlannedJob | JobStack) -> JobResult | StackReport:
        """Train a job and return its result, or a stack, whose jobs send theirs."""
        if isinstance(task, PlannedJob):
            return self._worker(task)
        self._worker.prepare_process()
        size, saved_seconds = 0, 0.0
        try:
            hydra_job = task.jobs[0].load_steps()[1]
            if hydra_job is not None and not hydra_job.is_plain:
                return StackReport("hydra.job.chdir or hydra.job.env_set changes their process")
            first = self._worker.build_job(task.jobs[0])
            refusal, size = find_obstacle(first.trainer), _find_stack_size(first)
            if not refusal and not task.is_forced:
                refusal, saved_seconds = _find_loss(first.trainer, min(size, len(task.jobs)))
        except Exception as error:  # the job reports it when it is trained by itself
            log.debug("no stack: %s", error)
            return StackReport("the first of them can't be built")
        if refusal or size < 2:
            return StackReport(refusal or "two of them do not fit in the memory of a stack")
        self._send(StackReport())
        with _use_settings(first):
            del first
            for start in range(0, len(task.jobs), size):
                self._train_members(task.jobs[start : start + size], start, saved_seconds)
        return StackReport()

    def _train_members(self, jobs: Sequence[PlannedJob], start: int, saved_seconds: float) -> None:
        """Train jobs as one stack; the first of them has the index `start`."""
        states = (ActiveHydraConfig(), ProcessOutput())
        members = [StackMember(self._make_task(job, len(jobs)), states) for job in jobs]
        stack = Stack(members, saved_seconds, lambda text: self._send(StackMessage(text)))
        for index, result in stack.run():
            self._send(MemberReport(start + index, result))
        self._members.clear()
        self._worker.free_memory()

    def _make_task(self, job: PlannedJob, members: int) -> Callable[[StackMember], JobResult]:
        def train(member: StackMember) -> JobResult:
            worker = self._worker.for_member(member, members)
            self._members.append(worker)
            if self._is_stopping:
                worker.stop()
            with separate_job_logs():
                return worker(job)

        return train


def _ignore_report(report: Any) -> None: ...


def _find_loss(trainer: Trainer, members: int) -> tuple[str, float]:
    """Return why stacked steps are not faster than single ones, '' if they are, and what compiling saves a step."""
    single_layer = find_single_layer(trainer.model.network)
    if single_layer:
        return f"{single_layer} is not faster for several jobs at once", 0.0
    probe = measure_steps(trainer, members)
    is_faster = probe.gain >= MIN_GAIN
    refusal = "" if is_faster else f"their steps are {probe.gain:.2f} times as fast stacked as one by one"
    return refusal, probe.stacked * COMPILED_SAVING


def _find_stack_size(first: Job) -> int:
    """Return how many jobs fit in the memory of a stack."""
    trainer = first.trainer
    outputs = trainer.backend.largest_tensor_bytes(trainer.settings.initial_batch_size)
    return MAX_STACK_BYTES // (3 * estimate_checkpoint_bytes(trainer.state) + 8 * outputs + 1)


@contextmanager
def _use_settings(first: Job) -> Iterator[None]:
    """Apply the settings of the process that all members have, and would otherwise restore one after the other."""
    trainer, level = first.trainer, log.level
    log.setLevel(logging.DEBUG)
    try:
        with trainer.backend.apply_settings(trainer.settings.initial_batch_size):
            del trainer, first
            yield
    finally:
        log.setLevel(level)


class ProcessOutput:
    """Where the process's output goes: to the log of the job that is running."""

    def exchange(self, kept: tuple[int, int] | None) -> tuple[int, int]:
        """Send the output where it went for another job, and return where it went before."""
        before = (os.dup(1), os.dup(2))
        if kept is not None:
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
        return before
