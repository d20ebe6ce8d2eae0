"""Tables from files: what each file means, and that the line to write of a refusal works as typed."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import ValidationError

from dlspec.data.tables import json_lines, text_column, text_lines
from dlspec.data.tables.input_files import find_input_files
from dlspec.data.tables.reading import read_table
from dlspec.data.tables.table import ReadNotes, ReadOptions, Table
from dlspec.errors import Code, DataError

Columns = dict[str, list[Any]]


def read(folder: Path, content: str | bytes, name: str = "in.csv", **options: Any) -> tuple[Table, ReadNotes]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(str(file), ReadOptions(**options))


def list_columns(table: Table) -> Columns:
    return {name: column.tolist() for name, column in table.columns.items()}


AB = {"a": ["1"], "b": ["2"]}
PEOPLE = {"name": ["Zoë", "Jürgen"], "n": ["1", "2"]}
# name: content, file name, options, columns
FILES: dict[str, tuple[str | bytes, str, dict[str, Any], Columns]] = {
    "commas": ("a,b\n1,2\n", "in.csv", {}, AB),
    "semicolons and decimal commas": ("a;b\n1,5;2\n", "in.csv", {"decimal": ","}, {"a": ["1,5"], "b": ["2"]}),
    "tabs": ("a\tb\n1\t2\n", "in.csv", {}, AB),
    "bars": ("a|b\n1|2", "in.csv", {}, AB),
    "another delimiter": ("a:b\n1:2", "in.csv", {"delimiter": ":"}, AB),
    "byte order mark": ("\ufeffa,b\n1,2\n", "in.csv", {}, AB),
    "Windows": ("a,b\r\n1,2\r\n", "in.csv", {}, AB),
    "old Mac": ("a,b\r1,2\r", "in.csv", {}, AB),
    "latin-1": ("name,n\nZoë,1\nJürgen,2\n".encode("latin-1"), "in.csv", {"encoding": "latin-1"}, PEOPLE),
    "cp1252": ("a,b\n€,“x”\n".encode("cp1252"), "in.csv", {"encoding": "cp1252"}, {"a": ["€"], "b": ["“x”"]}),
    "utf-16 with a mark": ("name,n\nZoë,1\nJürgen,2\n".encode("utf-16"), "in.csv", {}, PEOPLE),
    "utf-16-le": ("name,n\nZoë,1\nJürgen,2\n".encode("utf-16-le"), "in.csv", {"encoding": "utf-16-le"}, PEOPLE),
    "spaces": ("  first name , b\n 1 ,\t2 \n", "in.csv", {}, {"first name": ["1"], "b": ["2"]}),
    "normal forms": ("cafe\u0301,b\ne\u0301,é\n", "in.csv", {}, {"café": ["é"], "b": ["é"]}),
    "quotes": ('a,b\n"x, y","say ""hi"""\n', "in.csv", {}, {"a": ["x, y"], "b": ['say "hi"']}),
    "line break in a cell": ('a,b\n"x\ny",2\n3,4\n', "in.csv", {}, {"a": ["x\ny", "3"], "b": ["2", "4"]}),
    "space before a quote": ('a, b\n1, "x, y"\n', "in.csv", {}, {"a": ["1"], "b": ["x, y"]}),
    "quote inside of a cell": ('a,b\n5" pipe,2\n', "in.csv", {}, {"a": ['5" pipe'], "b": ["2"]}),
    "other quotes": ("a,b\n'x,y',2\n", "in.csv", {"quote": "'"}, {"a": ["x,y"], "b": ["2"]}),
    "no quotes": ('a,b\n"x,2\n', "in.csv", {"quote": "none"}, {"a": ['"x'], "b": ["2"]}),
    "no quotes in tsv": ('a\tb\n"x\t2\n', "in.tsv", {}, {"a": ['"x'], "b": ["2"]}),
    "missing": ("a,b\n, NA \nnull,NaN\n-,n/a\n", "in.csv", {}, {"a": [None, None, "-"], "b": [None, None, "n/a"]}),
    "other missing": ("a,b\n-,?\n,x\n", "in.csv", {"missing": ["-", "?"]}, {"a": [None, ""], "b": [None, "x"]}),
    "no header": ("1,x\n2,y\n", "in.csv", {"header": False}, {"column_1": ["1", "2"], "column_2": ["x", "y"]}),
    "decimal comma": ("a;b\n1,5;2\n", "in.csv", {"decimal": "comma", "thousands": "space"}, {"a": ["1,5"], "b": ["2"]}),
    "years as a header": ("2019,2020\n1,2\n", "in.csv", {"header": True}, {"2019": ["1"], "2020": ["2"]}),
    "names": ("1,2,x\n", "in.csv", {"header": ["I[1-2]", "c"]}, {"I1": ["1"], "I2": ["2"], "c": ["x"]}),
    "rest": (
        "1,a,b\n2\n3,c,\n",
        "in.csv",
        {"header": ["id", "topics..."]},
        {"id": ["1", "2", "3"], "topics": [["a", "b"], [], ["c"]]},
    ),
    "comments": ("# made by R\na,b\n#x,y\n1,2\n", "in.csv", {"comment": "#"}, AB),
    "comment mark in a cell": ('a,b\n"1\n#2",3\n', "in.csv", {"comment": "#"}, {"a": ["1\n#2"], "b": ["3"]}),
    "skip": ("a report\n\na,b\n1,2\n", "in.csv", {"skip": 2}, AB),
    "empty lines": ("a,b\n\n1,2\n   \n", "in.csv", {}, AB),
    "empty rows": ("a,b\n,\n", "in.csv", {}, {"a": [None], "b": [None]}),
    "unnamed column": (",b\n1,2\n", "in.csv", {}, {"column_1": ["1"], "b": ["2"]}),
    "one column": ("text\none two\n\nthree\n", "in.csv", {}, {"text": ["one two", "three"]}),
    "leading zeros, money and percent": (
        'a,b\n007,"$1,234"\n1,12 %\n',
        "in.csv",
        {},
        {"a": ["007", "1"], "b": ["$1,234", "12 %"]},
    ),
    "gzip": (gzip.compress(b"a,b\n1,2\n"), "in.csv.gz", {}, AB),
    "gzip without its ending": (gzip.compress(b"a,b\n1,2\n"), "in.csv", {}, AB),
    "ragged, skipped": ("a,b\n1\n1,2\n1,2,3\n", "in.csv", {"bad_rows": "skip"}, AB),
    "words": (
        '18.0  8\t"ford torino"\n15 8 vw\n',
        "in.data",
        {"format": "words", "header": ["mpg", "n", "car"]},
        {"mpg": ["18.0", "15"], "n": ["8", "8"], "car": ["ford torino", "vw"]},
    ),
    "blocks": (
        "EU B-ORG\nrejects O\n\nnull O\n",
        "in.conll",
        {"header": ["word", "tag"]},
        {"word": [["EU", "rejects"], ["null"]], "tag": [["B-ORG", "O"], ["O"]]},
    ),
    "JSON lines": (
        '{"a": 1.50, "b": {"c": true}, "l": [1, 2.5, "x", null]}\n\n{"a": "NA", "d": 12345678901234567890}\n',
        "in.jsonl",
        {},
        {
            "a": ["1.50", None],
            "b.c": ["true", None],
            "l": [[1, 2.5, "x", None], None],
            "d": [None, "12345678901234567890"],
        },
    ),
}


