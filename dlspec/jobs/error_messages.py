"""What is told to the user when a command ends with an error, and the exit code that goes with it."""

from __future__ import annotations

from dlspec.cli.names import FAILED, WRONG
from dlspec.errors import MOST_SHOWN, Problem, SpecError, UserError


def told(error: BaseException) -> tuple[str, int] | None:
    """The text without a traceback, and the exit code; None for an error that is a defect of dlspec's own."""
    if isinstance(error, UserError):
        return str(error), WRONG
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dlspec.training.out_of_memory import is_out_of_memory
    from dlspec.training.state import TrainingFailed

    if isinstance(error, HydraException | OmegaConfBaseException):
        return str(SpecError([_composing(error)])), WRONG
    if isinstance(error, TrainingFailed):
        return str(error), FAILED
    if is_out_of_memory(error):
        return f"out of memory: {str(error).strip() or type(error).__name__}".split("\n")[0], FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"can't use {error.filename}: {error.strerror}", FAILED
    return None


def one_line(error: BaseException) -> str:
    """The same in one line, for a table."""
    if isinstance(error, SpecError):
        first = error.problems[0]
        return f"{first.path} {first.found}".strip()
    text = told(error)
    return text[0].split("\n")[0] if text else f"{type(error).__name__}: {error}".split("\n")[0]


def in_full(error: Exception) -> str:
    """The mistakes alone, of a job among others: what was done for that is told at the end."""
    if isinstance(error, SpecError):
        lines = [line for problem in error.problems[:MOST_SHOWN] for line in problem.lines()]
        return "\n".join(
            [*lines, *([f"... and {more:,} more"] if (more := len(error.problems) - MOST_SHOWN) > 0 else [])]
        )
    known = told(error)
    return known[0] if known else one_line(error)


def _composing(error: Exception) -> Problem:
    """Hydra's and OmegaConf's complaints about what a user's config asks of Hydra itself."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return Problem("config", lines[0] if lines else type(error).__name__)
