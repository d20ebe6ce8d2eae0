"""A warm-up beside a scheduler that counts epochs: a factor for each step, on top of the scheduler's learning rates."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler

from dlspec.errors import Code, SpecError
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.source_map import SourceMap
from dlspec.optim.schedule import Schedule
from dlspec.training.checkpoint.nested_state import flatten_state, unflatten_state
from helpers.toy_training import make_dataset

STEPS = 3  # per epoch
EPOCHS = 12
RESULTS = [1.0, 0.9, 0.95, 0.9, 0.9, 0.91, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
GROUPS = [{"match": "*.bias", "lr": 0.03}]

SCHEDULERS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.3, "total_iters": 4},
    "CosineAnnealingLR": {"eta_min": 0.01, "T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "eta_min": 0.01},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"start_factor": 0.3, "total_iters": 7},
    "MultiStepLR": {"milestones": [1, 3, 7], "gamma": 0.3},
    "PolynomialLR": {"total_iters": 9, "power": 1.5},
    "ReduceLROnPlateau": {"factor": 0.3, "patience": 1},
    "StepLR": {"step_size": 2, "gamma": 0.3},
}


def prepare(scheduler: Mapping[str, Any], version: int = 2) -> Schedule:
    tree: dict[str, Any] = {
        "spec_version": version,
        "model": {"layers": [{"Linear": 3}]},
        "data": {"type": "digits"},
        "optimizer": {"type": "SGD", "lr": 0.1, "groups": GROUPS},
        "scheduler": dict(scheduler),
        "trainer": {"epochs": EPOCHS, "batch_size": 32},
    }
    schedule = Preparation(tree, SourceMap, data=make_dataset(train=70)).prepare().schedule
    assert schedule is not None
    return schedule


def find_codes(scheduler: Mapping[str, Any], version: int = 2) -> list[Code]:
    try:
        prepare(scheduler, version)
    except SpecError as error:
        return [each.code for each in error.problems]
    return []


def get_lrs(schedule: Any) -> list[float]:
    return [float(group["lr"]) for group in schedule.optimizer.param_groups]


def iterate_lrs(schedule: Schedule, first: int = 0, last: int = EPOCHS * STEPS) -> Iterator[list[float]]:
    """Yield the learning rates of each step, as a training would use them."""
    for step in range(first, last):
        yield get_lrs(schedule.scheduler)
        schedule.scheduler.optimizer.step()
        schedule.after_step()
        if (step + 1) % STEPS == 0:
            schedule.after_epoch(RESULTS[step // STEPS])


def store(state: dict[str, Any]) -> Any:
    """What a checkpoint gives back of a state."""
    tensors: dict[str, torch.Tensor] = {}
    return unflatten_state(json.loads(json.dumps(flatten_state(state, tensors, "x"))), tensors)


def list_plain_lrs(name: str) -> list[list[float]]:
    """The learning rates of each epoch, by PyTorch's own scheduler."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.03)]
    scheduler, found = getattr(lr_scheduler, name)(optim.SGD(groups), **SCHEDULERS[name]), []
    for result in RESULTS:
        found.append(get_lrs(scheduler))
        scheduler.optimizer.step()
        scheduler.step(*([result] if name == "ReduceLROnPlateau" else []))
    return found


def test_every_scheduler_of_epochs_has_a_row() -> None:
    from dlspec.parts.torch.torch_parts import SCHEDULERS as REGISTRY

    names = {each for each in REGISTRY if REGISTRY[each].build.__module__.startswith("torch.")}
    assert names - {"OneCycleLR", "CyclicLR"} == set(SCHEDULERS)


