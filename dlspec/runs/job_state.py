"""The states of a run or of a sweep's job: one vocabulary for files, tables and code."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """What has become of a run or of a sweep's job. The values are the words that files and tables have.

    `KILLED` is never written: whoever reads a run's folder judges so of one that ended without a word.
    """

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    KILLED = "killed"

    def __repr__(self) -> str:
        """The word as any other text: rows of results are shown to users."""
        return str.__repr__(self)


def read_state(value: object) -> JobState | None:
    """The state that a file names, None where it names none that there is."""
    return JobState(value) if isinstance(value, str) and value in _STATE_NAMES else None


_STATE_NAMES = frozenset(state.value for state in JobState)