# The first rows of public files, and whether they are data.
FIRST_ROWS = [
    ("39,State-gov,77516,Bachelors,13,Never-married,2174,0,40,United-States,<=50K", True),  # adult.data
    ('"3","Wall St. Bears Claw Back Into the Black","Short-sellers are seeing green again."', True),  # AG news
    ('"0","1467810369","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","a tweet"', True),  # Sentiment140
    ("5.1,3.5,1.4,0.2,Iris-setosa", True),
    ("country,1990,2000,2010", False),
    ("label,0,1,2,3", False),
    ("1stFlrSF,2ndFlrSF,SalePrice", False),
    ("question,12345678901234567890123,answer", True),
]


@pytest.mark.parametrize(("row", "is_data"), FIRST_ROWS)
def test_a_first_row_of_data_is_not_taken_for_names(row: str, is_data: bool, tmp_path: Path) -> None:
    content = f"{row}\n{row}\n"
    if not is_data:
        assert len(read(tmp_path, content, "in.csv")[0]) == 1
        return
    with pytest.raises(DataError, match=r"data\.header=false"):
        read(tmp_path, content, "in.csv")
    assert len(read(tmp_path, content, "in.csv", header=False)[0]) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read(name: str, tmp_path: Path) -> None:
    content, file, options, columns = FILES[name]
    table, _ = read(tmp_path, content, file, **options)
    assert list_columns(table) == columns
    assert list(table.columns) == list(columns)


