"""Stacks whose steps are compiled: each member equals its own run, also when others leave."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from dlspec.errors import TrainingFailed
from dlspec.network.random_state import preserve_random_state
from dlspec.training.step import block_function
from dlspec.training.trainer import Trainer
from helpers.stacked_runs import Spec, get_weights, train_alone, train_stacked

MAX_DIFFERENCE = 1e-9
LAYERS = ["Flatten", {"Linear": 16}, "BatchNorm1d", "ReLU", {"Linear": 10}]
DROPOUT = ["Flatten", {"Linear": 16}, {"Dropout": 0.2}, "ReLU", {"Linear": 12}, {"Dropout": 0.5}, {"Linear": 10}]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
compiled = [
    pytest.param(False, id="uncompiled"),
    pytest.param(True, id="compiled", marks=[pytest.mark.soak, needs_compiler, pytest.mark.filterwarnings("ignore")]),
]


@pytest.fixture
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of calls of each function that was to be compiled. It is, if the fixture's parameter says so."""
    counts: list[int] = []
    compile_function = block_function.compile_tensor_function

    def observe(function: Any, arguments: Any, options: Any, cache: Any) -> Any:
        if request.param:
            function = compile_function(function, arguments, options, cache)
        else:
            with preserve_random_state(), torch.no_grad():  # as the compiler traces it
                function = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)
        number = len(counts)
        counts.append(0)

        def call(*tensors: Any) -> Any:
            counts[number] += 1
            return function(*tensors)

        return call

    monkeypatch.setattr(block_function, "compile_tensor_function", observe)
    return counts


def make_spec(seed: int, **changes: Any) -> Spec:
    trainer = {"epochs": 3, "batch_size": 32, "precision": 64, "patience": None, **changes.pop("trainer", {})}
    data = {"type": "digits", "limit": 200}
    optimizer = {"Adam": {"lr": 0.01 / (1 + seed), "weight_decay": 0.01 * seed}}
    return {
        "model": {"layers": LAYERS}, "data": data, "optimizer": optimizer, "seed": seed, **changes, "trainer": trainer,
    }  # fmt: skip


def train_compiled(specs: Sequence[Spec]) -> list[Trainer | BaseException]:
    return train_stacked([{**each, "trainer": {**each["trainer"], "compile": "step"}} for each in specs])


def assert_close_runs(stacked: Trainer | BaseException, alone: Trainer) -> None:
    assert isinstance(stacked, Trainer), stacked
    weights = get_weights(stacked)
    for name, each in get_weights(alone).items():
        assert float((weights[name].double() - each.double()).abs().max()) <= MAX_DIFFERENCE
    assert stacked.state.step == alone.state.step
    for mine, own in zip(stacked.state.history, alone.state.history, strict=True):
        assert mine == pytest.approx(own, abs=1e-9)


CASES: Mapping[str, Mapping[str, Any]] = {
    "Adam": {},
    "SGD": {"optimizer": {"SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}},
    "clipped and averaged": {"trainer": {"clip_grad_norm": 0.1, "average": {"EMA": {"decay": 0.9}}}},
    "schedule": {"scheduler": {"CosineAnnealingLR": {"T_max": 10}, "interval": "step", "warmup": 3}},
    "label smoothing": {"loss": {"CrossEntropyLoss": {"label_smoothing": 0.1}}},
    "weighted loss": {
        "loss": {"CrossEntropyLoss": {"weight": [1.0, 2.0, 3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 0.5]}},
    },
    "dropout": {"model": {"layers": DROPOUT}},
    "stopped": {"trainer": {"max_steps": 8}},
}  # fmt: skip


QUICK = ("clipped and averaged", "schedule", "dropout")


@pytest.mark.parametrize("calls", compiled, indirect=True)
@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.soak) for each in CASES]
)
def test_members_equal_their_own_runs(case: str, calls: list[int], caplog: pytest.LogCaptureFixture) -> None:
    specs = [make_spec(seed, **CASES[case]) for seed in range(3)]
    with caplog.at_level("INFO", logger="dlspec"):
        results = train_compiled(specs)
    assert "steps_per_call" not in caplog.text  # that of a run by itself: the stack makes the steps
    for stacked, spec in zip(results, specs, strict=True):
        assert_close_runs(stacked, train_alone(spec))
    assert len(calls) == 1 and calls[0] > 5  # one function for all members, all but the first step of a whole batch


@pytest.mark.parametrize("calls", compiled, indirect=True)
def test_members_that_leave_change_nothing_for_the_others(calls: list[int]) -> None:
    specs = [
        make_spec(0, trainer={"epochs": 1}),
        make_spec(1),
        make_spec(2, trainer={"max_steps": 9}),
        make_spec(3, optimizer={"Adam": {"lr": 1e300}}),
        make_spec(4),
    ]
    specs = [{**each, "model": {"layers": DROPOUT}} for each in specs]
    results = train_compiled(specs)
    assert isinstance(results[3], TrainingFailed)
    for index in (0, 1, 2, 4):
        assert_close_runs(results[index], train_alone(specs[index]))
    assert len(calls) >= 1