@pytest.mark.parametrize("length", [1, 7, 20, 100])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_scheduler_counts_epochs(name: str, length: int) -> None:
    """Within the warm-up the learning rate is the scheduler's times a factor, after it the scheduler's own."""
    moved, plain = (
        list(iterate_lrs(prepare({"type": name, "warmup": length, **SCHEDULERS[name]}))),
        list_plain_lrs(name),
    )
    for step, lrs in enumerate(moved):
        own = plain[step // STEPS]
        if step < length:
            assert lrs == [lr * ((step + 1) / (length + 1)) for lr in own]
        else:
            assert lrs == own
    assert len({lrs[0] for lrs in plain}) > 1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_state_goes_on_from_every_step(name: str) -> None:
    scheduler = {"type": name, "warmup": 10, **SCHEDULERS[name]}
    straight, interrupted = list(iterate_lrs(prepare(scheduler))), prepare(scheduler)
    for step, lrs in enumerate(iterate_lrs(interrupted, last=16)):
        assert lrs == straight[step]
        if step in (1, STEPS, 8, 10, 15):
            resumed = prepare(scheduler)
            resumed.scheduler.optimizer.load_state_dict(copy.deepcopy(interrupted.scheduler.optimizer.state_dict()))
            resumed.load_state_dict(store(interrupted.state_dict()))
            assert list(iterate_lrs(resumed, step)) == straight[step:]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_new_schedule_is_stepped_to_where_a_run_stands(name: str) -> None:
    scheduler = {"type": name, "warmup": 10, **SCHEDULERS[name]}
    straight = list(iterate_lrs(prepare(scheduler)))
    for step in (0, 1, STEPS, 8, 14):
        resumed = prepare(scheduler)
        resumed.advance(step, RESULTS[: step // STEPS])
        assert list(iterate_lrs(resumed, step)) == straight[step:]


def test_learning_rates_that_are_tensors_are_filled() -> None:
    """As in a compiled step: the tensors stay the same ones."""
    name = "StepLR"
    schedule = prepare({"type": name, "warmup": 7, **SCHEDULERS[name]})
    groups = schedule.scheduler.optimizer.param_groups
    for group in groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float64)
    tensors = [group["lr"] for group in groups]
    moved, plain = list(iterate_lrs(schedule)), list_plain_lrs(name)
    assert moved[7:] == [plain[step // STEPS] for step in range(7, EPOCHS * STEPS)]
    assert moved[2] == [lr * (3 / 8) for lr in plain[0]]
    assert all(group["lr"] is tensor for group, tensor in zip(groups, tensors, strict=True))


@pytest.mark.parametrize(
    "state",
    [
        {"finished_steps": 9, "scheduler_lrs": [0.1, 0.1]},
        {"finished_steps": -1, "scheduler_lrs": [0.1, 0.1]},
        {"finished_steps": 1.0, "scheduler_lrs": [0.1, 0.1]},
        {"finished_steps": 1, "scheduler_lrs": [0.1]},
        {"finished_steps": 1, "scheduler_lrs": ["0.1", 0.1]},
    ],
)
def test_the_state_of_another_warmup_is_refused(state: dict[str, Any]) -> None:
    schedule = prepare({"type": "StepLR", "step_size": 1, "warmup": 7})
    lrs = get_lrs(schedule.scheduler)
    with pytest.raises(ValueError, match="warm-up"):
        schedule.load_state_dict({**schedule.state_dict(), "warmup": state})
    assert get_lrs(schedule.scheduler) == lrs


# ---- with interval: step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_scheduler_of_steps_starts_after_the_warmup(version: int) -> None:
    """`interval: step` gives what every scheduler with a warm-up gave in version 1, to the last bit."""
    moved = iterate_lrs(prepare({"type": "StepLR", "step_size": 5, "interval": "step", "warmup": 4}, version))
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.03)]
    optimizer = optim.SGD(groups)
    scheduler = lr_scheduler.StepLR(optimizer, 5)
    linear = lr_scheduler.LinearLR(optimizer, 1 / 5, total_iters=4)
    plain = lr_scheduler.SequentialLR(optimizer, [linear, scheduler], [4])
    for lrs in moved:
        assert lrs == get_lrs(plain)
        optimizer.step()
        plain.step()


def test_only_a_scheduler_of_steps_ends_with_the_steps_after_the_warmup() -> None:
    cosine = {"type": "CosineAnnealingLR", "warmup": 6}
    assert prepare(cosine).scheduler.T_max == EPOCHS  # type: ignore[attr-defined]
    sequence: Any = prepare({**cosine, "interval": "step"}).scheduler
    assert sequence._schedulers[1].T_max == EPOCHS * STEPS - 6


# ---- version 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEDULERS.keys() - {"ReduceLROnPlateau"}))
def test_version_1_stops_where_the_scheduler_counted_steps(name: str) -> None:
    scheduler = {"type": name, "warmup": 5, **SCHEDULERS[name]}
    assert find_codes(scheduler, 1) == [Code.CHANGED_RULE]
    for unchanged in ({**scheduler, "interval": "step"}, {"type": name, **SCHEDULERS[name]}):
        assert find_codes(unchanged, 1) == find_codes(unchanged) == []


def test_an_interval_that_a_plateau_can_not_have_is_refused() -> None:
    plateau = {"type": "ReduceLROnPlateau", "interval": "step"}
    assert (find_codes(plateau), find_codes(plateau, 1)) == ([Code.CONFLICT], [])
    assert find_codes({**plateau, "interval": "epoch", "warmup": 5}) == []
