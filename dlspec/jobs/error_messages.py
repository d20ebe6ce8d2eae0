"""What is told to the user when a command ends with an error, and the exit code that goes with it."""

from __future__ import annotations

from dlspec.errors import MOST_SHOWN, SpecError, UserError
from dlspec.text import first_line

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""The exit codes."""


def told(error: BaseException) -> tuple[str, int] | None:
    """The text without a traceback, and the exit code; None for an error that is a defect of dlspec's own."""
    if isinstance(error, UserError):
        return str(error), WRONG
    from dlspec.config.hydra_errors import hydra_problem
    from dlspec.errors import TrainingFailed
    from dlspec.training.health.out_of_memory import is_out_of_memory

    problem = hydra_problem(error)
    if problem is not None:
        return str(SpecError([problem])), WRONG
    if isinstance(error, TrainingFailed):
        return str(error), FAILED
    if is_out_of_memory(error):
        return f"out of memory: {first_line(error) or type(error).__name__}", FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"can't use {error.filename}: {error.strerror}", FAILED
    return None


def one_line(error: BaseException) -> str:
    """The same in one line, for a table."""
    if isinstance(error, SpecError):
        first = error.problems[0]
        return f"{first.path} {first.found}".strip()
    text = told(error)
    return first_line(text[0] if text else f"{type(error).__name__}: {error}")


def in_full(error: Exception) -> str:
    """The mistakes alone, of a job among others: what was done for that is told at the end."""
    if isinstance(error, SpecError):
        lines = [line for problem in error.problems[:MOST_SHOWN] for line in problem.lines()]
        return "\n".join(
            [*lines, *([f"... and {more:,} more"] if (more := len(error.problems) - MOST_SHOWN) > 0 else [])]
        )
    known = told(error)
    return known[0] if known else one_line(error)
