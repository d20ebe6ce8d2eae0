"""Runs that are trained as a stack equal those that are trained alone, to the last bit."""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from dlspec.errors import TrainingFailed
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.stacking.stack import Stack
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.stacking.training_pass import TrainingPass
from dlspec.training.state import TrainingState
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.stacking_probe import find_obstacle, measure_steps
from helpers.stacked_runs import Spec, get_weights, make_trainer, train_alone, train_stacked

LAYERS: Mapping[str, Sequence[Any]] = {
    "mlp": ["Flatten", {"Linear": 16}, "ReLU", {"Dropout": 0.2}, {"Linear": 10}],
    "batch norm": ["Flatten", {"Linear": 16}, "BatchNorm1d", "GELU", {"Linear": 10}],
    "cnn": [
        {"Conv2d": {"out_channels": 4, "kernel_size": 3}}, "BatchNorm2d", "ReLU", {"MaxPool2d": 2},
        {"Dropout2d": 0.1}, "Flatten", {"Linear": 10},
    ],
    "lstm": [
        {"Reshape": [8, 8]}, {"Permute": [0, 2, 1]}, {"Linear": 8}, {"LSTM": {"hidden_size": 6}}, {"Dropout": 0.2},
        {"Select": -1}, {"Linear": 10},
    ],
    "transformer block": [
        {"Reshape": [8, 8]}, {"Permute": [0, 2, 1]}, {"Linear": 8},
        {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 16, "dropout": 0.1}}, "Mean", {"Linear": 10},
    ],
    "residual": ["Flatten", {"Linear": 16}, {"Residual": [{"Linear": 16}, "Tanh", {"Dropout": 0.3}]}, {"Linear": 10}],
}  # fmt: skip
ADAM = {"Adam": {"lr": 0.01}}


def make_spec(layers: Sequence[Any], **changes: Any) -> Spec:
    trainer = {"epochs": 2, "batch_size": 32, "patience": None, **changes.pop("trainer", {})}
    data = {"type": "digits", "limit": 200}
    return {"model": {"layers": layers}, "data": data, "optimizer": ADAM, **changes, "trainer": trainer}


def assert_equal_runs(stacked: Trainer | BaseException, alone: Trainer) -> None:
    assert isinstance(stacked, Trainer), stacked
    weights, expected = get_weights(stacked), get_weights(alone)
    assert all(torch.equal(weights[name], each) for name, each in expected.items())
    assert stacked.state.history == alone.state.history
    assert stacked.state.test_results == alone.state.test_results
    assert stacked.state.stop_reason == alone.state.stop_reason


@pytest.mark.parametrize("name", LAYERS)
def test_networks(name: str) -> None:
    specs = [make_spec(LAYERS[name], seed=seed, optimizer={"Adam": {"lr": lr}}) for seed, lr in ((0, 0.01), (1, 0.003))]
    for stacked, spec in zip(train_stacked(specs), specs, strict=True):
        assert_equal_runs(stacked, train_alone(spec))


