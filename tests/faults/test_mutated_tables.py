"""Damaged CSV files are read as they are written, or refused with a DataError: never a traceback, never a wrong row."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pandas
import pytest

from dlspec.data.tables.reading import read_table
from dlspec.data.tables.table import DEFAULT_MISSING, ReadNotes, ReadOptions, Table
from dlspec.errors import DataError
from helpers.table_mutations import Malformed, Record, clean_record, mutate_table, read_strictly, write_table

MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def decode(content: bytes) -> str | None:
    """The file as text, None if it is not UTF-8 or contains NUL."""
    if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        codec = "utf-32"
    else:
        codec = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(codec)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def read_expected(text: str, delimiter: str) -> list[Record] | None:
    try:
        return read_strictly(text, delimiter)
    except Malformed:
        return None


def list_rows(table: Table) -> list[list[str | None]]:
    return [list(row) for row in zip(*(column.tolist() for column in table.columns.values()), strict=True)]


def count_pandas_rows(text: str, delimiter: str) -> int:
    frame = pandas.read_csv(
        io.StringIO(text), sep=delimiter, dtype=str, header=None, skipinitialspace=True, engine="c", skiprows=0
    )
    return len(frame) - 1


def try_reading(file: Path, options: ReadOptions) -> tuple[Table, ReadNotes] | None:
    try:
        return read_table(str(file), options)
    except DataError as error:
        assert str(file) in str(error)
        return None


def check_seed(seed: int, folder: Path) -> bool:
    """Check one damaged file; returns whether it was read."""
    random_numbers = random.Random(seed)
    delimiter = random_numbers.choice(",;\t|")
    line_end = random_numbers.choice(["\n", "\r\n", "\r"])
    content = mutate_table(random_numbers, write_table(random_numbers, delimiter, line_end).encode())
    file = folder / "mutated.csv"
    file.write_bytes(content)
    text = decode(content)
    found = try_reading(file, ReadOptions(delimiter=delimiter, header=True))
    if text is None:
        assert found is None
        return False
    expected = read_expected(text, delimiter)
    is_even = bool(expected) and len({len(record) for record in expected or ()}) == 1
    if found is not None:
        assert expected is not None and is_even
        assert list_rows(found[0]) == [clean_record(record, DEFAULT_MISSING) for record in expected[1:]]
        assert len(found[0]) == count_pandas_rows(text, delimiter)
    elif expected is not None and is_even and len(expected) > 1:
        names = [" ".join(name.split()) for name in expected[0]]
        assert len({*names}) < len(names), "refused although it is correct"
    check_skipping(file, delimiter, expected)
    try_reading(file, ReadOptions())  # with a guessed delimiter: no other error
    return found is not None


def check_skipping(file: Path, delimiter: str, expected: list[Record] | None) -> None:
    """With `bad_rows: skip`, rows that were left out are counted."""
    found = try_reading(file, ReadOptions(delimiter=delimiter, header=True, bad_rows="skip"))
    if found is not None and expected is not None:
        table, notes = found
        assert len(table) + notes.skipped_count == len(expected) - 1
        assert len(table) == sum(len(record) == len(expected[0]) for record in expected[1:])


def test_damaged_tables(tmp_path: Path) -> None:
    read = sum(check_seed(seed, tmp_path) for seed in range(100))
    assert 10 < read < 90  # both happen


@pytest.mark.soak
def test_many_damaged_tables(tmp_path: Path) -> None:
    for seed in range(100, 2_100):
        check_seed(seed, tmp_path)
