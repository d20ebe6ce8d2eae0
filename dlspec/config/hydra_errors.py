"""Convert errors that Hydra and OmegaConf raise for a user's config to problems."""

from __future__ import annotations

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dlspec.errors import Code, Problem


def problem_from_hydra_error(error: BaseException) -> Problem | None:
    """Make a problem of an error of Hydra or OmegaConf; return None for any other error."""
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return Problem(Code.HYDRA_CONFIG, "config", lines[0] if lines else type(error).__name__)