# name: content, file name, options, code, line of the message (0: none), rows when the line to write is followed
REFUSED: dict[str, tuple[str | bytes, str, dict[str, Any], Code, int, int]] = {
    "latin-1": ("a,b\n1,2\nä,1\n".encode("latin-1"), "in.csv", {}, Code.FILE_UNREADABLE, 3, 2),
    "utf-16-le without a mark": ("a,b\n1,2\n".encode("utf-16-le"), "in.csv", {}, Code.FILE_UNREADABLE, 1, 1),
    "another mark": (b"\xef\xbb\xbfa,b\n1,2\n", "in.csv", {"encoding": "latin-1"}, Code.CONFLICT, 0, 1),
    "duplicate columns": ("a,a,b\n1,2,3\n", "in.csv", {}, Code.NAME_TAKEN, 1, 1),
    "duplicate columns after lines": ("x\n#y\na,a,b\n1,2,3\n", "in.csv", {"skip": 2}, Code.NAME_TAKEN, 3, 1),
    "duplicate columns with reserved names": ("null,null\n1,2\n", "in.csv", {}, Code.NAME_TAKEN, 1, 1),
    "duplicate columns with spaces": (
        "x\n\n#\na b,a b\n1,2\n",
        "in.csv",
        {"skip": 1, "comment": "#"},
        Code.NAME_TAKEN,
        4,
        1,
    ),
    "row names of R": ("a,b\n1,2,3\n2,3,4\n", "in.csv", {}, Code.BAD_DATA, 2, 2),
    "delimiter at the end": ("a,b\n1,2,\n2,3,\n", "in.csv", {}, Code.BAD_DATA, 2, 2),
    "many duplicate columns": (",".join("ab" * 50) + "\n", "in.csv", {}, Code.NAME_TAKEN, 1, 1),
    "no header": ("5.1,setosa\n4.9,setosa\n", "in.csv", {}, Code.BAD_DATA, 1, 2),
    "all numbers": ("1,2\n3,4\n", "in.csv", {}, Code.BAD_DATA, 1, 2),
    "names twice": ("a,b\n1,2\n", "in.csv", {"header": ["a", "b"]}, Code.CONFLICT, 1, 0),
    "ragged": ("a,b\n1,2\n1\n1,2,3\n4,5\n", "in.csv", {}, Code.BAD_DATA, 3, 2),
    "text after a quote": ('a,b\n1,"x"y\n2,3\n', "in.csv", {}, Code.BAD_DATA, 2, 1),
    "open quote": ('a,b\n1,2\n1,"x\n2,3\n', "in.csv", {}, Code.BAD_DATA, 3, 0),
    "open quote and a later one": ('a,b\n1,"x\n2,"y"\n', "in.csv", {}, Code.BAD_DATA, 2, 0),
    "two delimiters": ("a;b,c\n1;2,3\n", "in.csv", {}, Code.AMBIGUOUS, 0, 1),
    "spaces": ("a b c\n1 2 3\n4 5 6\n", "in.txt", {}, Code.AMBIGUOUS, 0, 2),
    "NUL": ("a,b\n1,\0\n", "in.csv", {}, Code.FILE_UNREADABLE, 2, 0),
    "empty": ("", "in.csv", {}, Code.BAD_DATA, 0, 0),
    "empty lines": ("\n\n", "in.csv", {}, Code.BAD_DATA, 0, 0),
    "header alone": ("a,b\n", "in.csv", {}, Code.BAD_DATA, 0, 0),
    "bad rows alone": ("a,b\n1\n", "in.csv", {"bad_rows": "skip"}, Code.BAD_DATA, 2, 0),
    "all skipped": ("a,b\n", "in.csv", {"skip": 3}, Code.WRONG_VALUE, 0, 0),
    "delimiter for Excel": ("sep=;\na;b;c\n1;2;3\n", "in.csv", {}, Code.WRONG_VALUE, 1, 1),
    "unknown ending": ("a,b\n1,2\n", "in.table", {}, Code.MISSING_VALUE, 0, 1),
    "workbook": (b"PK\x03\x04", "in.csv", {}, Code.FILE_UNREADABLE, 0, 0),
    "workbook by its name": (b"", "in.xlsx", {}, Code.FILE_UNREADABLE, 0, 0),
    "unused option": ('{"a": 1}\n', "in.jsonl", {"delimiter": ","}, Code.UNUSED, 0, 0),
    "JSON list": ('[{"a": 1}]\n', "in.jsonl", {}, Code.BAD_DATA, 1, 0),
    "JSON that is not valid": ('{"a": 1}\n{"a": }\n', "in.jsonl", {}, Code.BAD_DATA, 2, 1),
    "key twice": ('{"a": 1, "a": 2}\n{"a": 1}', "in.jsonl", {}, Code.BAD_DATA, 1, 1),
    "lists and text": ('{"a": [1]}\n{"a": 1}\n', "in.jsonl", {}, Code.BAD_DATA, 2, 1),
    "words with an open quote": ('a b\n1 "x\n1 2\n', "in.txt", {"format": "words"}, Code.BAD_DATA, 2, 1),
    "uneven block": ("a b\nc d\n\ne f g\n", "in.conll", {}, Code.BAD_DATA, 4, 1),
}


