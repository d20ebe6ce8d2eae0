"""Join a table with another one by the columns that both have: each row has exactly one partner."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dlspec.data.tables.table import TEXT, Table
from dlspec.errors import Code, DataError, format_value

MAX_LISTED = 20
Key = tuple[str | None, ...]


def join_tables(table: Table, joined: Table, name: str) -> Table:
    """Add the columns of another table to the rows that have the same cells in all columns of the same name.

    Args:
        table: the table whose rows are kept, in order
        joined: the other table, with exactly one row for each
        name: what messages call the other table, such as `movies.csv`

    Returns:
        The table with the columns of both.

    Raises:
        DataError: if no column is in both, or a row has no partner or more than one.
    """
    common = [each for each in table.columns if each in joined.columns]
    if not common:
        found = f"'{name}' has no column of the same name as the table"
        raise DataError("join", f"{found}; its columns are {_list_names(joined)}", Code.UNKNOWN_FIELD)
    wrong = next((each for each in common if {table.columns[each].dtype, joined.columns[each].dtype} != {TEXT}), None)
    if wrong is not None:
        raise DataError("join", f"'{wrong}' must be a column of text in both tables to join by it", Code.WRONG_TYPE)
    partners = _find_partners(joined, common, name)
    rows = [partners.get(key, -1) for key in _list_keys(table, common)]
    _check_partners(table, rows, common, name)
    taken = joined.take(np.array(rows, np.int64))
    return Table(
        {**table.columns, **{each: column for each, column in taken.columns.items() if each not in common}},
        table.files,
        table.file_of_row,
        table.line_of_row,
    )


def _list_keys(table: Table, names: Iterable[str]) -> Iterable[Key]:
    return zip(*(table.columns[name].tolist() for name in names), strict=True)


def _find_partners(joined: Table, common: list[str], name: str) -> dict[Key, int]:
    partners: dict[Key, int] = {}
    for row, key in enumerate(_list_keys(joined, common)):
        if None in key:
            continue  # nothing can be looked up by a missing cell
        first = partners.setdefault(key, row)
        if first != row:
            where = f"{joined.locate(first)} and {joined.locate(row)}"
            found = f"'{name}' has two rows with {_format_key(common, key)}: {where}"
            raise DataError("join", f"{found}; remove one of them", Code.AMBIGUOUS)
    return partners


def _check_partners(table: Table, rows: list[int], common: list[str], name: str) -> None:
    lacking = [row for row, partner in enumerate(rows) if partner < 0]
    if not lacking:
        return
    first = lacking[0]
    key = tuple(table.columns[each][first] for each in common)
    others = [table.locate(row) for row in lacking[1:MAX_LISTED]]
    if len(lacking) > MAX_LISTED:
        others.append("...")
    found = f"{table.locate(first)}: '{name}' has no row with {_format_key(common, key)}"
    raise DataError(
        "join", f"{found} ({len(lacking):,} of {len(table):,} rows have no partner)", Code.NO_MATCH, "\n".join(others)
    )


def _format_key(names: Iterable[str], key: Key) -> str:
    return ", ".join(f"{name} {format_value(cell)}" for name, cell in zip(names, key, strict=True))


def _list_names(table: Table) -> str:
    names = list(table.columns)
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
