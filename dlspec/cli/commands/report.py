"""`report`: the runs below some folders beside each other, in a table and on a page, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.flags import FlagParser, parse_flags
from dlspec.cli.printing import say
from dlspec.errors import UserError, cut, printable
from dlspec.jobs.error_messages import DONE
from dlspec.language.yaml.yaml_files import display_name
from dlspec.report import write_report
from dlspec.report.grouping import Setting, Table, counts
from dlspec.runs.finding import demand_folders
from dlspec.runs.layout import LEADERBOARD, PAGE, RUNS
from dlspec.text import text_table

FIX = "write python -m dlspec report [--output FOLDER] [FOLDER ...]"
MOST_LINES = 10
MOST_RESULTS = 4
LONGEST_CELL = 40


def main(words: Sequence[str]) -> int:
    """Writes the report of the runs: into their folder where one is named, else into the working directory."""
    parser = FlagParser("report")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--output", "-o", metavar="FOLDER")
    arguments = parse_flags(parser, words, FIX)
    folders = demand_folders(arguments.folders or [RUNS], FIX)
    into = folders[0] if len(folders) == 1 else Path()
    if arguments.output:
        into = _make_folder(arguments.output)
    table = write_report(folders, into)
    if not table.records:
        raise UserError(f"no runs in {', '.join(repr(display_name(each)) for each in folders)}; {FIX}")
    say("\n".join(printable(line) for line in _lines(table, into)))
    return DONE


def _make_folder(name: str) -> Path:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"no folder can be made at '{printable(cut(name))}': {error}; {FIX}") from None
    return Path(name)


def _lines(table: Table, into: Path) -> list[str]:
    head = [*table.setting_keys, *table.results[:MOST_RESULTS], "runs"]
    best = table.settings[:MOST_LINES]
    lines = text_table(head, [_cells(table, setting) for setting in best]).split("\n") if best else []
    left = len(table.settings) - len(best)
    return [
        *lines,
        *([f"... and {left:,} more"] if left else []),
        f"{len(table.records):,} run{'s' if len(table.records) != 1 else ''}: {counts(table.records)}",
        *([table.note] if table.note else []),
        *([f"the best again: {table.records[table.best].rerun}"] if table.best is not None else []),
        *(display_name(into / name) for name in (LEADERBOARD, PAGE)),
    ]


def _cells(table: Table, setting: Setting) -> list[str]:
    values = [cut("null" if value is None else str(value), LONGEST_CELL) for value in setting.values]
    return [*values, *(_result(setting, name) for name in table.results[:MOST_RESULTS]), str(len(setting.runs))]


def _result(setting: Setting, name: str) -> str:
    """`0.1372 ± 0.0054`, the deviation over the seeds where there are several."""
    if name not in setting.means:
        return ""
    spread = setting.deviations.get(name)
    return f"{setting.means[name]:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