def parse_line_to_write(message: str) -> dict[str, Any]:
    """The first settings that a message tells to write, as the command line reads them."""
    found = re.search(r"write ((?:'?data\.\w+=(?:\[[^\]]*\]'?|[^\s,;]+) ?)+)", message)
    if found is None:
        return {}
    parsed = OverridesParser.create().parse_overrides(shlex.split(found[1]))
    return {each.key_or_group.removeprefix("data."): each.value() for each in parsed}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused(name: str, tmp_path: Path) -> None:
    content, file, options, code, line, rows = REFUSED[name]
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, file, **options)
    assert caught.value.finding.code == code
    assert str(tmp_path / file) + (f":{line}" if line else "") in str(caught.value) or code == Code.UNUSED
    if rows:
        fixed = {**options, **parse_line_to_write(str(caught.value))}
        assert fixed != options
        assert len(read(tmp_path, content, file, **fixed)[0]) == rows


def test_the_first_bad_rows_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "a,b\n" + "1\n" * 50)
    lines = str(caught.value).splitlines()
    assert [f"in.csv:{number}:" in line for number, line in zip(range(2, 22), lines, strict=False)] == [True] * 20
    assert len(lines) == 21
    assert caught.value.finding.to_problem("data.path").format_lines()[1].startswith("    ")


def test_what_was_left_out_is_noted(tmp_path: Path) -> None:
    table, notes = read(tmp_path, "a,b\n1\n#\n1,2\n\n", bad_rows="skip", comment="#")
    assert (len(table), notes.skipped_count, notes.comment_lines, notes.empty_lines) == (1, 1, 1, 1)
    assert notes.skipped[0].location == f"{tmp_path / 'in.csv'}:2"
    assert notes.delimiter == ","
    assert read(tmp_path, "a,b\n1,2\n", delimiter=",")[1].describe() == []


