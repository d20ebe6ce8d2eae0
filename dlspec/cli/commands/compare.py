"""`compare RUN RUN`: what differs between runs in spec, environment and result, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlspec.cli.flags import FlagParser, parse_flags
from dlspec.cli.printing import say
from dlspec.errors import UserError, cut, printable
from dlspec.jobs.error_messages import DONE
from dlspec.language.problems import dotted
from dlspec.report.differing import ABSENT, differences, plain
from dlspec.report.records import Record, read_record
from dlspec.runs.finding import demand_folders
from dlspec.runs.io import read_object
from dlspec.runs.layout import ENVIRONMENT
from dlspec.text import text_table

FIX = "write python -m dlspec compare FOLDER FOLDER"
LONGEST_CELL = 60
Line = tuple[str, Any, Any]


def main(words: Sequence[str]) -> int:
    """Prints the differences of two runs, section by section."""
    parser = FlagParser("compare")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    named = parse_flags(parser, words, FIX).folders
    if len(named) != 2:
        raise UserError(f"{len(named)} run{'s' if len(named) != 1 else ''} named, wanted two; {FIX}")
    first, second = (read_record(folder) for folder in demand_folders(named, FIX))
    say("\n\n".join(_section(*each, first, second) for each in _sections(first, second)))
    return DONE


def _sections(first: Record, second: Record) -> Iterator[tuple[str, list[Line]]]:
    yield "spec", _differences(first.spec, second.spec)
    yield "environment", _differences(_environment(first), _environment(second))
    yield "result", _differences(_result(first), _result(second))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Line]:
    return [(dotted(path), before, after) for path, before, after in differences(first, second)]


def _environment(record: Record) -> dict[str, Any]:
    """All that was written of the machine and the versions, but what the spec says too."""
    written = read_object((record.folder or Path()) / ENVIRONMENT) or {}
    return {key: value for key, value in written.items() if key not in ("command", "seed")}


def _result(record: Record) -> dict[str, Any]:
    told = {"status": record.status, "error": record.error or None, **record.results}
    took = {"best_epoch": record.best_epoch, "steps": record.steps, "parameters": record.parameters}
    return {**told, **took, "seconds": record.seconds}


def _section(name: str, lines: Sequence[Line], first: Record, second: Record) -> str:
    """A table of three columns; of results a fourth, the difference."""
    if not lines:
        return f"{name}: no difference"
    head = [name, *(printable(each.name) for each in (first, second)), *(["change"] if name == "result" else [])]
    cells = [[key, _cell(before), _cell(after), *_change(name, before, after)] for key, before, after in lines]
    return text_table(head, [[printable(cut(cell, LONGEST_CELL)) for cell in row] for row in cells])


def _cell(value: Any) -> str:
    if value is ABSENT:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    value = plain(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _change(name: str, before: Any, after: Any) -> list[str]:
    if name != "result":
        return []
    if not all(isinstance(each, int | float) for each in (before, after)):
        return [""]
    change = after - before
    return [f"{change:+,}" if isinstance(change, int) else f"{change:+.4g}"]
