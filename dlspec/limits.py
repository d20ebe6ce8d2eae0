"""Size limits of specs and data.

Only environment variables raise a limit, never a file: a spec may come from an untrusted source.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dlspec.errors import UserError

DEFAULT_LIMITS: Mapping[str, int] = {
    "file_bytes": 1_000_000,  # of one YAML file
    "nesting": 100,  # levels of lists and mappings in a file
    "values": 10_000,  # in a file; values repeated by aliases count each time
    "references": 100_000,  # values in what a `${...}` resolves to
    "sample_bytes": 1_000_000_000,  # memory of a layer's output while shapes are inferred
    "summary_bytes": 10**13,  # of weights in a summary, which allocates no memory for them
    "weights_header_bytes": 20_000_000,  # of a safetensors file's header: parsing takes 15 times its size in memory
    "cache_bytes": 50_000_000_000,  # of all files with decoded images in the cache
    "jobs": 100_000,  # of a sweep
    "epochs": 1_000_000,  # of a run; a number with a few zeros too many would train for ever
    "steps": 1_000_000_000,  # of a run, as planned: at a thousand steps a second they take 12 days
    "layers": 10_000,  # of a network, with blocks and repeats expanded
    "formula_length": 500,  # characters
    "formula_depth": 50,  # nested brackets and operations
    "formula_size": 10_000,  # list items or characters in the result of a formula
    "image_pixels": 100_000_000,  # of one image: a file of some kilobytes can contain any number of equal ones
    "image_bytes": 500_000_000,  # of the file of one image
    "rank_seconds": 600,  # to wait for the other processes of torchrun: one that does not answer ends all
}
GIGABYTE = 10**9
MAX_DATA_BYTES = 4 * GIGABYTE  # of an array that a data source makes
MAX_CLASSES = 10**6  # of one target
# Higher values would exceed Python's own recursion limits.
MAX_LIMITS: Mapping[str, int] = {"nesting": 400, "formula_depth": 90}


def get_limit(name: str) -> int:
    """Return a limit, as set by its environment variable or by `DEFAULT_LIMITS`.

    Raises:
        UserError: the environment variable is not a whole number in the allowed range.
    """
    variable = _environment_variable(name)
    written = os.environ.get(variable)
    if written is None:
        return DEFAULT_LIMITS[name]
    max_value = MAX_LIMITS.get(name, sys.maxsize)
    text = written.strip().replace("_", "")
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= max_value):
        upper_bound = f" and <= {max_value}" if name in MAX_LIMITS else ""
        raise UserError(
            f"the environment variable {variable} must be a whole number >= 1{upper_bound}, got '{written}'"
        )
    return int(text)


def explain_raising_limit(name: str) -> str:
    """Return the fix for a problem that exceeds a limit."""
    return f"to raise the limit, set the environment variable {_environment_variable(name)}"


def _environment_variable(name: str) -> str:
    return f"DLSPEC_MAX_{name.upper()}"


@contextmanager
def allow_deep_recursion() -> Iterator[None]:
    """Raise Python's recursion limit inside the context, enough for a spec of the allowed nesting.

    OmegaConf takes about a dozen calls for each level.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1_000 + 50 * get_limit("nesting")))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
