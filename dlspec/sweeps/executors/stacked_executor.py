"""Run jobs as stacks in several processes; those that can't be stacked, or would be slower, run one by one."""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from math import ceil
from typing import Any, Self

from dlspec.sweeps.executors.executor import (
    ExecutorEvent,
    ExecutorMessage,
    ProgressScope,
    TaskEnded,
    TaskReported,
    TaskStarted,
)
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.executors.process_executor import ProcessPool
from dlspec.sweeps.executors.stack_worker import (
    JobStack,
    MemberReport,
    StackMessage,
    StackReport,
    StackWorker,
)
from dlspec.sweeps.records.planned_job import PlannedJob

MAX_STACKED_JOBS = 32  # more members are not faster, and keep more in memory
MAX_GROUPED_JOBS = 1_000  # looked at together to find jobs that can be stacked

NumberedJob = tuple[int, PlannedJob]  # a job and its number among the tasks


class StackedExecutor:
    """Runs jobs that differ only in numbers as stacks.

    Args:
        process_variables: The additional environment variables of each process; one process for each item.
        worker: Trains the jobs.
        is_forced: Whether jobs are stacked also where that is slower.
    """

    progress_scope: ProgressScope = "all"
    starts_together = False

    def __init__(
        self, process_variables: Sequence[Mapping[str, str]], worker: JobWorker, *, is_forced: bool = False
    ) -> None:
        self._pool = ProcessPool(process_variables, pickle.dumps(StackWorker(worker)))
        self._processes, self._is_forced = len(process_variables), is_forced

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._pool.is_stopping

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.__exit__(kind)

    def stop(self) -> None:
        """Start no further job, and ask the running ones to save and end."""
        self._pool.stop()

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Run the jobs and yield their events; yield None when nothing happened for `poll_seconds`."""
        remaining = iter(tasks)
        first = next(remaining, None)
        if first is None:
            return
        if first.only_builds:  # so are the others
            yield from self._pool.run(chain([first], remaining), poll_seconds)
            return
        numbered = enumerate(chain([first], remaining))
        while jobs := list(islice(numbered, MAX_GROUPED_JOBS)):
            if self.is_stopping:
                return
            yield from _GroupedJobs(jobs, self._processes, is_forced=self._is_forced).run(self._pool, poll_seconds)


class _GroupedJobs:
    """Jobs, some of them in stacks.

    A job leaves its stack for the queue of single jobs if the stack is refused, or if its process dies.
    """

    def __init__(self, jobs: Sequence[NumberedJob], processes: int, *, is_forced: bool) -> None:
        stacks, singles = _make_stacks(jobs, processes)
        self._waiting: deque[tuple[NumberedJob, ...]] = deque([*stacks, *((each,) for each in singles)])
        self._given: list[tuple[NumberedJob, ...]] = []  # by the number of the pool's task
        self._ended: set[int] = set()
        self._started: set[int] = set()
        self._is_forced = is_forced
        self._total = len(jobs)
        self._stacked = 0
        self._refusals: Counter[str] = Counter({"no other job differs from them only in numbers": len(singles)})
        self._open_stacks = len(stacks)

    def run(self, pool: ProcessPool, poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Run the jobs in the processes of a pool."""
        if self._open_stacks == 0:
            yield ExecutorMessage(describe_stacking(0, self._total, self._refusals))
        while self._waiting and not pool.is_stopping:
            for event in pool.run(self._give_tasks(), poll_seconds):
                yield from self._translate(event)

    def _give_tasks(self) -> Iterator[PlannedJob | JobStack]:
        self._given.clear()
        while self._waiting:
            group = self._waiting.popleft()
            self._given.append(group)
            jobs = tuple(job for _, job in group)
            yield jobs[0] if len(jobs) == 1 else JobStack(jobs, self._is_forced)

    def _translate(self, event: ExecutorEvent | None) -> Iterator[ExecutorEvent | None]:
        """Turn an event of a stack into those of its jobs."""
        if isinstance(event, TaskStarted):
            yield from self._start(self._given[event.task][:1] if len(self._given[event.task]) == 1 else ())
        elif isinstance(event, TaskReported):
            yield from self._handle_report(self._given[event.task], event.report)
        elif isinstance(event, TaskEnded):
            yield from self._handle_end(self._given[event.task], event)
        else:
            yield event

    def _start(self, group: Sequence[NumberedJob]) -> Iterator[TaskStarted]:
        for number, _ in group:
            if number not in self._started:
                self._started.add(number)
                yield TaskStarted(number)

    def _handle_report(self, group: Sequence[NumberedJob], report: Any) -> Iterator[ExecutorEvent]:
        if isinstance(report, MemberReport):
            number = group[report.index][0]
            self._ended.add(number)
            yield TaskEnded(number, report.result)
        elif isinstance(report, StackMessage):
            yield ExecutorMessage(report.text)
        else:
            self._stacked += len(group)
            yield from self._start(group)
            yield from self._end_decision()

    def _handle_end(self, group: Sequence[NumberedJob], event: TaskEnded) -> Iterator[ExecutorEvent]:
        if len(group) == 1:
            yield TaskEnded(group[0][0], event.result, event.death_reason)
            return
        if isinstance(event.result, StackReport) and event.result.refusal:
            self._refusals[event.result.refusal] += len(group)
            yield from self._end_decision()
        # Without a refusal its process has died: each of the others continues by itself, from its checkpoint.
        self._waiting.extend((each,) for each in group if each[0] not in self._ended)

    def _end_decision(self) -> Iterator[ExecutorMessage]:
        """Yield how many jobs are stacked, when that is known for all of them."""
        self._open_stacks -= 1
        if self._open_stacks == 0:
            yield ExecutorMessage(describe_stacking(self._stacked, self._total, self._refusals))


def _make_stacks(
    jobs: Sequence[NumberedJob], processes: int
) -> tuple[list[tuple[NumberedJob, ...]], list[NumberedJob]]:
    """Divide jobs into stacks of about equal size, so that all processes have some, and single jobs."""
    groups: defaultdict[str, list[NumberedJob]] = defaultdict(list)
    for each in jobs:
        groups[each[1].stack_key].append(each)
    stacks: list[tuple[NumberedJob, ...]] = []
    singles: list[NumberedJob] = []
    for group in groups.values():
        count = max(min(processes, len(group) // 2), ceil(len(group) / MAX_STACKED_JOBS))
        if len(group) == 1:
            singles += group
        else:
            stacks += (tuple(group[start::count]) for start in range(count))
    return stacks, singles


def describe_stacking(stacked: int, total: int, refusals: Mapping[str, int]) -> str:
    """Describe how many jobs are stacked, and why the others are not.

    Args:
        stacked: The number of jobs in stacks.
        total: The number of all jobs.
        refusals: The number of the other jobs by reason.
    """
    reasons = "; ".join(f"{count:,} do not: {reason}" for reason, count in refusals.items() if count)
    return f"{stacked:,} of {total:,} jobs train stacked" + (f"; {reasons}" if reasons else "")