def test_rows_know_their_lines(tmp_path: Path) -> None:
    table, _ = read(tmp_path, 'a,b\n\n"x\ny",1\n# c\n2,3\n', comment="#")
    assert [table.locate(row) for row in range(2)] == [f"{tmp_path / 'in.csv'}:{line}" for line in (3, 6)]


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n4,3\n")
    table, notes = read_table("*.csv", ReadOptions(), tmp_path)
    assert list_columns(table) == {"a": ["1", "3"], "b": ["2", "4"]}
    assert table.locate(1) == f"{tmp_path / '2.csv'}:2"
    assert notes.files == 2
    (tmp_path / "3.csv").write_text("a,c\n1,2\n")
    with pytest.raises(DataError) as caught:
        read_table("*.csv", ReadOptions(), tmp_path)
    assert caught.value.finding.code == Code.CONFLICT
    with pytest.raises(DataError, match="given twice"):
        read_table(["1.csv", "1.csv"], ReadOptions(), tmp_path)


def test_links_to_folders_add_no_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/in.csv", "b/other.csv"):
        (tmp_path / name).write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "b" / "second.csv").symlink_to(tmp_path / "b" / "in.csv")
    (tmp_path / "b" / "self.csv").symlink_to("self.csv")
    found = find_input_files(str(tmp_path / "**" / "*.csv"))
    assert [str(each.relative_to(tmp_path)) for each in found] == ["b/in.csv", "b/other.csv", "b/second.csv"]
    with pytest.raises(DataError, match=r"self\.csv' is a link to a file that does not exist"):
        find_input_files(str(tmp_path / "b" / "self.csv"))


def test_a_path_in_another_normal_form(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301").mkdir()
    read(tmp_path, "a,b\n1,2\n", "cafe\u0301/re\u0301sume\u0301.csv")
    assert len(read_table("café/résumé.csv", ReadOptions(), tmp_path)[0]) == 1


def test_chunks_are_joined(tmp_path: Path) -> None:
    """More rows than one chunk, with text that is longer than what an array stores inline, equal pandas' cells."""
    frame = pandas.DataFrame(
        {"n": range(70_001), "text": [f"{'é' * (row % 40)}{row}" for row in range(70_001)], "x": "y"}
    )
    frame.to_csv(tmp_path / "in.csv", index=False)
    table, _ = read_table(str(tmp_path / "in.csv"), ReadOptions())
    assert table.columns["text"].tolist() == frame["text"].tolist()
    assert table.columns["n"].astype(int).tolist() == frame["n"].tolist()
    assert table.line_of_row.tolist() == list(range(2, 70_003))


@pytest.mark.parametrize("block", [1, 3, 100])
def test_a_text_column_grows_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_column, "MAX_BLOCK_ROWS", block)
    column, expected = text_column.TextColumn(), []
    for count in (1, 0, 2, 7, 1, 40):
        cells = [None if number % 5 == 4 else f"cell {number} of {count}" * (number % 3) for number in range(count)]
        column.add(cells)
        column.fill(column.rows + 1)
        expected += [*cells, None]
    assert column.build().tolist() == expected


