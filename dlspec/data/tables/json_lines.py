"""Rows of JSON lines: one object a line. Its values become text, its lists stay lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unicodedata import normalize

from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.column_names import MAX_COLUMNS, normalize_name
from dlspec.data.tables.table import Column, ReadOptions
from dlspec.data.tables.table_builder import CHUNK_CELLS, CellReader, TableChunk, make_list_column
from dlspec.data.tables.text_lines import MAX_CELL_CHARACTERS, TextLines
from dlspec.errors import Code, DataError, format_value

MAX_INTEGER_DIGITS = 18  # longer ones do not fit into 64 bits
MAX_DEPTH = 50  # levels of objects and lists in a row
FIRST_ROWS = 1_000  # say which columns have lists: more would wait long in memory, a few could all be wrong


class BadJson(ValueError):
    """A row that is valid JSON, but not a row of a table."""


class _Number(str):
    """A number as written: numbers of cells are read as text, as in CSV, and none is too large to be read."""

    __slots__ = ()


class JsonLinesReader:
    """Reads JSON lines, in chunks. Rows may lack keys; their cells are missing.

    A column has lists if most of its cells in the first rows are lists; one that the first rows lack, if its first cell
    is. So it is the same for all rows and files, wherever the chunks end.
    """

    def __init__(self, options: ReadOptions, bad: BadRowCollector, max_rows: int | None = None) -> None:
        self.bad, self.max_rows = bad, max_rows
        self._cells = CellReader(options.missing)
        self._has_lists: dict[str, bool | None] = {}  # by column; None while all of its cells are missing
        self._is_decided = False  # whether the first rows were read

    def read(self, lines: TextLines, stream: Iterator[str]) -> Iterator[TableChunk]:
        """Yield all rows of one file, in chunks."""
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        size = 0
        for line in stream:
            lines.take_row()
            if not line.strip():
                continue
            try:
                rows.append(parse_row(line))
            except BadJson as error:
                self.bad.add(lines.file, lines.line, str(error))
                continue
            numbers.append(lines.line)
            size += len(rows[-1]) + len(line) // 100
            if size >= CHUNK_CELLS or len(rows) == self._choose_chunk_rows():
                yield self._make_chunk(lines, rows, numbers)
                rows, numbers, size = [], [], 0
        yield self._make_chunk(lines, rows, numbers)

    def _make_chunk(self, lines: TextLines, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> TableChunk:
        names = dict.fromkeys(name for row in rows for name in row)
        self._decide_lists(rows, names)
        if len(self._has_lists) > MAX_COLUMNS:
            found = f"'{lines.file}' has more than {MAX_COLUMNS:,} different keys"
            raise DataError("path", f"{found}; write the same keys in each row", Code.TOO_LARGE)
        lists = {name for name in names if self._has_lists[name]}
        mixed = {name: name in lists for name in names if any(_is_other(row.get(name), name in lists) for row in rows)}
        if mixed:
            rows, numbers = self._leave_out_mixed_rows(lines, rows, numbers, mixed)
        columns = {name: self._make_column([row.get(name) for row in rows], name in lists) for name in names}
        items = sum(len(cell) for name in lists for cell in columns[name] if cell)
        return TableChunk(columns, numbers, items)

    def _choose_chunk_rows(self) -> int | None:
        """Return the most rows of the next chunk: the first one needs enough to decide which columns have lists."""
        return self.max_rows if self._is_decided or self.max_rows is None else max(self.max_rows, FIRST_ROWS)

    def _decide_lists(self, rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> None:
        """Decide for new columns whether they have lists."""
        first_rows = () if self._is_decided else rows[:FIRST_ROWS]
        self._is_decided = self._is_decided or bool(rows)
        for name in names:
            if self._has_lists.get(name) is None:
                cells = _list_filled(first_rows, name) or _list_filled(rows, name)[:1]
                are_lists = [isinstance(cell, list) for cell in cells]
                self._has_lists[name] = 2 * sum(are_lists) >= len(cells) if cells else None

    def _make_column(self, cells: Sequence[Any], has_lists: bool) -> Column:
        return make_list_column(cells) if has_lists else self._cells.clean_values(cells)

    def _leave_out_mixed_rows(
        self, lines: TextLines, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], mixed: Mapping[str, bool]
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[int]]:
        """Leave out rows with a text where most rows have a list, and the other way round.

        Args:
            lines: the file
            rows: the rows
            numbers: their lines
            mixed: whether most cells are lists, for columns with both
        """
        kept: list[int] = []
        for position, row in enumerate(rows):
            name = next((each for each, is_list in mixed.items() if _is_other(row.get(each), is_list)), None)
            if name is None:
                kept.append(position)
                continue
            expected = f"'{name}' must {'' if mixed[name] else 'not '}be a list, as in most of the first rows"
            self.bad.add(lines.file, numbers[position], f"{expected}; got {format_value(row[name])}")
        return [rows[position] for position in kept], [numbers[position] for position in kept]


def _list_filled(rows: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """List the cells of a column that are not missing."""
    return [row[name] for row in rows if row.get(name) is not None]


def _is_other(cell: Any, is_list: bool) -> bool:
    return cell is not None and isinstance(cell, list) != is_list


def parse_row(line: str) -> dict[str, Any]:
    """Return the cells of a line by name: text, lists or None. Objects in the row are columns such as `user.name`.

    Raises:
        BadJson: if the line is not a JSON object, or contains what a cell can't.
    """
    if len(line) > MAX_CELL_CHARACTERS:
        raise BadJson(f"the line has more than {MAX_CELL_CHARACTERS // 10**6} MB")
    try:
        row = _DECODER.decode(line)
        if not isinstance(row, dict):
            fix = '; write one object a line: {"text": "...", "label": "..."}'
            raise BadJson(f"expected an object, got {format_value(_shorten(line))}{fix}")
        cells: dict[str, Any] = {}
        _add_cells(cells, row, "", 0)
    except json.JSONDecodeError as error:
        raise BadJson(f"column {error.colno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise BadJson("nested too deeply") from None
    return cells


def _shorten(line: str) -> str:
    return line.strip()[:40]


def _add_cells(cells: dict[str, Any], row: Mapping[str, Any], prefix: str, depth: int) -> None:
    _check_depth(depth)
    for key, value in row.items():
        name = prefix + normalize_name(key)
        if isinstance(value, dict):
            _add_cells(cells, value, f"{name}.", depth + 1)
            continue
        if not name or name in cells:
            raise BadJson(f"the key {format_value(name)} is written twice" if name else "a key is empty")
        cells[name] = _convert_list(value, depth + 1) if isinstance(value, list) else _check_text(value)


def _convert_list(values: Sequence[Any], depth: int) -> list[Any]:
    """Return a list of numbers, texts, None and lists."""
    _check_depth(depth)
    return [_convert_list(each, depth + 1) if isinstance(each, list) else _convert_item(each) for each in values]


def _convert_item(value: Any) -> Any:
    if isinstance(value, _Number):
        is_short = value.lstrip("-").isdigit() and len(value) <= MAX_INTEGER_DIGITS
        return int(value) if is_short else float(value)
    if isinstance(value, dict):
        raise BadJson("a list contains an object; lists may contain numbers, texts and lists")
    text = _check_text(value)
    return normalize("NFC", text) if isinstance(text, str) else text


def _check_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadJson("contains half of a surrogate pair, which is not a character") from None
    return text


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BadJson(f"nested more than {MAX_DEPTH} levels deep")


def _collect_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJson(f"the key {format_value(twice)} is written twice")
    return row


_AS_WRITTEN: Callable[[str], _Number] = _Number
_DECODER = json.JSONDecoder(
    parse_int=_AS_WRITTEN, parse_float=_AS_WRITTEN, parse_constant=_AS_WRITTEN, object_pairs_hook=_collect_pairs
)
