"""Find the delimiter of a text file in its first rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dlspec.data.tables.table import DELIMITER_NAMES
from dlspec.errors import Code, DataError

CANDIDATES = (",", ";", "\t", "|")
SAMPLE_LINES = 50
SAMPLE_CHARACTERS = 1_000_000


def find_delimiter(lines: Sequence[str], quote: str | None, file: Path) -> str:
    """Find the delimiter that splits all rows into equally many cells.

    Args:
        lines: the first lines of the file, from the header on
        quote: the character around cells, None for none
        file: the file, for messages

    Returns:
        The delimiter; a comma for a file with one column.

    Raises:
        DataError: if two delimiters fit equally well, or spaces separate the cells.
    """
    counts = {each: _count_cells(lines, each, quote) for each in CANDIDATES}
    possible = {each: cells for each, cells in counts.items() if cells and cells[0] > 1}
    even = [each for each, cells in possible.items() if len(set(cells)) == 1]
    if len(even) > 1:
        fix = f"write data.delimiter={DELIMITER_NAMES[even[0]]} or the other"
        found = f"'{file}': its cells may be separated by {' or '.join(DELIMITER_NAMES[each] for each in even)}"
        raise DataError("delimiter", f"{found}; {fix}", Code.AMBIGUOUS)
    if even:
        return even[0]
    if not possible:
        _refuse_words(lines, file)
    # No delimiter fits every row: take the one that fits most rows, so that the others are reported.
    return max(possible, key=lambda each: (_share_as_first(possible[each]), possible[each][0]), default=",")


def _refuse_words(lines: Sequence[str], file: Path) -> None:
    """Refuse a file whose cells are probably separated by spaces: it would be read as one column."""
    counts = {len(line.split()) for line in lines if line.strip()}
    if len(lines) >= 3 and len(counts) == 1 and max(counts) >= 3:
        found = f"'{file}': its cells seem to be separated by spaces"
        fix = "write data.format=words, or data.delimiter=comma if it has one column"
        raise DataError("format", f"{found}; {fix}", Code.AMBIGUOUS)


def _share_as_first(counts: Sequence[int]) -> float:
    return sum(count == counts[0] for count in counts) / len(counts)


def _count_cells(lines: Sequence[str], delimiter: str, quote: str | None) -> list[int]:
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        skipinitialspace=True,
    )
    try:
        counts = [len(row) for row in reader if row]
    except csv.Error:
        return []
    # The sample may end in the middle of a quoted cell.
    return counts[:-1] if len(lines) >= SAMPLE_LINES and len(counts) > 1 else counts