def test_each_member_has_its_own_settings() -> None:
    mlp = LAYERS["mlp"]
    specs = [
        make_spec(mlp, optimizer={"SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}}),
        make_spec(mlp, trainer={"clip_grad_norm": 0.1, "average": {"EMA": {"decay": 0.9}}}),
        make_spec([*mlp[:3], {"Dropout": 0.5}, mlp[4]], scheduler={"StepLR": {"step_size": 1, "gamma": 0.1}}),
        make_spec(mlp, loss={"CrossEntropyLoss": {"label_smoothing": 0.2}}, trainer={"epochs": 4, "patience": 1}),
        make_spec(mlp, optimizer={"SGD": {"lr": 5.0}}, trainer={"epochs": 6, "patience": 1}),
        make_spec(mlp, trainer={"max_steps": 6}),
    ]  # fmt: skip
    for stacked, spec in zip(train_stacked(specs), specs, strict=True):
        assert_equal_runs(stacked, train_alone(spec))


def test_adagrad_with_64_bits() -> None:
    specs = [
        make_spec(LAYERS["mlp"], optimizer={"Adagrad": {"lr": lr}}, trainer={"precision": 64}) for lr in (0.1, 0.01)
    ]
    for stacked, spec in zip(train_stacked(specs), specs, strict=True):
        assert_equal_runs(stacked, train_alone(spec))


def test_a_member_that_diverges_leaves_the_others_as_they_were() -> None:
    specs = [make_spec(LAYERS["batch norm"], seed=seed) for seed in range(3)]
    specs[1] = {**specs[1], "optimizer": {"SGD": {"lr": 1e38}}, "model": {"layers": LAYERS["batch norm"]}}
    first, failed, last = train_stacked([specs[0], {**specs[1], "optimizer": {"Adam": {"lr": 1e38}}}, specs[2]])
    assert isinstance(failed, TrainingFailed) and "loss became" in str(failed)
    assert_equal_runs(first, train_alone(specs[0]))
    assert_equal_runs(last, train_alone(specs[2]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"layers": LAYERS["residual"]}, ""),
        ({"trainer": {"compile": "step"}, "layers": LAYERS["batch norm"]}, ""),
        (
            {"trainer": {"compile": "step"}, "layers": LAYERS["cnn"]},
            "trainer.compile is step, and Conv2d has no fast form for several jobs",
        ),
        ({"trainer": {"accumulate": 2}}, "trainer.accumulate is 2"),
        ({"trainer": {"precision": "bf16"}}, "trainer.precision is bf16"),
        ({"trainer": {"on_nan": "skip"}}, "trainer.on_nan: skip checks every gradient"),
        ({"optimizer": {"LBFGS": {}}}, "LBFGS evaluates the loss itself"),
    ],
)
def test_what_keeps_a_run_out_of_a_stack(changes: Mapping[str, Any], reason: str) -> None:
    layers = changes.get("layers", LAYERS["mlp"])
    spec = make_spec(layers, **{key: each for key, each in changes.items() if key != "layers"})
    assert find_obstacle(make_trainer(spec)) == reason


class OwnAdam(torch.optim.Adam):
    pass


class OwnSchedule(torch.optim.lr_scheduler.ConstantLR):
    pass


@pytest.mark.parametrize("own", [OwnAdam, OwnSchedule])
def test_parts_of_ones_own_that_run_in_steps_keep_a_run_out_of_a_stack(own: Any) -> None:
    trainer = make_trainer(make_spec(LAYERS["mlp"]))
    optimizer = trainer.optimization.optimizer
    assert optimizer is not None
    if own is OwnAdam:
        optimizer.__class__ = OwnAdam
    else:
        scheduler = OwnSchedule(optimizer)
        intervals: tuple[tuple[Literal["epoch", "step"], bool], ...] = (("epoch", False), ("step", True))
        for interval, is_refused in intervals:
            trainer.optimization = replace(trainer.optimization, schedule=Schedule(scheduler, interval))
            assert bool(find_obstacle(trainer)) == is_refused
    assert find_obstacle(trainer).startswith(f"{own.__name__} is your own class")


