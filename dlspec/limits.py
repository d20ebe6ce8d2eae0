"""How large a spec may be. The environment raises a limit, never a file: a spec may come from a stranger."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dlspec.errors import UserError

DEFAULT_LIMITS: Mapping[str, int] = {
    "file_bytes": 1_000_000,  # of one YAML file
    "nesting": 100,  # levels of lists and mappings in a file
    "values": 10_000,  # in a file, what aliases repeat counted each time
    "references": 100_000,  # values that a `${...}` leads to
    "sample_bytes": 1_000_000_000,  # of memory for a layer's output while shapes are found
    "summary_bytes": 10**13,  # of weights that are only summed up: nothing is allocated for them
    "layers": 10_000,  # of a network, repeats and blocks written out
    "formula_length": 500,  # characters
    "formula_depth": 50,  # brackets and operations within each other
    "formula_size": 10_000,  # items of a list or characters of a text that a formula gives
}
GIGABYTE = 10**9
MAX_DATA_BYTES = 4 * GIGABYTE  # no data source makes a larger array
MAX_CLASSES = 10**6  # of one target
# Beyond these Python itself gives up.
MAX_LIMITS: Mapping[str, int] = {"nesting": 400, "formula_depth": 90}


def get_limit(name: str) -> int:
    """How much of `name` (a key of `LIMITS`) there may be; UserError where the environment says what is no number."""
    variable = _environment_variable(name)
    written = os.environ.get(variable)
    if written is None:
        return DEFAULT_LIMITS[name]
    max_value = MAX_LIMITS.get(name, sys.maxsize)
    text = written.strip().replace("_", "")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= max_value):
        upper_bound = f" to {max_value}" if name in MAX_LIMITS else ""
        raise UserError(
            f"the environment variable {variable} is '{written}', wanted a whole number from 1{upper_bound}"
        )
    return int(text)


def explain_raising_limit(name: str) -> str:
    """What to write for more, as an error's fix says it."""
    return f"for more set the environment variable {_environment_variable(name)}"


def _environment_variable(name: str) -> str:
    return f"DLSPEC_MAX_{name.upper()}"


@contextmanager
def allow_deep_recursion() -> Iterator[None]:
    """Within it Python's stack holds a spec of the allowed nesting: OmegaConf takes a dozen calls a level."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1_000 + 50 * get_limit("nesting")))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
