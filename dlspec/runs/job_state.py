"""The states of a run or of a sweep's job, as used in files, tables and code."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """State of a run or of a sweep's job. The values are written to files and shown in tables.

    `KILLED` is never written: readers of a run's folder infer it if the process ended without writing a final state.
    """

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    KILLED = "killed"

    def __repr__(self) -> str:
        """Show the state like any other string, as users see it in rows of results."""
        return str.__repr__(self)


FINAL_STATES = (JobState.FINISHED, JobState.FAILED, JobState.INTERRUPTED)  # a run that its process has ended


def read_state(value: object) -> JobState | None:
    """Convert a value from a file to a state; None if it is not the name of one."""
    return JobState(value) if isinstance(value, str) and value in _STATE_NAMES else None


_STATE_NAMES = frozenset(state.value for state in JobState)
