"""What does a sweep's jobs, whichever way: what it is asked, and what it tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

Shown = Literal["all", "jobs"]


@dataclass(frozen=True)
class Began:
    """A process has taken the task."""

    task: int


@dataclass(frozen=True)
class Ended:
    """A task is over: its result, or how its process died."""

    task: int
    result: Any = None
    died: str = ""


class Executor(Protocol):
    """Runs tasks. `shown` is what this process shows: all of them, or a line a job, where each shows itself."""

    @property
    def shown(self) -> Shown: ...

    @property
    def is_stopping(self) -> bool: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *_: object) -> None: ...

    def run(self, tasks: Iterable[Any], seconds: float) -> Iterator[Began | Ended | None]: ...

    def stop(self) -> None: ...
