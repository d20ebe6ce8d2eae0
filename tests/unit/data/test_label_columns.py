"""Labels that are several columns of yes or no: `data.target={kinds: {labels: {like: [toxic, insult]}}}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dlspec
from dlspec.data.dataset import Dataset
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import DataError

LABELS = ["toxic", "obscene", "threat"]
ROWS = 60


@pytest.fixture
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    columns = {name: generator.integers(0, 2, ROWS) for name in LABELS}
    return pd.DataFrame({"length": np.arange(ROWS) * 7 % 31, "id": [f"r{row}" for row in range(ROWS)], **columns})


def open_frame(frame: pd.DataFrame, folder: Path, like: str | list[str] = LABELS, **settings: Any) -> Dataset:
    path = folder / "comments.csv"
    frame.to_csv(path, index=False)
    kind = {"labels": {"like": like, **settings}}
    source: dict[str, Any] = {"path": str(path), "target": {"kinds": kind}, "drop": ["id"]}
    return open_data(SOURCES["table"](**source))


def sort_rows(values: np.ndarray) -> list[list[float]]:
    return sorted(values.tolist())


def test_columns_of_zeros_and_ones_are_labels(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = open_frame(frame, tmp_path)
    assert data.target.labels == tuple(LABELS)
    values = np.concatenate([split.targets["kinds"].numpy() for split in (data.train, data.validation, data.test)])
    assert sort_rows(values) == sort_rows(frame[LABELS].to_numpy(np.float32))
    assert [field.name for field in data.fields] == ["features"]
    assert data.fields[0].shape == (1,)  # the columns of the labels are no inputs


@pytest.mark.parametrize("words", [("no", "yes"), ("False", "True"), ("0.0", "1.0"), ("F", "T")])
def test_words_for_yes_and_no_give_the_same(words: tuple[str, str], frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = open_frame(frame, tmp_path).train.targets["kinds"]
    frame[LABELS] = np.array(words)[frame[LABELS].to_numpy()]
    assert open_frame(frame, tmp_path).train.targets["kinds"].equal(expected)


def test_a_pattern_gives_the_same(frame: pd.DataFrame, tmp_path: Path) -> None:
    names = ["toxic", "threat"]
    found = open_frame(frame, tmp_path, "t[oh]*").train.targets["kinds"]
    assert found.equal(open_frame(frame, tmp_path, names).train.targets["kinds"])


def test_columns_of_a_frame_are_labels(frame: pd.DataFrame) -> None:
    target = {"kinds": {"labels": {"like": LABELS}}}
    section = {"target": target, "drop": ["id"]}
    spec = {"model": "linear", "trainer": {"epochs": 1, "progress": "none"}, "data": section}
    result = dlspec.train(spec, data=frame.astype(dict.fromkeys(LABELS, bool)))
    assert {f"test/f1_score_{name}" for name in LABELS} <= set(result.results)


def test_what_was_fitted_is_saved_and_inverted(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = open_frame(frame, tmp_path)
    fitted = FittedTable.from_json(data.preprocessing)
    assert fitted.stacks == {"kinds": tuple(LABELS)}
    cells = frame[LABELS].astype(str).to_numpy().astype(np.dtypes.StringDType(na_object=None))
    names = fitted.targets["kinds"].invert(fitted.targets["kinds"].apply(cells).values)
    assert names.tolist() == [[name for name in LABELS if row[name]] for _, row in frame.iterrows()]


GAPS = [("refuse", None), ("none", ROWS), ("drop", ROWS - 2)]


@pytest.mark.parametrize(("missing", "rows"), GAPS)
def test_missing_cells(missing: str, rows: int | None, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame.astype({"threat": "Int64"})
    frame.loc[[3, 8], "threat"] = pd.NA
    if rows is None:
        with pytest.raises(DataError, match="the target is missing"):
            open_frame(frame, tmp_path, missing=missing)
        return
    data = open_frame(frame, tmp_path, missing=missing)
    assert sum(map(len, (data.train, data.validation, data.test))) == rows


def test_other_cells_and_classes_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the classes of 'kinds' are its columns"):
        open_frame(frame, tmp_path, classes=["a", "b", "c"])
    frame.loc[5, "toxic"] = -1
    with pytest.raises(
        DataError, match=r"comments\.csv:7: kinds: '-1' does not say whether 'toxic' is a label of this row"
    ):
        open_frame(frame, tmp_path)
