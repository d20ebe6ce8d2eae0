"""Convert errors that Hydra and OmegaConf raise for a user's config to problems."""

from __future__ import annotations

import os
import sys
import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dlspec.errors import Code, Problem

_LIBRARIES = ("hydra", "omegaconf", "antlr4")
TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"
_TRACEBACK_FIX = f"set the environment variable {TRACEBACK_VARIABLE}=1 to see where"


def problem_from_hydra_error(error: BaseException) -> Problem | None:
    """Make a problem of an error of Hydra or OmegaConf; return None for any other error.

    Both libraries also raise Python's own errors for values that they do not expect (`hydra/launcher=16` is a
    ValueError, other values are an AttributeError). The user's values cause these errors too, as dlspec passes
    nothing else to them. With HYDRA_FULL_ERROR=1 they keep their traceback.
    """
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    found = lines[0] if lines else type(error).__name__
    if isinstance(error, HydraException | OmegaConfBaseException):
        return Problem(Code.HYDRA_CONFIG, "config", found)
    if isinstance(error, OSError | MemoryError) or not isinstance(error, Exception) or not _was_raised_in_hydra(error):
        return None
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        return None
    return Problem(
        Code.HYDRA_CONFIG, "config", f"Hydra can't use this: {type(error).__name__}: {found}", _TRACEBACK_FIX
    )


def _was_raised_in_hydra(error: Exception) -> bool:
    """Whether the last function called outside of Python's own library is one of Hydra's."""
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [name.partition(".")[0] for name in modules]
    return next((each for each in reversed(packages) if each not in sys.stdlib_module_names), "") in _LIBRARIES