def test_keys_that_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of JSON lines may have different keys, and lists that are missing in whole chunks."""
    monkeypatch.setattr(json_lines, "CHUNK_CELLS", 1)
    content = '{"a": 1}\n{"b": [1], "c": null}\n{"c": [2]}\n{"a": "x"}\n'
    table, _ = read(tmp_path, content, "in.jsonl")
    assert list_columns(table) == {
        "a": ["1", None, None, "x"],
        "b": [None, [1], None, None],
        "c": [None, None, [2], None],
    }
    with pytest.raises(DataError, match=r"in\.jsonl:5: 'c' must be a list, as in most of the first rows; got '5'"):
        read(tmp_path, content + '{"c": 5}\n', "in.jsonl")


def test_many_columns(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(20_000)]
    table, _ = read(tmp_path, ",".join(names) + "\n" + (",".join("1" * 20_000) + "\n") * 2)
    assert list(table.columns) == names
    assert len(table) == 2


def test_long_cells(tmp_path: Path) -> None:
    table, _ = read(tmp_path, f"a,b\n{'x' * 10_000_000},1\n")
    assert len(table.columns["a"][0]) == 10_000_000
    with pytest.raises(DataError) as caught:
        read(tmp_path, f"a,b\n{'x' * 16_000_001},1\n")
    assert caught.value.finding.code == Code.TOO_LARGE
    assert "in.csv:2" in str(caught.value)


def test_npz_files(tmp_path: Path) -> None:
    arrays = {
        "x": np.arange(6.0).reshape(3, 2),
        "f": np.asfortranarray(np.arange(6).reshape(3, 2)),
        "name": np.array(["a", "NA", " c"]),
        "day": np.array(["2020-01-01", "NaT", "2020-02-01"], "M8[D]"),
        "flag": np.array([True, False, True]),
    }
    np.savez_compressed(tmp_path / "in.npz", **arrays)
    table, _ = read_table(str(tmp_path / "in.npz"), ReadOptions())
    assert np.array_equal(table.columns["x"], arrays["x"])
    assert np.array_equal(table.columns["f"], arrays["f"])
    assert table.columns["name"].tolist() == ["a", None, "c"]
    assert table.columns["day"].tolist() == ["2020-01-01", None, "2020-02-01"]
    assert table.columns["flag"].tolist() == [1, 0, 1]
    assert table.locate(2) == f"{tmp_path / 'in.npz'}:3"


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        read(tmp_path, b"PAR1", "in.parquet")
    assert caught.value.finding.code == Code.NOT_INSTALLED
    assert "pip install 'dlspec[tables]'" in str(caught.value)


def test_parquet_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"s": ["a", " NA", None], "i": [1, None, 3], "f": [1.5, float("nan"), 2.0], "l": [[1, 2], None, []]}
    parquet.write_table(pyarrow.table({**columns, "d": [{"x": True}] * 3}), tmp_path / "in.parquet")
    table, _ = read_table(str(tmp_path / "in.parquet"), ReadOptions())
    assert list_columns(table) == {
        "s": ["a", None, None],
        "i": ["1", None, "3"],
        "f": ["1.5", None, "2"],
        "l": [[1, 2], None, []],
        "d.x": ["true", "true", "true"],
    }


WRONG_OPTIONS: dict[str, dict[str, Any]] = {
    "two characters": {"delimiter": "::"},
    "line break": {"delimiter": "\n"},
    "quote": {"quote": "ab"},
    "encoding": {"encoding": "utf-99"},
    "no text encoding": {"encoding": "zip"},
    "encoding of domain names": {"encoding": "idna"},
    "encoding of literals": {"encoding": "unicode_escape"},
    "thousands": {"thousands": "0"},
    "no names": {"header": []},
    "skip": {"skip": -1},
    "unknown": {"sep": ","},
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_wrong_options(name: str) -> None:
    with pytest.raises(ValidationError):
        ReadOptions(**WRONG_OPTIONS[name])


@pytest.mark.parametrize("header", [["I[3-1]"], ["I[1-999999999]"], ["a", "a"], ["rest...", "b"], ["a", ""]])
def test_wrong_headers(header: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "1,2\n", header=header)
    assert caught.value.key == "header"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rows_that_can_simply_be_split_are_read_as_the_csv_module_reads_them(tmp_path: Path, line_end: str) -> None:
    """Blocks of simple rows, with rows among them that need a closer look."""
    rows = [[str(row), f" v{row} ", str(row / 8)] for row in range(1000)]
    rows[300] = ["300", '"two\nlines, and ""quotes"""', "1"]
    rows[700] = ["700", "", "NA"]
    text = line_end.join(",".join(row) for row in [["id", "name", "x"], *rows])
    table, _ = read(tmp_path, text)
    expected = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))[1:]
    assert table.columns["id"].tolist() == [row[0] for row in expected]
    assert table.columns["name"].tolist() == [row[1].strip() or None for row in expected]
    assert table.line_of_row[[299, 300, 301, 999]].tolist() == [301, 302, 304, 1002]


def test_long_lines_are_not_read_ahead_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "BLOCK_CHARACTERS", 100)
    (tmp_path / "in.csv").write_text(f"{'x' * 60},1\n" * 9)
    lines = text_lines.TextLines(tmp_path / "in.csv", "utf-8")
    with lines.open():
        counts = [len(lines.take_plain_lines(50, '"')) for _ in range(6)]
    assert counts == [2, 2, 2, 2, 1, 0]
