"""Rows in Python: frames, lists of rows and (X, y) train as a table does, are loaded and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import dlspec
from dlspec.errors import Code, SpecError
from dlspec.jobs.python_spec import prepare_spec

COUNT = 80
SPEC: dict[str, Any] = {"model": {"layers": [{"Linear": 8}, "ReLU", {"Linear": "${data.num_outputs}"}]},
                        "trainer": {"epochs": 2, "progress": "none", "curves": False, "pictures": False,
                                    "tensorboard": False}}  # fmt: skip


def make_frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame({
        "age": generator.integers(18, 80, COUNT), "spent": np.round(generator.normal(size=COUNT), 3),
        "plan": generator.choice(["basic", "pro"], COUNT), "left": generator.choice(["yes", "no"], COUNT),
    })  # fmt: skip


def read_features(rows: Any, **settings: Any) -> torch.Tensor:
    return prepare_spec({**SPEC, **settings}, rows, target="left").open().data.train.tensors["features"]


def test_a_frame_is_the_table_that_it_was_read_from(tmp_path: Path) -> None:
    frame = make_frame()
    frame.to_csv(tmp_path / "frame.csv", index=False)
    written = {"type": "table", "path": str(tmp_path / "frame.csv")}
    expected = read_features(written)
    assert torch.equal(read_features(frame), expected)
    assert torch.equal(read_features(frame.to_dict("records")), expected)


def test_settings_of_a_table_hold_for_a_frame() -> None:
    section = {"only": ["spent"], "test": 0.5, "columns": {"spent": {"number": {"scale": "none"}}}}
    found = read_features(make_frame(), data=section)
    assert found.shape[1] == 1
    rounded = set(make_frame()["spent"].astype("float32").tolist())
    assert set(found[:, 0].tolist()) <= rounded


def test_x_and_y_need_no_target() -> None:
    generator = np.random.default_rng(0)
    result = dlspec.train(SPEC, (generator.normal(size=(COUNT, 3)), generator.choice(["a", "b"], COUNT)))
    assert result.spec["data"]["target"] == {"target": "class"}
    assert "test/accuracy" in result.results


def test_a_run_on_a_frame_is_loaded_and_resumed(tmp_path: Path) -> None:
    frame = make_frame()
    result = dlspec.train(SPEC, frame, target="left", folder=tmp_path)
    assert result.folder is not None
    saved = yaml.safe_load((result.folder / "spec.yaml").read_text())["data"]
    assert saved["type"] == "table" and saved["columns"]["age"] == "number"
    prepared = json.loads((result.folder / "prepare.json").read_text())
    assert prepared["columns"]["plan"]["categories"]
    loaded = dlspec.load(result.folder, frame)
    for one, two in zip(loaded.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(one, two)
    resumed = dlspec.resume(result.folder, frame, changes={"trainer": {"epochs": 3}})
    assert len(resumed.history) == 3
    frame.loc[3, "spent"] = 77
    with pytest.raises(SpecError) as error:
        dlspec.resume(result.folder, frame, changes={"trainer": {"epochs": 4}})
    assert [each.code for each in error.value.problems] == [Code.CHANGED_SETTING]


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ({"delimiter": ";"}, Code.UNKNOWN_SETTING),
        ({"folds": 1}, Code.WRONG_VALUE),
        ({"drop": ["x"]}, Code.UNKNOWN_FIELD),
    ],
    ids=str,
)
def test_wrong_settings_of_a_frame(section: dict[str, Any], code: Code) -> None:
    with pytest.raises(SpecError) as error:
        read_features(make_frame(), data=section)
    assert [each.code for each in error.value.problems] == [code]


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        dlspec.train(SPEC, make_frame(), target="lefft")
    assert error.value.problems[0].path == "data.target"


def test_the_target_of_a_named_data_set(tmp_path: Path) -> None:
    make_frame().to_csv(tmp_path / "frame.csv", index=False)
    network = dlspec.build(SPEC, {"type": "table", "path": str(tmp_path / "frame.csv")}, target="left")
    assert sum(each.numel() for each in network.parameters()) > 0
