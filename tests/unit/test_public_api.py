"""`dlspec.build` and `dlspec.train`: what they take, what they give, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import dlspec as library

QUIET = {"trainer": {"max_steps": 2, "progress": "none"}}
X = np.random.default_rng(0).random((40, 4), dtype=np.float32)
Y = np.arange(40) % 3

DATA = [
    {"x": X, "target": Y},
    {"x": torch.tensor(X), "target": torch.tensor(Y)},
    {"x": X.tolist(), "target": Y.tolist()},
    "digits",
    {"type": "digits", "limit": 50},
    {"shape": [3, 8, 8], "num_classes": 4},
    None,
]


@pytest.mark.parametrize("data", DATA, ids=["numpy", "torch", "lists", "name", "settings", "facts", "default"])
def test_trains_on(work: Path, data: object) -> None:
    result = library.train({"model": "mlp", **QUIET}, data)
    assert {"train/loss", "val/loss", "test/loss", "test/accuracy"} <= set(result.results)
    assert len(result.history) >= result.best_epoch >= 1
    assert result.folder is None
    assert not any(work.iterdir())


def test_a_folder_is_made_where_one_is_named(work: Path) -> None:
    folders = [library.train({"model": "mlp", **QUIET}, "digits", folder="runs").folder for _ in range(2)]
    assert [str(each) for each in folders] == ["runs/run", "runs/run_2"]
    assert (work / "runs/run/metrics.jsonl").read_bytes() == (work / "runs/run_2/metrics.jsonl").read_bytes()
    again = library.train({"run": "runs/run"})
    assert again.spec["trainer"]["max_steps"] == 2


def test_arrays_are_not_saved_as_the_default_data(work: Path) -> None:
    result = library.train({"model": "mlp", **QUIET}, DATA[0], folder="runs")
    assert result.spec["data"] == {"type": "arrays", "validation": 0.1, "test": 0.2, "split_seed": 0}
    with pytest.raises(library.SpecError, match="data of this run were arrays given in Python"):
        library.train({"run": "runs/run"})
    again = library.train({"run": "runs/run"}, DATA[0])
    assert again.results == result.results
    assert repr(result).endswith(f"best epoch {result.best_epoch}, folder runs/run)")
    assert "loss" in repr(result) and len(repr(result)) < 300
    assert library.build(result.spec, DATA[0])[1].in_features == 4


@pytest.mark.parametrize("spec", [{"data": {"validation": 0.3, "test": 0.3, "split_seed": 5}},
                                  ["data.validation=0.3", "data.test=0.3", "data.split_seed=5"]])  # fmt: skip
def test_the_specs_data_splits_arrays(work: Path, spec: object) -> None:
    from dlspec.jobs import python_spec as face

    prepared = face.prepare_spec(spec, DATA[0]).data
    wanted = face.dataset_from_arrays(DATA[0], validation=0.3, test=0.3, split_seed=5)
    assert prepared is not None
    assert len(prepared.validation) == len(wanted.validation) == 12
    assert torch.equal(prepared.train.tensors["x"], wanted.train.tensors["x"])


def test_the_specs_data_change_a_named_set(work: Path) -> None:
    spec = library.train({"model": "mlp", "data": {"validation": 0.3}, **QUIET}, "digits").spec
    assert (spec["data"]["type"], spec["data"]["validation"]) == ("digits", 0.3)


@pytest.mark.parametrize("changes", [{"trainer": {"epochs": 3}}, ["trainer.epochs=3"]], ids=["mapping", "list"])
@pytest.mark.parametrize("data", [DATA[0], "digits"], ids=["arrays", "name"])
def test_resumes(work: Path, changes: object, data: object) -> None:
    spec = {"model": "mlp", "data": {"validation": 0.25, "test": 0.25}}
    straight, short = (
        library.train({**spec, "trainer": {"epochs": epochs, "limit_batches": 2}}, data, folder="runs")
        for epochs in (3, 1)
    )
    before = torch.get_rng_state()
    again = library.resume(short.folder, data if data is DATA[0] else None, changes=changes)
    assert torch.equal(before, torch.get_rng_state())
    assert (again.folder, again.results, again.history) == (short.folder, straight.results, straight.history)
    for name, weights in straight.network.state_dict().items():
        assert torch.equal(weights, again.network.state_dict()[name])
    once_more = library.resume(short.folder, data if data is DATA[0] else None)
    assert once_more.results == again.results


def test_resume_refuses(work: Path) -> None:
    folder = library.train({"model": "mlp", **QUIET}, DATA[0], folder="runs").folder
    refused = [
        (("nowhere",), {}, "no run in 'nowhere'"),
        ((folder,), {}, "pass them again: train(SPEC, data=...), resume(FOLDER, data=...); or"),
        ((folder, {"x": X[:30], "target": Y[:30]}), {}, "data (train)   was 28 in the run, is now 21"),
        (
            (folder, DATA[0]),
            {"changes": {"seed": 3}},
            "only affects the start of a run, so it can't change when the run is resumed",
        ),
    ]
    for words, more, message in refused:
        with pytest.raises(library.UserError) as caught:
            library.resume(*words, **more)
        assert message in str(caught.value)
    changes = ["optimizer.lr=0.01", "trainer.epochs=5"]
    assert library.resume(folder, DATA[0], changes=changes, allow=["optimizer.lr"]).spec["optimizer"]["lr"] == 0.01


SPECS = [
    ({"layers": ["Flatten", {"Linear": 5}]}, 5),
    ({"layers": ["Flatten", {"Linear": "$w"}], "params": {"w": 6}, "seed": 3}, 6),
    ({"model": {"layers": ["Flatten", {"Linear": "${data.num_outputs}"}]}}, 10),
    (["model=mlp", "model.params.width=7"], 10),
    ({"model": "mlp", "optimizer": {"lr": np.float32(0.5)}, "loss": {"CrossEntropyLoss": {}}}, 10),
    ({"experiment": "article_mnist"}, 10),
]


@pytest.mark.parametrize(("spec", "outputs"), SPECS)
def test_builds(work: Path, spec: object, outputs: int) -> None:
    network = library.build(spec, "digits")
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, outputs)


def test_facts_of_a_number(work: Path) -> None:
    network = library.build(
        {"layers": ["Flatten", {"Linear": "${data.num_outputs}"}]}, {"shape": [3], "num_classes": None}
    )
    assert network(torch.zeros(2, 3)).shape == (2, 1)


def test_equal_seeds_equal_weights(work: Path) -> None:
    one, other, third = (library.build({"model": "linear", "seed": seed}, "digits") for seed in (1, 1, 2))
    assert torch.equal(one[1].weight, other[1].weight)
    assert not torch.equal(one[1].weight, third[1].weight)


WRONG = [
    ({"model": "cnnn"}, "digits", "unknown model 'cnnn'   did you mean 'cnn'?"),
    ({"modle": "cnn"}, "digits", "modle   no such key   did you mean 'model'?"),
    ({"layers": ["Flaten"]}, "digits", "model.layers.0   unknown layer 'Flaten'   did you mean 'Flatten'?"),
    (["model=mlp,cnn"], "digits", "command line   model   multiple values"),
    ("cnn", "digits", "a spec must be a mapping, {'model': 'cnn'}, or a list of overrides, ['model=cnn'], got 'cnn'"),
    (None, "digits", "['model=cnn'], got None"),
    ({"model": "mlp"}, "digit", "unknown data set 'digit'   did you mean 'digits'?"),
    ({"model": "mlp"}, 3, "can't use 3 as data: pass arrays by name"),
    ({"model": "mlp"}, {"shpe": [3]}, "data.shpe   unknown key   did you mean 'shape'?"),
    ({"model": "mlp"}, (X, Y, Y), "can't use a tuple as data: pass arrays by name"),
    ({"data": {"validaton": 0.3}}, DATA[0], "data.validaton   not a setting of arrays   did you mean 'validation'?"),
    (
        ["data.limit=3"],
        DATA[0],
        "data.limit   not a setting of arrays   available: augment, labels, split_seed, target, test, validation",
    ),
    ({"data": {"validation": "a"}}, DATA[0], "validation must be a number >= 0 and < 1, got 'a'"),
    ({"data": {"split_seed": -1}}, DATA[0], "split_seed must be a whole number >= 0, got -1"),
    ({"model": "cnn"}, {"shape": [3, 32, 32]}, "data.num_classes   missing   add the number of classes"),
    ({"model": "mlp"}, {"x": X}, "no target 'target' among the arrays; available: x"),
    ({"model": "mlp", "optimizer": {"lr": ...}}, "digits", "a spec can't contain Ellipsis: use numbers, strings"),
]


@pytest.mark.parametrize(("spec", "data", "message"), WRONG)
def test_refuses(work: Path, spec: object, data: object, message: str) -> None:
    with pytest.raises(library.UserError) as caught:
        library.build(spec, data)
    assert message in str(caught.value)


def test_a_training_that_fails(work: Path) -> None:
    spec = {"model": "mlp", "optimizer": {"type": "SGD", "lr": 1e30}, "trainer": {"epochs": 1, "progress": "none"}}
    with pytest.raises(library.TrainingFailed, match="train/loss became nan"):
        library.train(spec, "digits")


def test_hydras_global_state_is_left_alone(work: Path, write) -> None:
    from hydra import compose, initialize_config_dir

    write("own/config.yaml", "answer: 42\n")
    with initialize_config_dir(str(work / "own"), version_base="1.3"):
        library.build({"model": "mlp"}, "digits")
        assert compose("config").answer == 42
    assert not GlobalHydra.instance().is_initialized()


def test_the_public_names_are_there() -> None:
    assert all(getattr(library, name) for name in library.__all__)
    assert dir(library) == sorted(library.__all__)
    with pytest.raises(AttributeError, match="module 'dlspec' has no attribute 'nothing'"):
        library.nothing  # noqa: B018
