"""New rows in chunks: every row in its place, and the same cells as a whole table has."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.cells import PLAIN as PLAIN_CELLS
from dlspec.data.prepare.kinds.grouped_number import fit_grouped_number
from dlspec.data.prepare.kinds.number import Number
from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.table_source import TableSource
from dlspec.data.tables.read_options import ReadOptions
from dlspec.data.tables.reading import read_table
from dlspec.data.tables.table import TEXT
from dlspec.errors import DataError
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_columns import list_input_columns
from dlspec.inference.rows.input_settings import InputSettings, make_input_settings
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.row_encoding import encode_chunk
from helpers.table_mutations import mutate_table

PLAIN = InputSettings()


def read_all(source: str | Sequence[str], settings: InputSettings = PLAIN, max_rows: int = 3) -> dict[str, list[Any]]:
    """The cells of all chunks by column, with `#` for the reasons."""
    cells: dict[str, list[Any]] = {}
    rows = 0
    for chunk in iterate_row_chunks(source, settings, max_rows):
        assert chunk.first_row == rows
        assert 0 < len(chunk) <= max_rows
        assert all(len(column) == len(chunk) for column in chunk.columns.values())
        rows += len(chunk)
        for name, column in chunk.columns.items():
            cells.setdefault(name, []).extend(column.tolist())
        cells.setdefault("#", []).extend(chunk.problems.get(at) for at in range(len(chunk)))
        cells.setdefault("at", []).extend(chunk.locate(at).rpartition("/")[2] for at in range(len(chunk)))
    return cells


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


@pytest.mark.parametrize("max_rows", [1, 2, 100])
def test_bad_rows_keep_their_places(tmp_path: Path, max_rows: int) -> None:
    found = read_all(write(tmp_path / "in.csv", 'a,b\n1,x\n2\n\n3,"y"z\n4,w\n5\n'), max_rows=max_rows)
    assert found["a"] == ["1", None, None, "4", None]
    assert found["b"] == ["x", None, None, "w", None]
    assert [bool(each) for each in found["#"]] == [False, True, True, False, True]
    assert found["at"] == ["in.csv:2", "in.csv:3", "in.csv:5", "in.csv:6", "in.csv:7"]


def test_json_lines_with_other_keys_and_types(tmp_path: Path) -> None:
    lines = '{"a": 1, "b": [1, 2]}\n{"a": [1]}\n{bad\n{"b": [3]}\n{"a": 2.50, "c": 1}\n'
    found = read_all(write(tmp_path / "in.jsonl", lines), max_rows=100)
    assert found["a"] == ["1", None, None, None, "2.50"]
    assert found["b"] == [[1, 2], None, None, [3], None]
    assert [bool(each) for each in found["#"]] == [False, True, True, False, False]
    assert found["c"] == [None] * 4 + ["1"]


@pytest.mark.parametrize("max_rows", [1, 2, 700, 5_000])
def test_lists_of_json_lines_do_not_depend_on_chunks(tmp_path: Path, max_rows: int) -> None:
    rows = [{"a": "x" if row in (0, 1, 1500) else [row], "b": None if row < 1_200 else row} for row in range(2_000)]
    rows[1_600]["b"] = [1]  # type: ignore[index]
    rows += [{"c": [1]}, {"c": "late"}, {"c": "later"}]
    path = write(tmp_path / "in.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_all(path, max_rows=max_rows)
    assert [at for at, reason in enumerate(found["#"]) if reason] == [0, 1, 1_500, 1_600, *[2_001, 2_002]]
    assert "'a' must be a list" in found["#"][0]
    assert found["a"][2:4] == [[2], [3]]
    assert found["b"][1_200:1_202] == ["1200", "1201"]


@pytest.mark.parametrize("seed", range(40))
def test_mutated_files_give_every_row_or_one_error(tmp_path: Path, seed: int) -> None:
    """The rows that can be read are those of the whole table; each other row has its reason."""
    generator = random.Random(seed)
    lines = "".join(f'{row},"n{row}, é",{row / 8}\n' for row in range(40))
    (tmp_path / "in.csv").write_bytes(mutate_table(generator, f"id,name,price\n{lines}".encode()))
    path = str(tmp_path / "in.csv")
    try:
        table, notes = read_table(path, ReadOptions.model_validate({"bad_rows": "skip"}))
    except DataError as error:
        if "no rows" not in str(error):
            with pytest.raises(DataError):
                read_all(path)
        return
    found = read_all(path, max_rows=7)
    good = [at for at, reason in enumerate(found["#"]) if reason is None]
    assert {name: [found[name][at] for at in good] for name in table.columns} == {
        name: column.tolist() for name, column in table.columns.items()
    }
    assert len(found["#"]) - len(good) == notes.skipped_count


def test_globs_lists_folders_and_gzip(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,x\n")
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"b,a\ny,2\n"))
    write(tmp_path / "notes.md", "no data")
    expected = {"a": ["1", "2"], "b": ["x", "y"], "#": [None, None], "at": ["1.csv:2", "2.csv.gz:2"]}
    for source in (str(tmp_path), str(tmp_path / "*.csv*"), [str(tmp_path / "1.csv"), str(tmp_path / "2.csv.gz")]):
        assert read_all(source) == expected
    write(tmp_path / "3.jsonl", "{}")
    with pytest.raises(DataError, match=r"files of several formats, \.csv and \.jsonl; write input='.*\*\.csv'"):
        read_all(str(tmp_path))
    for source, message in (("none.csv", "no file 'none.csv'; write input=FILE.csv"), ("in.xyz", "no file")):
        with pytest.raises(DataError, match=message):
            read_all(source)
    with pytest.raises(DataError, match="has no rows of data"):
        read_all(write(tmp_path / "empty.csv", "a,b\n"))
    with pytest.raises(DataError, match="the name of a file is empty"):  # an empty variable of the shell
        read_all("")


def test_standard_input_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(DataError, match="standard input has no rows of data"):
        read_all("-")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('{"a": "é"}\n{"a": 2}\n[1]\n'.encode())))
    found = read_all("-")
    assert found["a"] == ["é", "2", None]
    assert found["at"] == ["row 1", "row 2", "row 3"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}\n{"a": "\xff"}\n')))
    with pytest.raises(DataError, match="standard input:1: a byte in or after this line is not valid utf-8"):
        read_all("-")


def test_arrays_and_images(tmp_path: Path) -> None:
    images = np.arange(7 * 6, dtype=np.uint8).reshape(7, 2, 3)
    np.savez(tmp_path / "in.npz", image=images)
    assert np.array_equal(read_all(str(tmp_path / "in.npz"))["image"], images)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 7, 2, 3) + images.tobytes())
    settings = InputSettings(array_column="image", array_shape=(2, 3))
    found = read_all(str(tmp_path / "t10k-images-idx3-ubyte"), settings)
    assert np.array_equal(found["image"], images)
    assert found["at"][-1] == "t10k-images-idx3-ubyte:7"


def test_parquet_in_chunks(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"a": list(range(10)), "b": [[each] for each in range(10)]})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    found = read_all(str(tmp_path / "in.parquet"))
    assert found["a"] == [str(each) for each in range(10)]
    assert found["b"] == [[each] for each in range(10)]
    assert found["at"][-1] == "in.parquet:10"


def test_texts_in_lines_and_files(tmp_path: Path) -> None:
    (tmp_path / "pos").mkdir()
    write(tmp_path / "pos" / "1.txt", "good film\nreally\n")
    (tmp_path / "pos" / "2.txt").write_bytes(b"\xff\xfe\xff")
    lines = InputSettings(text_column="message")
    assert read_all(str(tmp_path / "pos" / "1.txt"), lines)["message"] == ["good film", "really"]
    blank = read_all(write(tmp_path / "blank.txt", "\n good\r\n  \t\n\nfilm"), lines, max_rows=2)
    assert blank["message"] == ["", "good", "", "", "film"]
    assert blank["at"] == [f"blank.txt:{number}" for number in range(1, 6)]
    source = FileSource.model_validate({"path": "x/{label}/{n}.txt", "columns": {"text": "text"}})
    for path in (str(tmp_path / "pos"), str(tmp_path / "pos" / "*.txt"), str(tmp_path / "{label}" / "{n}.txt")):
        found = read_all(path, InputSettings(source=source, text_column="text"))
        assert found["text"] == ["good film\nreally", None]
        assert found["file"] == [str(tmp_path / "pos" / "1.txt"), None]
        assert "2.txt" in found["#"][1]
        assert found.get("label", ["pos", None]) == ["pos", None]


def test_options_of_the_training_files_hold_for_files_of_their_format(tmp_path: Path) -> None:
    source = TableSource.model_validate({"path": "old.csv", "delimiter": ";", "decimal": ",", "skip": 1})
    settings = InputSettings(source.make_read_options(), "csv", source=source)
    assert read_all(write(tmp_path / "new.csv", "title\na;b\n1,5;x\n"), settings)["a"] == ["1,5"]
    assert read_all(write(tmp_path / "new.jsonl", '{"a": "1,5"}\n'), settings)["a"] == ["1,5"]
    assert read_all(write(tmp_path / "new.tsv", "a\tb\n1,5\tx\n"), settings)["a"] == ["1,5"]
    written = InputSettings(settings.options, "csv", {"delimiter": "|", "skip": 0}, source=source)
    assert read_all(write(tmp_path / "pipe.csv", "a|b\n1|x\n"), written)["b"] == ["x"]
    wrong = InputSettings(settings.options, "csv", {"encoding": "nonsense"}, source=source)
    with pytest.raises(DataError, match=r"data\.encoding can't be 'nonsense': unknown encoding"):
        read_all(str(tmp_path / "new.csv"), wrong)


def test_extracted_columns(tmp_path: Path) -> None:
    settings = InputSettings(extract={"name": "{last}, {first}"})
    found = read_all(write(tmp_path / "in.csv", 'name,x\n"Braund, Owen",1\nnobody,2\n'), settings)
    assert (found["last"], found["first"]) == (["Braund", None], ["Owen", None])


def test_the_column_that_divides_numbers_into_groups_is_read_too() -> None:
    cells, plans = np.array([1.0, 2.0, 30.0, 40.0]), np.array(["a", "a", "b", "b"], TEXT)
    spend = fit_grouped_number(Number(per="plan"), cells, plans, np.arange(4), read=PLAIN_CELLS, name="spend")
    fitted = FittedTable({"spend": spend}, {}, (FieldPlan("features", ("spend",), "features"),))
    assert make_input_settings(None, fitted, {}).use.is_needed("plan")
    assert list_input_columns(fitted) == ["spend", "plan"]
    with pytest.raises(DataError, match="no column 'plan', which the run was trained on"):
        encode_chunk(fitted, RowChunk({"spend": cells}))
