"""Cells that look like numbers or dates, but not beyond doubt: `$1,234`, `12 %`, `?`, `31/12/2024`. What to write."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, make_number_test, strip_marks
from dlspec.data.prepare.kinds.date_cells import ISO_DATE, parse_date
from dlspec.data.prepare.kinds.setting_lines import format_character_line, format_columns_line, format_missing_line

MIN_SHARE = 0.95  # of the cells that have to look like it
MARKS = "$€£¥₹%°"  # around numbers
# Cells that often mean that there is nothing.
GAP_MARKERS = frozenset("? - -- --- . .. * x n.a. n/a #n/a na nan nil none null unknown missing undefined".split())
OTHER_FORMATS = (
    *(CellFormat(".", ","), CellFormat(",", None), CellFormat(",", "."), CellFormat(",", " "), CellFormat(".", " ")),
    CellFormat(".", "'"),
)
LIKE_DATE = re.compile(
    r"(?:[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}|[0-9]{1,2}[ -][A-Za-z]{3,9}[ -][0-9]{2,4}"
    r"|[A-Za-z]{3,9} [0-9]{1,2},? [0-9]{4})(?:[T ,]+[0-9:.]+(?: ?[AaPp][Mm])?)?"
)
DAYS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d", "%d/%m/%y"),
    *("%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y"),
    *("%B %d, %Y", "%b %d %Y"),
)
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
MAX_SAMPLE = 200  # different cells that are tried first, from all over the column
MIN_SAMPLE_SHARE = 0.5  # of the sample, to look at all cells: a column may begin with other ones


@dataclass(frozen=True)
class Refusal:
    """Why a column can't be read without a setting."""

    reason: str
    cells: Mapping[int, str]  # what is wrong with each cell, by row
    fix: str


def suggest_for_wrong_cells(name: str, wrong: Collection[str]) -> str:
    """Return what to write where a few cells of a column of numbers or dates are something else.

    Args:
        name: the column's name
        wrong: the different cells that are not like the others
    """
    category = f"{format_columns_line(name, 'category')} if this column is a category"
    if all(cell.lower() in GAP_MARKERS for cell in wrong):
        return f"write {format_missing_line(wrong)} if these cells are missing, or {category}"
    if len(wrong) <= 5 and not any(re.search("[0-9]", cell) for cell in wrong):
        return f"write {format_missing_line(wrong)} if these cells are missing, or {category}"
    return f"correct them, or write data.bad_rows=skip to leave their rows out, or {category}"


def find_other_numbers(
    name: str, cells: Sequence[str | None], read: CellFormat, key: str = "columns"
) -> Refusal | None:
    """Find out whether the cells are numbers in another format, with marks around them, or with markers of gaps.

    Args:
        name: the column's name
        cells: the cells, None where missing
        read: the format that does not fit
        key: `columns` or `target`, for the setting to write

    Returns:
        The refusal, or None if the cells are not numbers in any of these ways.
    """
    counts = {cell: count for cell, count in Counter(cells).items() if cell is not None}
    markers = {cell for cell in counts if cell.lower() in GAP_MARKERS}
    numbers = {cell: count for cell, count in counts.items() if cell not in markers}
    sample = dict.fromkeys(list(numbers)[:: 1 + len(numbers) // MAX_SAMPLE], 1)
    if not any(re.search("[0-9]", cell) for cell in sample):
        return None
    marks = "".join(sorted({mark for cell in sample for mark in cell if mark in MARKS}))
    for strip, each in product(dict.fromkeys(("", marks)), (read, *OTHER_FORMATS)):
        if _count_numbers(sample, each, strip) < MIN_SAMPLE_SHARE * len(sample):
            continue
        if _count_numbers(numbers, each, strip) >= MIN_SHARE * sum(numbers.values()):
            lines = _format_lines(name, markers, each if each != read else PLAIN, strip, key)
            is_number = make_number_test(read)
            wrong = {row: cell for row, cell in enumerate(cells) if cell is not None and not is_number(cell)}
            refused = {row: f"'{cell}' is not a plain number" for row, cell in wrong.items()}
            return Refusal("numbers that are not plainly written", refused, " and ".join(lines))
    return None


def _count_numbers(cells: Mapping[str, int], read: CellFormat, strip: str) -> int:
    is_number = make_number_test(read)
    return sum(count for cell, count in cells.items() if is_number(strip_marks(cell, strip) if strip else cell))


def _format_lines(name: str, markers: Collection[str], read: CellFormat, strip: str, key: str) -> list[str]:
    """Format the settings with which the cells are numbers."""
    kind = "value" if key == "target" else "number"
    lines = [format_character_line("decimal", read.decimal)] if read.decimal != PLAIN.decimal else []
    lines += [format_character_line("thousands", read.thousands)] if read.thousands else []
    lines += [format_columns_line(name, f'{{{kind}: {{strip: "{strip}"}}}}', key)] if strip else []
    lines += [format_missing_line(markers)] if markers else []
    other = format_columns_line(name, "class" if key == "target" else "category", key)
    return (
        [f"write {lines[0]}", *lines[1:-1], f"{lines[-1]}, or {other}"]
        if len(lines) > 1
        else [f"write {lines[0]}, or {other}"]
    )


def find_other_dates(name: str, cells: Sequence[str | None]) -> Refusal | None:
    """Find out whether the cells are dates in another format than ISO 8601, or in several formats.

    Args:
        name: the column's name
        cells: the cells, None where missing

    Returns:
        The refusal, or None if the cells are not dates.
    """
    distinct = [cell for cell in dict.fromkeys(cells) if cell is not None]
    sample = distinct[:: 1 + len(distinct) // MAX_SAMPLE]
    if sum(map(_is_like_date, sample)) < MIN_SAMPLE_SHARE * len(sample):
        return None
    if sum(map(_is_like_date, distinct)) < MIN_SHARE * len(distinct):
        return None
    fitting = [form for form in _list_formats() if all(parse_date(cell, form) for cell in sample)]
    fitting = [form for form in fitting if all(parse_date(cell, form) for cell in distinct)]
    lines = [format_columns_line(name, f'{{date: {{format: "{form}"}}}}') for form in fitting]
    refused = {row: f"'{cell}' is not a date such as 2024-12-31" for row, cell in enumerate(cells)
               if cell is not None and not ISO_DATE.fullmatch(cell)}  # fmt: skip
    category = format_columns_line(name, "category")
    if lines:
        return Refusal("dates in a format of their own", refused, f"write {' or '.join(lines)}, or {category}")
    fix = f"write all dates in one format in the file, or {category}"
    return Refusal("dates in several formats", refused, fix)


def _is_like_date(cell: str) -> bool:
    return LIKE_DATE.fullmatch(cell) is not None or ISO_DATE.fullmatch(cell) is not None


def _list_formats() -> list[str]:
    return [day + time for time in TIMES for day in DAYS]
