"""Messages and exit codes of commands that end with an error."""

from __future__ import annotations

import errno

from dlspec.errors import SpecError, UserError, format_problems
from dlspec.formatting import first_line

# Disk space, quota, open files (of the process and of the system), processes.
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
EXIT_OK, EXIT_FAILED, EXIT_INVALID, EXIT_ROWS_LEFT_OUT, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def message_and_exit_code(error: BaseException) -> tuple[str, int] | None:
    """Return the message to print instead of a traceback, and the exit code; None for a bug in dlspec."""
    if isinstance(error, UserError):
        return str(error), EXIT_INVALID
    from dlspec.config.hydra_errors import problem_from_hydra_error
    from dlspec.errors import TrainingFailed
    from dlspec.training.health.out_of_memory import is_out_of_memory

    problem = problem_from_hydra_error(error)
    if problem is not None:
        return str(SpecError([problem])), EXIT_INVALID
    if isinstance(error, TrainingFailed):
        return str(error), EXIT_FAILED
    if is_out_of_memory(error):
        return f"out of memory: {first_line(error) or type(error).__name__}", EXIT_FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"can't use {error.filename}: {error.strerror}", EXIT_FAILED
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return f"the system refused: {error.strerror}", EXIT_FAILED
    return None


def format_error_line(error: BaseException) -> str:
    """Format an error in one line, for a table."""
    if isinstance(error, SpecError):
        first = error.problems[0]
        return f"{first.path} {first.found}".strip()
    reported = message_and_exit_code(error)
    return first_line(reported[0] if reported else f"{type(error).__name__}: {error}")


def format_error_details(error: Exception) -> str:
    """Format the problems of one job of a sweep, without the line that says what was (not) done."""
    if isinstance(error, SpecError):
        return "\n".join(format_problems(error.problems))
    reported = message_and_exit_code(error)
    return reported[0] if reported else format_error_line(error)