@pytest.mark.parametrize("failing", ["step", "schedule"])
def test_a_member_whose_update_fails_ends_alone(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the update is not that of a fused kernel, which several members share."""
    specs = [make_spec(LAYERS["mlp"], optimizer={"Adagrad": {"lr": lr}}) for lr in (0.1, 0.2, 0.3)]
    update, finish = TrainingPass.prepare_update, TrainingPass.finish_update

    def fail() -> None:
        raise RuntimeError("of the second one")

    def is_failing(training_pass: TrainingPass) -> bool:
        return training_pass.optimizer.param_groups[0]["lr"] == 0.2 and training_pass.state.step == 3

    def prepare_update(training_pass: TrainingPass) -> Any:
        return fail if failing == "step" and is_failing(training_pass) else update(training_pass)

    def finish_update(training_pass: TrainingPass, *, is_averaged: bool) -> None:
        if failing == "schedule" and is_failing(training_pass):
            fail()
        finish(training_pass, is_averaged=is_averaged)

    monkeypatch.setattr(TrainingPass, "prepare_update", prepare_update)
    monkeypatch.setattr(TrainingPass, "finish_update", finish_update)
    one, failed, other = train_stacked(specs)
    assert isinstance(failed, RuntimeError) and "of the second one" in str(failed)
    for stacked, spec in ((one, specs[0]), (other, specs[2])):
        assert_equal_runs(stacked, train_alone(spec))


def test_the_probe_changes_nothing() -> None:
    trainer = make_trainer(make_spec(LAYERS["batch norm"]))
    weights, state = get_weights(trainer), torch.get_rng_state()
    assert measure_steps(trainer, 4).gain > 0
    assert all(torch.equal(each, weights[name]) for name, each in get_weights(trainer).items())
    assert torch.equal(torch.get_rng_state(), state)


class FailingCallback(Callback):
    """Fails in the fourth step."""

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == 4:
            raise TrainingFailed("the fourth step")


def test_a_callback_that_fails_ends_only_its_own_run() -> None:
    specs = [make_spec(LAYERS["mlp"], seed=seed) for seed in range(2)]
    failed, other = train_stacked(specs, make_callbacks=lambda index: [FailingCallback()] if index == 0 else [])
    assert isinstance(failed, TrainingFailed) and str(failed) == "the fourth step"
    assert_equal_runs(other, train_alone(specs[1]))


class SnapshotCallback(Callback):
    """Takes a snapshot in the middle of the second epoch."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase == "train" and state.step == 9:
            taken = state.snapshot()
            assert taken is not None
            self.snapshot = taken.copy_tensors()


def test_a_snapshot_within_an_epoch_continues_as_the_whole_run() -> None:
    specs = [make_spec(LAYERS["mlp"], seed=seed) for seed in range(2)]
    callbacks = [SnapshotCallback() for _ in specs]
    train_stacked(specs, make_callbacks=lambda index: [callbacks[index]])
    for spec, callback in zip(specs, callbacks, strict=True):
        resumed = make_trainer(spec)
        assert callback.snapshot is not None
        resumed.restore(callback.snapshot)
        resumed.run()
        assert_equal_runs(resumed, train_alone(spec))


def test_an_error_of_a_member_reaches_the_stack() -> None:
    def fail(member: StackMember) -> None:
        raise ValueError("of this member")

    with pytest.raises(ValueError, match="of this member"):
        list(Stack([StackMember(fail)]).run())


def test_a_waiting_run_does_not_end_when_its_stack_is_gone() -> None:
    """A greenlet that is collected raises an exception in its run, which would report that as its failure."""
    ended: list[str] = []

    def wait(member: StackMember) -> None:
        try:
            member.train(None)  # type: ignore[arg-type]
        finally:
            ended.append("now")

    member = StackMember(wait)
    member.resume()
    del member
    gc.collect()
    assert ended == []


def test_what_a_module_set_when_it_was_imported_holds_in_members() -> None:
    """NumPy keeps such settings in context variables."""
    with np.errstate(divide="raise"):
        members = [StackMember(lambda _: np.geterr()["divide"])]
        assert [result for _, result in Stack(members).run()] == ["raise"]


def test_members_draw_their_own_random_numbers() -> None:
    """Those of PyTorch, Python and NumPy, whatever another member draws in between."""

    def draw(member: StackMember) -> list[float]:
        return [torch.rand(1).item(), random.random(), np.random.random()]

    def draw_in_turns(member: StackMember) -> list[float]:
        seed_generators(3)
        first = draw(member)
        member.train(None)  # type: ignore[arg-type]
        return first + draw(member)

    members = [StackMember(draw_in_turns) for _ in range(2)]
    before = torch.get_rng_state()
    for each in [*members, *members]:
        each.resume()
    torch.set_rng_state(before)
    seed_generators(3)
    assert [each.result for each in members] == [draw(members[0]) + draw(members[0])] * 2
