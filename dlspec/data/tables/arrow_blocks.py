"""Numbers of long CSV files, read by pyarrow if it is installed (the extra `tables`): four times as fast as in Python.

pyarrow and Python round decimals to the same float64, so the results are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import ModuleType

import numpy as np

from dlspec.data.tables.column_use import ColumnUse
from dlspec.data.tables.table import Column

MIN_CELLS = 200_000  # of numbers before pyarrow is imported, which takes as long as reading these in Python


@cache
def import_arrow_csv() -> ModuleType | None:
    """Return pyarrow.csv; None if it is not installed."""
    try:
        import pyarrow.csv
    except ImportError:
        return None
    module: ModuleType = pyarrow.csv
    return module


def read_block(
    lines: Sequence[str], names: Sequence[str], delimiter: str, use: ColumnUse, missing: Collection[str]
) -> Mapping[str, Column | list[str]] | None:
    """Read lines without quotes: numbers as float64, NaN where missing; other columns as cells.

    Args:
        lines: the lines, each a row
        names: the columns
        delimiter: the character between cells
        use: which columns are needed, and which contain numbers
        missing: texts that mean a missing number

    Returns:
        The needed columns; None if pyarrow is not installed, a row has another number of cells, or a cell of a column
        of numbers is something else. Such rows are read one by one.
    """
    csv = import_arrow_csv()
    if csv is None:
        return None
    import pyarrow

    content = "".join(lines).encode()
    needed = [name for name in names if use.is_needed(name)]
    types = {name: pyarrow.float64() if name in use.numbers else pyarrow.string() for name in needed}
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(content),
            csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(content) + 1),
            csv.ParseOptions(delimiter=delimiter, quote_char=False, double_quote=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=types, include_columns=needed, null_values=list(missing), strings_can_be_null=False
            ),
        )
    except pyarrow.ArrowException:
        return None
    if table.num_rows != len(lines):
        return None
    found = {name: table.column(name) for name in needed}
    numbers = {name: np.asarray(column.to_numpy(), np.float64) for name, column in found.items() if name in use.numbers}
    if any(np.isfinite(each).sum() + found[name].null_count < len(lines) for name, each in numbers.items()):
        return None
    return {name: numbers[name] if name in numbers else column.to_pylist() for name, column in found.items()}
