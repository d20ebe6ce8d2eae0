"""`compare FOLDER FOLDER`: print the differences between two runs in spec, environment and result, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.formatting import format_table
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.language.problems import format_path
from dlspec.report.records import RunRecord, read_record
from dlspec.report.spec_differences import ABSENT, find_differences, to_table_value
from dlspec.runs.file_names import ENVIRONMENT_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.run_discovery import require_folders

FIX = "write python -m dlspec compare FOLDER FOLDER"
MAX_CELL_LENGTH = 60
Difference = tuple[str, Any, Any]


def main(argv: Sequence[str]) -> int:
    """Print the differences between two runs: a table each for spec, environment and result."""
    parser = FlagParser("compare")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    folders = parse_arguments(parser, argv, FIX).folders
    if len(folders) != 2:
        raise UserError(f"got {len(folders)} run{'s' if len(folders) != 1 else ''}, expected two; {FIX}")
    first, second = (read_record(folder) for folder in require_folders(folders, FIX))
    print_message("\n\n".join(_format_section(*each, first, second) for each in _list_sections(first, second)))
    return EXIT_OK


def _list_sections(first: RunRecord, second: RunRecord) -> Iterator[tuple[str, list[Difference]]]:
    yield "spec", _list_differences(first.spec, second.spec)
    yield "environment", _list_differences(_read_environment(first), _read_environment(second))
    yield "result", _list_differences(_collect_results(first), _collect_results(second))


def _list_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [(format_path(path), before, after) for path, before, after in find_differences(first, second)]


def _read_environment(record: RunRecord) -> dict[str, Any]:
    """Read what the run recorded about machine and versions, except for the entries that are also in the spec."""
    written = read_json_object((record.folder or Path()) / ENVIRONMENT_FILE) or {}
    return {key: value for key, value in written.items() if key not in ("command", "seed")}


def _collect_results(record: RunRecord) -> dict[str, Any]:
    outcome = {"status": record.status, "error": record.error or None, **record.results}
    costs = {"best_epoch": record.best_epoch, "steps": record.steps, "parameters": record.parameters}
    return {**outcome, **costs, "seconds": record.seconds}


def _format_section(name: str, lines: Sequence[Difference], first: RunRecord, second: RunRecord) -> str:
    """Format a section as a table: key, first run, second run and, for results, the change."""
    if not lines:
        return f"{name}: no difference"
    head = [
        name,
        *(replace_control_characters(each.name) for each in (first, second)),
        *(["change"] if name == "result" else []),
    ]
    cells = [
        [key, _format_cell(before), _format_cell(after), *_format_change(name, before, after)]
        for key, before, after in lines
    ]
    return format_table(
        head, [[replace_control_characters(shorten_middle(cell, MAX_CELL_LENGTH)) for cell in row] for row in cells]
    )


def _format_cell(value: Any) -> str:
    if value is ABSENT:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    value = to_table_value(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _format_change(name: str, before: Any, after: Any) -> list[str]:
    if name != "result":
        return []
    if not all(isinstance(each, int | float) for each in (before, after)):
        return [""]
    change = after - before
    return [f"{change:+,}" if isinstance(change, int) else f"{change:+.4g}"]
