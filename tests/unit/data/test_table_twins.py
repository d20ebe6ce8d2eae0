"""Tables of scikit-learn's data sets, written to CSV, are the same as the built-in sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets

from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES, open_data
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import prepare_spec
from helpers.paths import SHARED

TRAINER = {"epochs": 2, "checkpoints": False, "progress": "none", "device": "cpu"}


def write_csv(path: Path, columns: dict[str, Any]) -> None:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(f'"{name}"' for name in columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_breast_cancer(path: Path) -> dict[str, Any]:
    found = datasets.load_breast_cancer()
    columns = {name: found.data[:, index].tolist() for index, name in enumerate(found.feature_names)}
    write_csv(path, columns | {"diagnosis": [found.target_names[each] for each in found.target]})
    return {"target": "diagnosis"}


def write_diabetes(path: Path) -> dict[str, Any]:
    found = datasets.load_diabetes(scaled=False)
    columns = {name: found.data[:, index].tolist() for index, name in enumerate(found.feature_names)}
    write_csv(path, columns | {"progression": found.target.tolist()})
    # The sex is written as 1 and 2, two values.
    return {"target": "progression", "columns": {"sex": "number"}}


def write_digits(path: Path) -> dict[str, Any]:
    found = datasets.load_digits()
    columns = {f"pixel_{index}": found.data[:, index].astype(int).tolist() for index in range(64)}
    write_csv(path, columns | {"digit": found.target.tolist()})
    return {"target": "digit", "columns": {"image": {"numbers": {"like": "pixel_*", "shape": [1, 8, 8], "divide": 16}}}}


TWINS: dict[str, tuple[Any, list[Any]]] = {
    "breast_cancer": (write_breast_cancer, [{"Linear": 16}, "ReLU", {"Linear": 1}]),
    "diabetes": (write_diabetes, [{"Linear": 16}, "ReLU", {"Linear": 1}]),
    "digits": (write_digits, [{"Conv2d": {"out_channels": 4, "kernel_size": 3}}, "ReLU", "Flatten", {"Linear": 10}]),
}


@pytest.fixture(scope="module", params=TWINS)
def twins(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Dataset, dict[str, Any]]:
    """The name, the built-in data, and the settings of the table."""
    path = tmp_path_factory.mktemp("twins") / f"{request.param}.csv"
    settings = TWINS[request.param][0](path)
    return (
        request.param,
        open_data(SOURCES[request.param](split_seed=3)),
        {"path": str(path), "split_seed": 3, **settings},
    )


def test_a_table_is_the_same_as_its_built_in_twin(twins: tuple[str, Dataset, dict[str, Any]]) -> None:
    _, built_in, settings = twins
    table = open_data(SOURCES["table"](**settings))
    (field,), (expected,) = table.fields, built_in.fields
    assert (field.name, field.shape, field.layout) == (expected.name, expected.shape, expected.layout)
    assert (table.target.name, table.target.kind) == (built_in.target.name, built_in.target.kind)
    assert table.target.classes == built_in.target.classes
    assert (table.target.scale is None) == (built_in.target.scale is None)
    if table.target.scale is not None and built_in.target.scale is not None:
        assert table.target.scale.mean_and_deviation == pytest.approx(built_in.target.scale.mean_and_deviation)
    for split in ("train", "validation", "test"):
        found, other = getattr(table, split), getattr(built_in, split)
        torch.testing.assert_close(found.tensors[field.name], other.tensors[field.name], rtol=0, atol=1e-6)
        torch.testing.assert_close(found.target, other.target, rtol=0, atol=1e-6)


def test_a_table_gives_the_metrics_of_its_built_in_twin(twins: tuple[str, Dataset, dict[str, Any]]) -> None:
    name, _, settings = twins
    spec = {"model": {"layers": TWINS[name][1]}, "seed": 1, "trainer": TRAINER}
    found = []
    for data in ({"type": name, "split_seed": 3}, {"type": "table", **settings}):
        result = make_job(prepare_spec({**spec, "data": data}, None), shows_progress=False).run()
        found.append({**result.best, **result.test})
    assert found[0].keys() == found[1].keys() and "test/loss" in found[0]
    results = [key for key in found[0] if "/" in key]
    np.testing.assert_allclose([found[1][key] for key in results], [found[0][key] for key in results], rtol=1e-5)


SPAM = SHARED / "data" / "text" / "sms_spam.csv"


@pytest.mark.skipif(not SPAM.is_file(), reason="the SMS Spam Collection is not here")
def test_a_table_of_texts_has_the_vocabulary_of_its_training_rows() -> None:
    data = open_data(SOURCES["table"](path=str(SPAM), target="label", limit=300))
    (field,) = data.fields
    assert data.target.classes == ("ham", "spam") and [each.name for each in data.fields] == ["text"]
    assert field.has_lengths and int(data.train.tensors["text"].max()) < (field.vocab_size or 0)
    training, test = ({tuple(row) for row in split.tensors["text"].tolist()} for split in (data.train, data.test))
    assert len(training) > 200 and len(training & test) < 5  # equal messages are in one split


@pytest.mark.soak
@pytest.mark.skipif(not SPAM.is_file(), reason="the SMS Spam Collection is not here")
def test_spam_in_a_table_is_found() -> None:
    trainer = {**TRAINER, "epochs": 6}
    data = {"type": "table", "path": str(SPAM), "target": "label"}
    result = make_job(prepare_spec({"model": "text_cnn", "data": data, "trainer": trainer}, None)).run()
    assert result.best["val/accuracy"] >= 0.98
