"""Several steps in one call compute what single steps do: weights, averages, scores, schedules, checkpoints."""

from __future__ import annotations

import logging
import random
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import EMA
from dlspec.network.random_state import preserve_random_state
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.runtime.interruption import Interrupted
from dlspec.training.state import TrainingState
from dlspec.training.step import block_function
from dlspec.training.step.block_step import choose_steps_per_call
from dlspec.training.trainer import Trainer
from helpers.toy_training import CrossEntropy, make_dataset, make_trainer

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
compiled = [
    pytest.param(False, id="uncompiled"),
    pytest.param(True, id="compiled", marks=[pytest.mark.soak, needs_compiler, pytest.mark.filterwarnings("ignore")]),
]


@pytest.fixture
def block_functions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The functions that were to be compiled. They are compiled if the fixture's parameter says so."""
    found: list[Any] = []
    compile_function = block_function.compile_tensor_function

    def observe(function: Any, arguments: Any, options: Any, cache: Any) -> Any:
        found.append(function.__self__._block)
        if request.param:
            return compile_function(function, arguments, options, cache)
        with preserve_random_state():
            function(*(each.clone() for each in arguments))  # as the compiler traces it
        return function

    monkeypatch.setattr(block_function, "compile_tensor_function", observe)
    return found


class SmoothCrossEntropy(CrossEntropy):
    def forward(self, output: torch.Tensor, targets: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(output, targets[0], label_smoothing=0.1)


def make_normalized_network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout))
    return nn.Sequential(*hidden, nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def sgd(parameters: Any) -> Optimizer:
    return make_optimizer(torch.optim.SGD, parameters, {"lr": 0.1, "momentum": 0.9, "nesterov": True})


def adam(parameters: Any) -> Optimizer:
    return make_optimizer(torch.optim.Adam, parameters, {"lr": 0.01, "weight_decay": 0.01})


def adamw(parameters: Any) -> Optimizer:
    groups = list(parameters)
    return make_optimizer(
        torch.optim.AdamW,
        [{"params": groups[:2], "lr": 0.02, "weight_decay": 0.1}, {"params": groups[2:]}],
        {"lr": 0.01},
    )


def step_lr(optimizer: Optimizer) -> Schedule:
    return Schedule(StepLR(optimizer, 2, 0.9), "step")


def one_cycle(optimizer: Optimizer) -> Schedule:
    return Schedule(OneCycleLR(optimizer, 0.1, total_steps=100), "step")  # also moves the momentum


def make_run(
    make_rule: Callable[[Any], Optimizer],
    make_schedule: Callable[[Optimizer], Schedule] | None,
    *,
    dropout: float = 0.0,
    unfreeze_epoch: int = 1,
    **settings: Any,
) -> Trainer:
    network = make_normalized_network(dropout)
    freezing = FrozenParameters({network[0].weight: unfreeze_epoch, network[0].bias: unfreeze_epoch})
    optimizer = make_rule(list(network.parameters()))
    schedule = make_schedule(optimizer) if make_schedule else None
    settings = {"epochs": 3, "precision": 64, "batch_size": 8, **settings}
    return make_trainer(
        network, make_dataset(train=110), settings=settings, optimizer=optimizer, schedule=schedule,
        criterion=SmoothCrossEntropy(), freezing=freezing,
    )  # fmt: skip


def assert_equal_runs(trainer: Trainer, other: Trainer) -> None:
    """All tensors that a checkpoint has, results and the position agree."""
    for name, value in other.state.network.state_dict().items():
        torch.testing.assert_close(trainer.state.network.state_dict()[name], value, rtol=0, atol=1e-9)
    assert trainer.state.step == other.state.step
    assert [group["lr"] for group in trainer.state.optimizer.param_groups] == pytest.approx(
        [group["lr"] for group in other.state.optimizer.param_groups]
    )
    for mine, theirs in zip(trainer.state.history, other.state.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "SGD with a moving momentum": (sgd, one_cycle, {}),
    "Adam, clipped, averaged": (adam, step_lr, {"clip_grad_norm": 0.5, "average": EMA(decay=0.9)}),
    "AdamW in groups, clipped by value, two batches a step": (
        adamw, step_lr, {"accumulate": 2, "clip_grad_value": 0.01, "steps_per_call": 3},
    ),
    "unfrozen later": (adam, None, {"unfreeze_epoch": 2}),
    "stopped within a block": (adam, None, {"max_steps": 21}),
}  # fmt: skip


@pytest.mark.parametrize("block_functions", compiled, indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_blocks_equal_single_steps(case: str, block_functions: list[Any]) -> None:
    make_rule, make_schedule, settings = CASES[case]
    blocks = make_run(make_rule, make_schedule, compile="step", **{"steps_per_call": 4, **settings})
    blocks.fit()
    single = make_run(make_rule, make_schedule, **{**settings, "steps_per_call": "auto"})
    single.fit()
    assert_equal_runs(blocks, single)
    assert len(block_functions) == (2 if "unfreeze_epoch" in settings else 1)


class TwoTerms(CrossEntropy):
    """Terms with factors, as dlspec's own criterion adds them."""

    term_names = ("cross_entropy", "size")
    factors = (0.5, 2.0)

    def forward(self, output: torch.Tensor, targets: Any) -> torch.Tensor:
        values = [super().forward(output, targets), output.square().mean()]
        total = torch.stack([factor * value for factor, value in zip(self.factors, values, strict=True)]).sum()
        return torch.stack([total, *(each.detach() for each in values)])


@pytest.mark.parametrize("block_functions", compiled, indirect=True)
def test_factors_of_loss_terms_are_arguments(block_functions: list[Any]) -> None:
    """The same function computes with other factors: a sweep over them compiles once."""
    trainers = []
    for mode in ("step", "none"):
        criterion = TwoTerms()
        settings = {"compile": mode, "precision": 64, "epochs": 1, "batch_size": 8}
        trainer = make_trainer(make_normalized_network(), settings=settings, criterion=criterion)
        trainer.fit()
        trainer.state.epochs, criterion.factors = 2, (3.0, 0.1)
        trainer.fit()
        trainers.append(trainer)
    assert_equal_runs(*trainers)
    assert len(block_functions) == 1


class StopAfterCalls(Callback):
    """Interrupts a run after a number of calls of its step, and keeps the snapshot that is taken then."""

    accepts_several_steps = True

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.trainer: Trainer | None = None
        self.snapshot: Snapshot | None = None

    def on_step_end(self, state: TrainingState) -> None:
        self.left -= 1
        if not self.left and self.trainer is not None:
            self.trainer.interruption.request(signal.SIGTERM)

    def on_interrupt(self, state: TrainingState) -> None:
        snapshot = state.snapshot()
        assert snapshot is not None
        self.snapshot = snapshot.copy_tensors()


def interrupt(trainer: Trainer, calls: int) -> Snapshot:
    stop = StopAfterCalls(calls)
    stop.trainer = trainer
    trainer.set_callbacks([stop])
    with pytest.raises(Interrupted):
        trainer.fit()
    assert stop.snapshot is not None
    return stop.snapshot


def assert_resumes_exactly(calls: int) -> None:
    settings = {"compile": "step", "steps_per_call": 4, "dropout": 0.5, "average": EMA(decay=0.9), "precision": 32}
    straight = make_run(adam, step_lr, **settings)
    straight.fit()
    snapshot = interrupt(make_run(adam, step_lr, **settings), calls)
    resumed = make_run(adam, step_lr, **settings)
    resumed.restore(snapshot)
    torch.manual_seed(calls)  # the generators' state comes from the snapshot
    resumed.restore(snapshot)
    resumed.fit()
    for name, value in straight.state.network.state_dict().items():
        assert torch.equal(resumed.state.network.state_dict()[name], value)
    assert resumed.state.history == straight.state.history


@pytest.mark.parametrize("block_functions", [False], indirect=True)
@pytest.mark.parametrize("calls", [1, 4, 9])
def test_an_interrupted_run_resumes_exactly(calls: int, block_functions: list[Any]) -> None:
    """With dropout: the generators are at the same state at each boundary of a call."""
    assert_resumes_exactly(calls)


@pytest.mark.soak
@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block_functions", [True], indirect=True)
@pytest.mark.parametrize("calls", [1, 3, 9])
def test_an_interrupted_compiled_run_resumes_exactly(calls: int, block_functions: list[Any]) -> None:
    assert_resumes_exactly(calls)


@pytest.mark.parametrize("block_functions", [False], indirect=True)
def test_a_callback_of_each_step_makes_calls_of_one_step(
    block_functions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Listener(StopAfterCalls):
        accepts_several_steps = False

    caplog.set_level(logging.INFO, "dlspec")
    trainer = make_run(adam, None, compile="step", steps_per_call=4, epochs=1)
    trainer.set_callbacks([Listener(0)])
    trainer.fit()
    assert block_functions[0].size.steps == 1
    assert "a call of the compiled step makes 1 step(s), because Listener is called after each step" in caplog.text


@pytest.mark.parametrize("block_functions", [False], indirect=True)
def test_an_infinite_loss_in_a_block_is_found(block_functions: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Training goes back to a snapshot and makes single steps, which find the step."""
    trainer = make_run(sgd, lambda optimizer: Schedule(StepLR(optimizer, 6, 1e200), "step"), compile="step")
    with pytest.raises(TrainingFailed, match="epoch 1"):
        trainer.fit()
    assert "rolling back to step 0 and checking every step" in caplog.text


@pytest.mark.parametrize(
    ("updates", "accumulate", "is_short", "steps"),
    [(56, 1, True, 8), (14, 1, True, 7), (320, 1, True, 10), (56, 1, False, 1), (0, 1, True, 1), (24, 4, True, 3)],
)
def test_few_steps_of_an_epoch_remain_outside_of_calls(
    updates: int, accumulate: int, is_short: bool, steps: int
) -> None:
    assert choose_steps_per_call(updates, accumulate, is_short=is_short) == steps


class DrawsInPython(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * random.random()


class Counts(nn.Module):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return values * self.calls


@pytest.mark.parametrize("block_functions", [False], indirect=True)
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (DrawsInPython(), "it draws random numbers with Python or NumPy"),
        (Counts(), "Counts changes its own attributes"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_python_code_with_effects_is_not_compiled(
    layer: nn.Module, reason: str, block_functions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Compiled, it would repeat the number of its first call. The run equals one that is not compiled."""
    results = []
    for mode in ("step", "none"):
        network = nn.Sequential(make_normalized_network(), layer)
        vars(layer).update({"calls": 0} if isinstance(layer, Counts) else {})
        trainer = make_trainer(network, settings={"compile": mode})
        trainer.fit()
        results.append(trainer.state.history)
    assert results[0] == results[1]
    assert f"trainer.compile: the step can't be compiled and runs eagerly: {reason}" in caplog.text


def test_recurrent_layers_run_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.LSTM(2, 3), Last())
    make_trainer(network, settings={"compile": "step", "epochs": 1}).fit()
    assert "trainer.compile: steps with recurrent layers run eagerly, which is faster" in caplog.text


class Last(nn.Module):
    def forward(self, values: tuple[torch.Tensor, Any]) -> torch.Tensor:
        return values[0][:, -1]
