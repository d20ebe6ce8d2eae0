"""Overrides that are read from a file, such as a sweep's `sweep.json`, which anyone may have written.

Most of them only describe a network and how it is trained. Those that could run code, or that decide where files are
written, are used only if the user repeats them.
"""

from __future__ import annotations

import re

from hydra.core.override_parser.types import Override

from dlspec.config.overrides import parse_overrides
from dlspec.errors import SpecError

PARAMS_PREFIX = "hydra.sweeper.params."

# Hydra's settings that are safe with any number as their value. A mapping could name a class to instantiate.
_NUMBERS = re.compile(
    r"hydra\.(sweeper\.(max_batch_size|n_jobs|n_trials|max_failure_rate|sampler\.seed)"
    r"|launcher\.(n_jobs|timeout_min|nodes|cpus_per_task|gpus_per_node|mem_gb|array_parallelism|max_num_timeout))"
)
# Those that are safe with a plain name. A path could lead to a file with other settings of Hydra.
_NAMES = re.compile(r"hydra/(launcher|sweeper|sweeper/sampler)|hydra\.(mode|sweeper\.direction)")
_PLAIN_NAME = re.compile(r"\w[\w-]*", re.ASCII)
# Interpolations that neither read environment variables nor call a resolver of the user's.
_SAFE_INTERPOLATION = re.compile(r"\$\{(now:[\w.:%-]+|(hydra:)?[\w.]+)\}", re.ASCII)


def must_be_repeated(override: Override) -> bool:
    """Whether an override from a file could run code or name a folder elsewhere, so that the user has to repeat it."""
    key = override.key_or_group
    if override.package is not None or key.split(".")[0] == "imports":
        return True
    if not key.startswith("hydra"):
        return False
    if override.is_delete() or override.is_sweep_override():
        return True
    value = override.value()
    if _NUMBERS.fullmatch(key):
        return not isinstance(value, int | float | None)
    if not isinstance(value, str | int | float):
        return True
    if _NAMES.fullmatch(key):
        return not _PLAIN_NAME.fullmatch(str(value))
    if key.startswith(PARAMS_PREFIX):
        return _must_param_be_repeated(f"{key.removeprefix(PARAMS_PREFIX)}={value}")
    return key != "hydra.sweep.subdir" or not _is_folder_inside(str(value))


def _must_param_be_repeated(line: str) -> bool:
    """Whether a line that the sweeper makes of its `params` must be repeated: it becomes an override of every job."""
    try:
        return any(must_be_repeated(each) for each in parse_overrides([line]))
    except SpecError:
        return True


def _is_folder_inside(name: str) -> bool:
    """Whether a folder's name, relative to the sweep's folder, can only lead to a folder inside."""
    parts = re.split(r"[/\\]", _SAFE_INTERPOLATION.sub("x", name))
    return "$" not in "".join(parts) and parts[0] != "" and ".." not in parts
