"""Scales of targets: trained on a scale, reported in the target's own unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.saved_dataset import make_saved_preparation, read_saved_dataset
from dlspec.data.prepare.kinds import TARGET_KINDS, fitted_from_json, read_kind
from dlspec.data.prepare.kinds.value_target import FittedValue
from dlspec.data.sources import SOURCES, open_data
from dlspec.data.target_scale import TargetScale
from dlspec.errors import DataError
from dlspec.jobs.python_spec import prepare_spec
from helpers.kind_table import text_column

GENERATOR = np.random.default_rng(1)
PRICES = np.round(np.exp(GENERATOR.normal(3, 1, 200)), 3)  # as of houses: a few are very large
PRICES[190] = 5_000.0  # beyond all training rows
CELLS = text_column(*map(repr, PRICES.tolist()))
TRAINING = np.arange(150)
SCALES = ["standard", "minmax", "log", "quantile"]


def fit_value(scale: str, **settings: Any) -> FittedValue:
    kind = read_kind({"value": {"scale": scale, **settings}}, TARGET_KINDS, "")
    fitted = kind.fit(CELLS, TRAINING, name="price")
    assert isinstance(fitted, FittedValue)
    return fitted


@pytest.mark.parametrize("scale", SCALES)
def test_values_of_all_rows_come_back_in_their_unit(scale: str) -> None:
    fitted = fit_value(scale)
    stored = torch.from_numpy(fitted.apply(CELLS).values)
    target_scale = TargetScale.from_scale(fitted.scale)
    assert target_scale is not None
    np.testing.assert_allclose(target_scale.invert(stored).numpy(), PRICES, rtol=2e-4)
    np.testing.assert_allclose(target_scale.invert(stored.double()).numpy(), fitted.invert(stored.numpy()), rtol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_undoes_what_inverting_does(scale: str) -> None:
    fitted = fit_value(scale)
    found = TargetScale.from_scale(fitted.scale)
    assert found is not None
    np.testing.assert_allclose(found.apply(torch.tensor(PRICES)).numpy(), fitted.scale.apply(PRICES), atol=1e-9)


@pytest.mark.parametrize("scale", [*SCALES, "none"])
def test_saved_and_read_back(scale: str) -> None:
    found = TargetScale.from_scale(fit_value(scale).scale)
    assert (found is None) == (scale == "none")
    if found is not None:
        assert TargetScale.from_json(json.loads(json.dumps(found.to_json()))) == found
        assert hash(found) == hash(TargetScale.from_json(found.to_json()))


@pytest.mark.parametrize("saved", [3, [1], [1, 0], [1, "a"], {"kind": "log"}, {"kind": "linear", "shift": 1}])
def test_a_damaged_scale_is_an_error(saved: Any) -> None:
    with pytest.raises(DataError, match="saved preparation"):
        TargetScale.from_json(saved)


def test_a_value_too_far_for_quantiles_is_listed() -> None:
    far = text_column("1e30", "3")
    assert list(fit_value("quantile").apply(far).problems) == [0]
    assert not fit_value("log").apply(far).problems


def test_the_scale_of_an_image_is_that_of_its_channels() -> None:
    images = GENERATOR.normal([[[[5.0]], [[-3.0]]]], 2, (20, 2, 3, 4))
    kind = read_kind("numbers", TARGET_KINDS, "")
    fitted = kind.fit(images, np.arange(10), name="image")
    scale = TargetScale.from_scale(fitted.scale)  # type: ignore[attr-defined]
    assert scale is not None and len(scale.shift) == 2
    stored = torch.from_numpy(fitted.apply(images).values)
    assert abs(float(stored[:10].mean())) < 1e-5
    np.testing.assert_allclose(scale.invert(stored).numpy(), images, rtol=1e-4, atol=1e-5)
    assert TargetScale.from_json(json.loads(json.dumps(scale.to_json()))) == scale


# ---- results of a run ------------------------------------------------------------------------------------------------


def write_houses(path: Path) -> str:
    frame = pd.DataFrame({"rooms": np.log(PRICES) + GENERATOR.normal(0, 0.3, 200), "age": GENERATOR.normal(0, 1, 200)})
    frame["price"], frame["a"], frame["b"] = PRICES, 1000 + 50 * frame["rooms"], frame["age"] / 10
    frame.to_csv(path, index=False)
    return str(path)


def open_houses(tmp_path: Path, target: Any, **settings: Any) -> Dataset:
    path = write_houses(tmp_path / "houses.csv")
    return open_data(SOURCES["table"](**{"path": path, "target": target, "only": ["rooms", "age"], **settings}))


@pytest.mark.parametrize(
    "target",
    [*({"price": {"value": {"scale": scale}}} for scale in SCALES), {"both": {"numbers": {"like": "[ab]"}}}],
    ids=str,
)
def test_metrics_are_in_the_unit_of_the_target(target: Any, tmp_path: Path) -> None:
    data = open_houses(tmp_path, target)
    run = prepare_spec({"layers": [{"Linear": data.target.num_outputs}]}, data).prepare()
    split = data.test
    output = run.network.module(split.tensors["features"])
    ((predicted, truth, *_),) = run.criterion.make_metric_pairs(output, (split.target,))
    frame = pd.read_csv(tmp_path / "houses.csv")
    own = frame[["a", "b"]] if "both" in target else frame[["price"]]
    rows = np.abs(truth.reshape(len(split), -1).numpy()[:, None] - own.to_numpy()[None]).max(2).argmin(1)
    assert len(set(rows.tolist())) == len(split)
    np.testing.assert_allclose(truth.reshape(len(split), -1).numpy(), own.to_numpy()[rows], rtol=2e-4)
    saved = next(iter(data.preprocessing["targets"].values()))
    shape = (len(split), *data.target.shape)
    expected = fitted_from_json(saved).invert(output.detach().numpy().reshape(shape))
    np.testing.assert_allclose(predicted.detach().numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("target", [{"price": {"value": {"scale": "log"}}}, {"both": {"numbers": {"like": "[ab]"}}}])
def test_a_run_saves_the_scale_with_its_data(target: Any, tmp_path: Path) -> None:
    data = open_houses(tmp_path, target)
    saved = json.loads(json.dumps(make_saved_preparation(data)))
    again = read_saved_dataset(saved)
    assert again is not None and again.target == data.target and again.target.scale is not None
    saved["dataset"]["targets"][0]["scale"] = {"kind": "linear", "shift": [1.0, 2.0, 3.0], "divisor": [1.0, 2.0, 3.0]}
    with pytest.raises(DataError, match="saved preparation"):
        read_saved_dataset(saved)
