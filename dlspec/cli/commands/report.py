"""`report`: compare all runs below some folders in a table and on an HTML page, without torch; or show one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.formatting import format_digits, format_table
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report import write_report
from dlspec.report.run_table import RunTable, SeedGroup, format_status_counts
from dlspec.runs.file_names import DEFAULT_RUNS_FOLDER, LEADERBOARD_FILE, REPORT_FILE
from dlspec.runs.run_discovery import require_folders

FIX = "write python -m dlspec report [--output FOLDER] [FOLDER ...]"
MAX_LINES = 10
MAX_RESULTS = 4
MAX_CELL_LENGTH = 40


def main(argv: Sequence[str]) -> int:
    """Write the report of runs into their folder, or into the working directory if multiple folders are named.

    With `run=FOLDER`, write the page of this run into its folder.
    """
    if any(word.startswith("run=") for word in argv):
        return _report_one_run(argv)
    parser = FlagParser("report")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--output", "-o", metavar="FOLDER")
    arguments = parse_arguments(parser, argv, FIX)
    folders = require_folders(arguments.folders or [DEFAULT_RUNS_FOLDER], FIX)
    into = folders[0] if len(folders) == 1 else Path()
    if arguments.output:
        into = _make_report_folder(arguments.output)
    table = write_report(folders, into)
    if not table.records:
        raise UserError(f"no runs in {', '.join(repr(format_file_path(each)) for each in folders)}; {FIX}")
    print_message("\n".join(map(replace_control_characters, _format_setting_table(table, into))))
    return EXIT_OK


def _report_one_run(argv: Sequence[str]) -> int:
    from dlspec.cli.run_report import write_report_of_run  # here: it imports Hydra, and building a network needs torch
    from dlspec.limits import allow_deep_recursion

    with allow_deep_recursion():
        return write_report_of_run(argv)


def _make_report_folder(name: str) -> Path:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"can't create the folder '{replace_control_characters(shorten_middle(name))}': {error}; {FIX}"
        ) from None
    return Path(name)


def _format_setting_table(table: RunTable, report_folder: Path) -> list[str]:
    head = [*table.setting_keys, *table.results[:MAX_RESULTS], "runs"]
    best = table.settings[:MAX_LINES]
    lines = format_table(head, [_format_cells(table, setting) for setting in best]).split("\n") if best else []
    left = len(table.settings) - len(best)
    return [
        *lines,
        *([f"... and {left:,} more"] if left else []),
        f"{len(table.records):,} run{'s' if len(table.records) != 1 else ''}: {format_status_counts(table.records)}",
        *([table.note] if table.note else []),
        *([f"to run the best again: {table.records[table.best].rerun}"] if table.best is not None else []),
        *(format_file_path(report_folder / name) for name in (LEADERBOARD_FILE, REPORT_FILE)),
    ]


def _format_cells(table: RunTable, setting: SeedGroup) -> list[str]:
    values = [shorten_middle("null" if value is None else str(value), MAX_CELL_LENGTH) for value in setting.values]
    return [*values, *(_format_result(setting, name) for name in table.results[:MAX_RESULTS]), str(len(setting.runs))]


def _format_result(setting: SeedGroup, name: str) -> str:
    """Format a mean, with its deviation if there are multiple seeds: `0.1372 ± 0.0054`."""
    if name not in setting.means:
        return ""
    spread = setting.deviations.get(name)
    return format_digits(setting.means[name]) + ("" if spread is None else f" ± {format_digits(spread, 2)}")
