"""Counts the jobs of a sweep before they are listed: those of `seed=range(1000000000)` would fill the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hydra.core.override_parser.types import Override

from dlspec.compat.hydra import count_values, is_glob
from dlspec.config.overrides import command_line_location
from dlspec.errors import Code, Problem, SpecError
from dlspec.limits import explain_raising_limit, get_limit


def check_job_count(overrides: Sequence[Override], is_group: Callable[[str], bool]) -> None:
    """Refuse a sweep without jobs, and one with more jobs than the limit.

    Args:
        overrides: all overrides of the sweep; of two with the same key, the last one is used.
        is_group: whether a key is a config group.

    Raises:
        SpecError: at the override that has no values, or the most.
    """
    counts = {override.get_key_element(): count_values(override) for override in overrides}
    empty = next((each for each in overrides if not count_values(each)), None)
    if empty is not None:
        fix = _find_empty_fix(empty, is_group(empty.key_or_group))
        raise SpecError([_problem_at(empty, Code.MISSING_VALUE, "no value to sweep over", fix)])
    total, limit = math.prod(counts.values()), get_limit("jobs")
    if total > limit:
        largest = max(overrides, key=count_values)
        found = f"the sweep has {total:,} jobs, at most {limit:,} are allowed"
        raise SpecError([_problem_at(largest, Code.TOO_LARGE, found, explain_raising_limit("jobs"))])


def _problem_at(override: Override, code: Code, found: str, fix: str) -> Problem:
    return Problem(code, override.key_or_group, found, fix, command_line_location(override.input_line or ""))


def _find_empty_fix(override: Override, is_group: bool) -> str:
    key = override.key_or_group
    if not is_glob(override):
        return f"write a range that is not empty: {key}=range(0,5)"
    if is_group:
        return f"no file of the group '{key}' matches; 'python -m dlspec --help' lists them"
    return f"glob selects files of a config group; write the values: {key}=1,2,3"
