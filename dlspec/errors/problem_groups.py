"""The lines of many problems: those with one cause are printed once."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import islice

from dlspec.errors.problem import Code, Problem, join_first, replace_control_characters

# Codes of problems that have one cause if they have the same text: a name or value that is used in several places.
_ONE_CAUSE = frozenset(
    {
        Code.UNKNOWN_OUTPUT,
        Code.UNKNOWN_PARAM,
        Code.UNKNOWN_REFERENCE,
        Code.UNKNOWN_FIELD,
        Code.UNKNOWN_LAYER,
        Code.MISSING_FACT,
        Code.OUTPUT_ABSENT,
    }
)
MAX_SHOWN_PROBLEMS = 50  # a SpecError counts further problems without printing them
MAX_SHOWN_PLACES = 12  # where a problem that is printed once occurs again


def format_problems(problems: Sequence[Problem]) -> list[str]:
    """Return the lines of the first problems. One that occurs in several places or copies is printed once."""
    groups: dict[Hashable, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(_find_cause(problem), []).append(problem)
    lines: list[str] = []
    for first, *others in islice(groups.values(), MAX_SHOWN_PROBLEMS):
        lines += first.format_lines()
        if others:
            lines.append(replace_control_characters(f"    the same {_format_places(first, others)}"))
    hidden = sum(map(len, islice(groups.values(), MAX_SHOWN_PROBLEMS, None)))
    return [*lines, f"... and {hidden:,} more"] if hidden else lines


def _find_cause(problem: Problem) -> Hashable:
    """Return what problems with one cause share: a name that is missing, or the place of a repeated entry."""
    if problem.code in _ONE_CAUSE:
        return problem.code, problem.found
    if problem.location is None or not problem.location.line:
        return id(problem)
    path = problem.path.partition(" (")[0]  # without the copy
    return problem.code, problem.location, path, re.sub(r"\d+", "#", problem.found)


def _format_places(first: Problem, others: Sequence[Problem]) -> str:
    """Say where a problem occurs again: in copies of an entry, or elsewhere in the files."""
    if all(each.location == first.location for each in others):
        return f"in {len(others)} more {'copies' if len(others) > 1 else 'copy'}"
    places = (str(each.location) if each.location and each.location.line else each.path for each in others)
    return f"at {join_first(list(dict.fromkeys(places)), MAX_SHOWN_PLACES)}"
