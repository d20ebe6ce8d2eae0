"""New columns from patterns on the text of others: `extract: {Name: "{last}, {title}. {first}"}`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dlspec.data.tables.brace_pattern import parse_braces
from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.errors import Code, DataError, format_value


def extract_columns(table: Table, patterns: Mapping[str, str]) -> Table:
    """Add a column for each brace of the patterns. Cells that do not match give missing cells.

    Args:
        table: the table
        patterns: a pattern with braces by the name of the column that it is applied to

    Raises:
        DataError: if a column does not exist, no cell matches, or a brace has the name of another column.
    """
    for name, text in patterns.items():
        table = _extract(table, name, text)
    return table


def _extract(table: Table, name: str, text: str) -> Table:
    pattern, column = parse_braces(text, "extract"), table.get_column(name, "extract")
    if not pattern.names:
        raise DataError("extract", f"'{text}' catches nothing; write for example '{{title}}. {{rest}}'")
    taken = next((each for each in pattern.names if each in table.columns), None)
    if taken is not None:
        found = f"'{text}' would replace the column '{taken}'"
        raise DataError("extract", f"{found}; write another name in the braces", Code.NAME_TAKEN)
    made = extract_matches(column, text, name)
    if all(cell is None for column in made.values() for cell in column.tolist()):
        first = next((cell for cell in column.tolist() if cell is not None), None)
        found = f"no cell of '{name}' matches '{text}', the first is {format_value(first)}"
        raise DataError("extract", found, Code.NO_MATCH)
    for each, values in made.items():
        table = table.with_column(each, values)
    return table


def extract_matches(column: Column, text: str, name: str) -> dict[str, Column]:
    """Return a column for each brace of a pattern; cells that do not match give missing cells.

    Args:
        column: the cells
        text: the pattern
        name: name of the column, for messages
    """
    pattern = parse_braces(text, "extract")
    if column.dtype != TEXT:
        raise DataError("extract", f"'{name}' must be a column of text", Code.WRONG_TYPE)
    matches = [None if cell is None else pattern.match(cell) for cell in column.tolist()]
    return {each: _strip([match[each] if match else None for match in matches]) for each in pattern.names}


def _strip(cells: list[str | None]) -> Column:
    return np.array([cell.strip() or None if cell is not None else None for cell in cells], dtype=TEXT)
