"""Equal runs, and a process that is afterwards as it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlspec as library
from dlspec.errors import TrainingFailed
from dlspec.training.callbacks.callback import Callback
from dlspec.training.runtime.determinism import WORKSPACE_VARIABLE, deterministic_algorithms
from dlspec.training.runtime.randomness import preserve_generators, seed_generators
from dlspec.training.state import TrainingState
from helpers.toy_training import make_network, make_trainer

SPEC = {"layers": ["Flatten", "Noisy", {"Dropout": 0.2}, {"Linear": "${data.num_classes}"}], "data": {"limit": 60}}


class Noisy(nn.Module):
    """Draws from all three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = np.random.rand()

    def forward(self, input: Tensor) -> Tensor:
        noise = random.random() + np.random.rand()
        return input * self.scale + noise if self.training else input


class Unpool(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        places = torch.arange(input.shape[1]).expand(len(input), 1, -1) * 2
        return nn.functional.max_unpool1d(input[:, None], places, 2)[:, 0]


class UnpoolInTraining(Unpool):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.training else torch.cat([input, input], 1)


def drawn() -> tuple[float, float, float]:
    """What each generator would give next; they are left as they were."""
    with preserve_generators():
        return random.random(), np.random.rand(), torch.rand(()).item()


def switches() -> tuple[Any, ...]:
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return (
        torch.are_deterministic_algorithms_enabled(),
        warns,
        torch.backends.cudnn.benchmark,
        os.environ.get(WORKSPACE_VARIABLE),
    )


@pytest.fixture
def others_switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, ...]]:
    """A process whose owner has chosen something else than the default."""
    monkeypatch.delenv(WORKSPACE_VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    yield switches()


@pytest.mark.parametrize("settings", [{}, {"deterministic": True}], ids=["plain", "deterministic"])
def test_equal_runs_have_equal_files(
    settings: dict[str, Any], tmp_path: Path, others_switches: tuple[Any, ...]
) -> None:
    library.layer(Noisy)
    spec = {**SPEC, "seed": 2**40 + 3, "trainer": {"epochs": 2, "progress": "none", **settings}}
    folders: list[Path] = []
    for name in ("one", "other"):
        before = drawn()
        folder = library.train(spec, "digits", folder=tmp_path / name).folder
        assert folder is not None
        folders.append(folder)
        assert (drawn(), switches()) == (before, others_switches)
        random.random(), np.random.rand(), torch.rand(())
    for name in ("metrics.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name


def test_training_begins_with_the_seed() -> None:
    def losses(seed: int) -> list[float]:
        random.random(), np.random.rand(), torch.rand(())
        training = make_trainer(nn.Sequential(noisy, nn.Dropout(), make_network()), seed=seed)
        training.fit()
        return [row["train/loss"] for row in training.state.history]

    noisy = Noisy()
    assert losses(5) == losses(5) != losses(6)


def test_build_leaves_the_generators() -> None:
    library.layer(Noisy)
    before = drawn()
    one, other = (library.build(SPEC, "digits") for _ in range(2))
    assert one[1].scale == other[1].scale  # type: ignore[index]
    assert drawn() == before


def test_generators_are_kept_where_something_fails() -> None:
    before = drawn()
    with pytest.raises(ZeroDivisionError), preserve_generators():
        seed_generators(1)
        assert drawn() != before
        _ = 1 / 0
    assert drawn() == before


def test_the_switches_are_on_within_a_run_alone(others_switches: tuple[Any, ...]) -> None:
    seen = set()

    class Watch(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            seen.add((state.phase, switches()))

    make_trainer(settings={"deterministic": True}, callbacks=[Watch()]).run()
    assert seen == {(phase, (True, False, False, ":4096:8")) for phase in ("train", "val", "test")}
    assert switches() == others_switches


def test_a_workspace_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE_VARIABLE, ":16:8")
    with deterministic_algorithms(True):
        assert os.environ[WORKSPACE_VARIABLE] == ":16:8"
    assert os.environ[WORKSPACE_VARIABLE] == ":16:8"


def test_an_operation_without_a_deterministic_way_is_named(others_switches: tuple[Any, ...]) -> None:
    net = nn.Sequential(UnpoolInTraining(), nn.Linear(8, 3))
    training = make_trainer(net, settings={"deterministic": True})
    with pytest.raises(TrainingFailed) as failure:
        training.run()
    assert str(failure.value) == (
        "max_unpooling2d_forward_out has no deterministic algorithm on this device; "
        "use another layer, another device, or trainer.deterministic=false"
    )
    assert (training.state.status, training.state.error) == ("failed", str(failure.value))
    assert switches() == others_switches


def test_a_layer_without_a_deterministic_way_is_refused_before_the_run(dlspec: Any) -> None:
    library.layer(Unpool)
    overrides = ["data=digits", "model={layers:[Flatten,Unpool,{Linear:10}]}", "trainer.deterministic=true"]
    said = dlspec("summary", *overrides)
    assert said.code == 2
    assert said.err.splitlines()[0] == (
        "command line   model.layers.1 (Unpool)   Unpool has no deterministic algorithm for "
        "max_unpooling2d_forward_out   use another layer, or set trainer.deterministic=false"
    )
    assert dlspec("summary", *overrides[:2]).code == 0
