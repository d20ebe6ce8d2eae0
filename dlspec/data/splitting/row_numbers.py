"""Number rows: equal cells, equal rows, and rows that belong together get equal numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.images.image_cells import ImageCell

IntArray = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]
ROWS_AT_A_TIME = 50_000  # whose cells are Python objects at once: 1,000,000 rows of 20 cells would take 2 GB
CELL_END = "\x1f"  # a control character that separates cells, so that `a, bc` differs from `ab, c`
MISSING_CELL = "\x1e"


def number_values(column: NDArray[Any]) -> tuple[IntArray, list[Any]]:
    """Number the distinct cells of a column in the order in which they first appear.

    Returns:
        The number of each row's cell (N,), and the distinct cells; a cell that is a list or an array is given as text.
    """
    if column.ndim == 1 and column.dtype.kind in "iu":
        return _number_integers(column)
    numbers: dict[Any, int] = {}
    is_plain = column.ndim == 1 and column.dtype.kind not in "Of"  # NaN differs from itself
    cells = column.tolist() if is_plain else map(_describe_cell, column)
    of_rows = np.fromiter((numbers.setdefault(cell, len(numbers)) for cell in cells), np.int64, len(column))
    return of_rows, list(numbers)


def _number_integers(column: NDArray[Any]) -> tuple[IntArray, list[Any]]:
    values, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the values, by first appearance
    numbers = np.empty(len(values), np.int64)
    numbers[order] = np.arange(len(values))
    return numbers[inverse], values[order].tolist()


def hash_rows(columns: Columns, names: Sequence[str], seed: int = 0) -> NDArray[np.uint64]:
    """Hash the cells of each row: equal rows have equal hashes, in any process and any order of the rows.

    Args:
        columns: the table's columns
        names: the columns to hash
        seed: rows have other hashes with another seed

    Returns:
        A hash of 64 bits for each row (N,).
    """
    key = str(seed).encode()
    digests = (blake2b(row.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
               for row in _iterate_rows_as_text(columns, names))  # fmt: skip
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def number_equal_rows(columns: Columns, names: Sequence[str]) -> IntArray:
    """Number rows so that rows with equal cells in all of these columns have equal numbers, by first appearance."""
    count = len(columns[names[0]]) if names else 0
    # Python's own hash of 64 bits is quick, and differs between processes; the numbers do not depend on it.
    hashes = np.fromiter(map(hash, _iterate_rows_as_text(columns, names)), np.int64, count)
    return number_values(hashes)[0]


def _iterate_rows_as_text(columns: Columns, names: Sequence[str]) -> Iterator[str]:
    count = len(columns[names[0]]) if names else 0
    for start in range(0, count, ROWS_AT_A_TIME):
        cells = [_cells_as_text(columns[name][start : start + ROWS_AT_A_TIME]) for name in names]
        yield from map(CELL_END.join, zip(*cells, strict=True))


def _cells_as_text(column: NDArray[Any]) -> Sequence[str]:
    if column.dtype.kind == "T":
        if column.astype(np.bool_).all():  # none is missing or empty
            return column.tolist()  # type: ignore[no-any-return]
        return [MISSING_CELL if cell is None else cell for cell in column.tolist()]
    if column.dtype.kind in "biuf" and column.ndim == 1:
        return [str(cell) for cell in column.tolist()]
    return [_describe_cell(cell) for cell in column]


def _describe_cell(cell: Any) -> str:
    """Describe a cell of any type as text; numbers of an array by their bytes."""
    if cell is None:
        return MISSING_CELL
    if isinstance(cell, ImageCell):
        return cell.get_digest().hex()
    if isinstance(cell, np.ndarray):
        return blake2b(np.ascontiguousarray(cell).tobytes(), digest_size=16).hexdigest()
    return str(cell)


def join_groups(numberings: Sequence[IntArray]) -> IntArray:
    """Number groups of rows that are connected: rows with an equal number in any of the numberings stay together.

    Args:
        numberings: for each criterion a number of each row (N,), counted from 0

    Returns:
        The group of each row (N,), numbered by first appearance.
    """
    if len(numberings) == 1:
        return number_values(numberings[0])[0]
    first_row = np.arange(len(numberings[0]))  # the first known row of each row's group
    while True:
        joined = first_row
        for numbers in numberings:
            first = np.full(int(numbers.max(initial=-1)) + 1, len(joined))
            np.minimum.at(first, numbers, joined)
            joined = first[numbers]
        joined = joined[joined]  # follow the first row's own group, so that long chains take few rounds
        if np.array_equal(joined, first_row):
            return number_values(joined)[0]
        first_row = joined
