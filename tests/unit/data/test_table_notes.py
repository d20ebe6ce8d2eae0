"""The lines that a run on a table starts with, and the columns that messages list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.name_patterns import make_unknown_column_error
from dlspec.data.encoding.table_notes import describe_counts
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import DataError

ROWS = "\n".join(f"{row},{row % 7},{'ab'[row % 2]}" for row in range(40))


def open_files(folder: Path, test: str) -> Dataset:
    (folder / "train.csv").write_text(f"# first\nid,x,y\n{ROWS}\n")
    (folder / "test.csv").write_text(test)
    paths = {"path": str(folder / "train.csv"), "test": str(folder / "test.csv")}
    source: dict[str, Any] = {**paths, "target": "y", "comment": "#"}
    return open_data(SOURCES["table"](**source))


def test_notes_about_a_second_file_are_not_repeated(tmp_path: Path) -> None:
    notes = open_files(tmp_path, "# first\nid,x,y\n90,2,a\n").notes
    assert notes[0].endswith("train.csv and 1 more file: 41 rows, 3 columns (found delimiter comma)")
    assert sum("comment line" in note for note in notes) == 1
    notes = open_files(tmp_path, "# first\n# second\nid,x,y\n90,2,a\n").notes
    assert f"{tmp_path / 'test.csv'}: left out 2 comment lines" in notes


def test_a_test_file_without_the_target_is_refused_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'y'.*the target too, or leave data\.test out"):
        open_files(tmp_path, "id,x\n90,2\n")


def test_missing_cells_are_compared_with_those_of_training() -> None:
    notes = {
        "training": Counter({("missing", "cabin"): 5}),
        "test": Counter({("missing", "cabin"): 2, ("missing", "age"): 1, ("unknown", "port"): 3}),
    }
    assert list(describe_counts(notes)) == [
        "training rows have missing cells: cabin 5",
        "test rows have cells that training does not have: port 3",
        "test rows have missing cells: cabin 2",
        "test rows have missing cells where training has none: age 1",
    ]


def test_the_columns_of_a_message_are_in_the_order_of_the_table() -> None:
    columns = [f"column_{number}" for number in range(1, 15)]
    assert "available: column_1, column_2, column_3," in str(make_unknown_column_error("target", "income", columns))
    assert "and 2 more" in str(make_unknown_column_error("target", "income", columns))
    assert "did you mean 'Income'?" in str(make_unknown_column_error("target", "income", ["age", "Income"]))
