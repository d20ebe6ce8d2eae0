"""What `evaluate run=` and `evaluate file=` have in common: their words, and what they print on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dlspec.cli.run_arguments import RunArguments
from dlspec.errors import UserError, format_value, replace_control_characters
from dlspec.inference.evaluation.bootstrap import DEFAULT_RESAMPLES, check_resamples


def check_path(path: Any) -> str | list[str]:
    """Return `data.path` if it is a file or a list of files; else raise UserError."""
    if isinstance(path, str) or (isinstance(path, list) and all(isinstance(each, str) for each in path)):
        return path
    raise UserError(f"data.path must be a file or a list of files, got {format_value(path)}")


def read_resamples(arguments: RunArguments) -> int:
    """Read the word `resamples`; UserError if it is out of its range."""
    value = arguments.get_number("resamples", int)
    if value is None:
        return DEFAULT_RESAMPLES
    check_resamples(value)
    return int(value)


def print_notes(notes: Sequence[str], left_out: int, reasons: Sequence[str]) -> None:
    """Print what the user should know of the evaluated rows.

    Args:
        notes: lines for the user
        left_out: how many rows were left out
        reasons: why the first of them were
    """
    for note in notes:
        print(replace_control_characters(note), file=sys.stderr)
    if left_out:
        first = replace_control_characters(reasons[0]) if reasons else ""
        rows = "1 row is" if left_out == 1 else f"{left_out:,} rows are"
        print(f"{rows} left out, the first is {first}", file=sys.stderr)
