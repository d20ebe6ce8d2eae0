"""Every scheduler moves each group of the optimizer from where it began, as PyTorch's does with a number per group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler

from dlspec.errors import Code, SpecError
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.source_map import SourceMap
from dlspec.optim.schedule import Schedule
from helpers.toy_training import make_dataset

SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9}
GROUPS = [{"match": "*.bias", "lr": 0.01}, {"match": "0.weight", "lr": 0.5}]
RATES = (0.1, 0.01, 0.5)  # of the parameters that no pattern matches, and of both groups
STEPS = 12


def prepare(scheduler: Mapping[str, Any], groups: list[Any] = GROUPS, version: int = 2, **optimizer: Any) -> Schedule:
    tree: dict[str, Any] = {
        "spec_version": version,
        "model": {"layers": [{"Linear": 4}, "ReLU", {"Linear": 3}]},
        "data": {"type": "digits"},
        "optimizer": {**SGD, **optimizer, "groups": groups},
        "scheduler": scheduler,
        "trainer": {"epochs": 4, "batch_size": 32},
    }
    schedule = Preparation(tree, SourceMap, data=make_dataset(train=70)).prepare().schedule
    assert schedule is not None
    return schedule


def find_codes(*args: Any, **settings: Any) -> list[Code]:
    with pytest.raises(SpecError) as caught:
        prepare(*args, **settings)
    return [each.code for each in caught.value.problems]


def list_groups(scheduler: Any, keys: tuple[str, ...] = ("lr", "momentum")) -> list[list[Any]]:
    """The settings of every group before each step; a plateau's scheduler hears that nothing gets better."""
    found = []
    for _ in range(STEPS):
        found.append([group[key] for group in scheduler.optimizer.param_groups for key in keys])
        scheduler.optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return found


def make_plain(rates: tuple[float, ...] = RATES, momenta: tuple[float, ...] = (0.9,) * 3) -> optim.SGD:
    groups = [
        {"params": [torch.zeros(1, requires_grad=True)], "lr": lr, "momentum": momentum}
        for lr, momentum in zip(rates, momenta, strict=True)
    ]
    return optim.SGD(groups, lr=0.1, momentum=0.9)


def scale(value: float) -> list[float]:
    return [value, value / 10, value * 5]


# A scheduler's settings, and what PyTorch's own scheduler gets for the same learning rates.
SCHEDULERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ConstantLR": ({"factor": 0.5, "total_iters": 2}, {}),
    "CosineAnnealingLR": ({"eta_min": 0.005, "T_max": 7}, {}),
    "CosineAnnealingWarmRestarts": ({"T_0": 4, "T_mult": 2, "eta_min": 0.01}, {}),
    "CyclicLR": (
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "mode": "triangular2", "cycle_momentum": False},
        {"base_lr": scale(0.01), "max_lr": scale(0.2)},
    ),
    "ExponentialLR": ({"gamma": 0.9}, {}),
    "LinearLR": ({"start_factor": 0.2, "total_iters": 4}, {}),
    "MultiStepLR": ({"milestones": [1, 3], "gamma": 0.5}, {}),
    "OneCycleLR": ({"max_lr": 0.3, "total_steps": 12}, {"max_lr": scale(0.3)}),
    "PolynomialLR": ({"total_iters": 4, "power": 2}, {}),
    "ReduceLROnPlateau": ({"factor": 0.5, "patience": 0, "min_lr": [0.05, 0, 0.2]}, {}),
    "StepLR": ({"step_size": 1, "gamma": 0.5}, {}),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_group_moves_from_where_it_began(name: str) -> None:
    settings, plain_settings = SCHEDULERS[name]
    plain = getattr(lr_scheduler, name)(make_plain(), **{**settings, **plain_settings})
    moved = list_groups(prepare({"type": name, **settings}).scheduler)
    assert moved == [pytest.approx(each, rel=1e-12) for each in list_groups(plain)]


def test_every_scheduler_is_compared() -> None:
    from dlspec.parts.torch.torch_parts import SCHEDULERS as REGISTRY

    assert {each for each in REGISTRY if REGISTRY[each].build.__module__.startswith("torch.")} == set(SCHEDULERS)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "OneCycleLR", "max_lr": [0.3, 0.2, 0.1], "total_steps": 12},
        {"type": "OneCycleLR", "max_lr": 0.3, "total_steps": 12, "max_momentum": [0.9, 0.8, 0.7], "base_momentum": 0.5},
        {"type": "CyclicLR", "base_lr": [0.1, 0.01, 0.0], "max_lr": [1, 2, 3], "step_size_up": 3},
        {"type": "CyclicLR", "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "base_momentum": [0.1, 0.2, 0.3]},
    ],
)
def test_a_list_has_a_number_for_each_group(settings: dict[str, Any]) -> None:
    name, plain_settings = settings["type"], {key: each for key, each in settings.items() if key != "type"}
    for key in ("base_lr", "max_lr"):
        if isinstance(plain_settings.get(key), float):
            plain_settings[key] = scale(plain_settings[key])
    plain = getattr(lr_scheduler, name)(make_plain(), **plain_settings)
    assert list_groups(prepare(settings).scheduler) == [pytest.approx(each) for each in list_groups(plain)]


def test_groups_with_the_same_learning_rate_move_alike_to_the_last_bit() -> None:
    one_cycle = {"type": "OneCycleLR", "max_lr": 0.3, "total_steps": 12}
    plain = list_groups(lr_scheduler.OneCycleLR(make_plain((0.1,) * 3), 0.3, 12))
    groups = [{"match": "*.bias", "lr": 0.1}, {"match": "0.weight", "weight_decay": 0}]
    for version in (1, 2):
        assert list_groups(prepare(one_cycle, groups, version).scheduler) == plain


def test_a_group_that_starts_at_0_stays_there() -> None:
    moved = list_groups(
        prepare({"type": "OneCycleLR", "max_lr": 0.3}, [{"match": "*.bias", "lr": 0}]).scheduler, ("lr",)
    )
    assert {rates[1] for rates in moved} == {0.0}
    assert len({rates[0] for rates in moved}) == STEPS


def test_one_group_of_all_parameters_is_scaled_too() -> None:
    moved = list_groups(prepare({"type": "OneCycleLR", "max_lr": 0.3}, [{"match": "*", "lr": 0.2}]).scheduler)
    plain = lr_scheduler.OneCycleLR(make_plain((0.2,), (0.9,)), 0.6, 12)
    assert moved == [pytest.approx(each) for each in list_groups(plain)]


@pytest.mark.parametrize(
    ("scheduler", "code"),
    [
        ({"type": "OneCycleLR", "max_lr": [0.1, 0.2]}, Code.WRONG_VALUE),
        ({"type": "CyclicLR", "base_lr": 0.1, "max_lr": [0.1, 0.2, 0.3, 0.4]}, Code.WRONG_VALUE),
        ({"type": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2, "base_momentum": [0.1]}, Code.WRONG_VALUE),
        ({"type": "ReduceLROnPlateau", "min_lr": [0.1, 0.2]}, Code.WRONG_VALUE),
        ({"type": "CosineAnnealingLR", "eta_min": 0.02}, Code.CONFLICT),
        ({"type": "CosineAnnealingWarmRestarts", "T_0": 2, "eta_min": 0.02}, Code.CONFLICT),
    ],
)
def test_what_does_not_fit_the_groups_is_refused(scheduler: dict[str, Any], code: Code) -> None:
    assert find_codes(scheduler) == [code]


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_a_groups_own_momentum_is_not_overwritten(name: str) -> None:
    rates = {"OneCycleLR": {"max_lr": 0.3, "total_steps": 12}, "CyclicLR": {"base_lr": 0.1, "max_lr": 0.3}}[name]
    groups = [{"match": "*.bias", "momentum": 0.5}, {"match": "0.weight"}]
    assert find_codes({"type": name, **rates}, groups) == [Code.CONFLICT]
    lists = {"base_momentum": [0.8, 0.4, 0.8], "max_momentum": [0.9, 0.5, 0.9]}
    momenta = (0.9, 0.5, 0.9)
    for settings in ({"cycle_momentum": False}, lists):
        plain = getattr(lr_scheduler, name)(make_plain((0.1,) * 3, momenta), **rates, **settings)
        moved = list_groups(prepare({"type": name, **rates, **settings}, groups).scheduler)
        assert moved == list_groups(plain)
        assert moved[0][1::2] == list(momenta)


def test_the_first_of_betas_is_a_momentum() -> None:
    scheduler, adam = {"type": "OneCycleLR", "max_lr": 0.3}, {"type": "Adam", "lr": 0.1}
    groups: list[Any] = [{"match": "*.bias", "betas": [0.5, 0.999]}]
    tree = {"model": {"layers": [{"Linear": 3}]}, "data": {"type": "digits"}, "scheduler": scheduler}

    def find(groups: list[Any]) -> list[Code]:
        run = Preparation({**tree, "optimizer": {**adam, "groups": groups}}, SourceMap, data=make_dataset(train=70))
        try:
            run.prepare()
        except SpecError as error:
            return [each.code for each in error.problems]
        return []

    assert find(groups) == [Code.CONFLICT]
    assert find([{"match": "*.bias", "betas": [0.9, 0.99]}]) == []


@pytest.mark.parametrize(
    "scheduler", [{"type": "OneCycleLR", "max_lr": 0.3}, {"type": "CyclicLR", "base_lr": 0.1, "max_lr": 0.3}]
)
def test_an_optimizer_without_a_learning_rate_of_its_own_needs_lists(scheduler: dict[str, Any]) -> None:
    groups = [{"match": "*.bias", "lr": 0.1}]
    assert set(find_codes(scheduler, groups, lr=0)) == {Code.CONFLICT}
    lists = {key: [each, each] if isinstance(each, float) else each for key, each in scheduler.items()}
    prepare(lists, groups, lr=0)


@pytest.mark.parametrize(("name", "count"), [("OneCycleLR", 1), ("CyclicLR", 2)])
def test_version_1_stops_where_every_group_got_the_same_learning_rate(name: str, count: int) -> None:
    numbers = {"OneCycleLR": {"max_lr": 0.3, "total_steps": 12}, "CyclicLR": {"base_lr": 0.1, "max_lr": 0.3}}[name]
    assert find_codes({"type": name, **numbers}, version=1) == [Code.CHANGED_RULE] * count
    lists = {key: [each] * 3 if isinstance(each, float) else each for key, each in numbers.items()}
    former = getattr(lr_scheduler, name)(make_plain(), **numbers)
    assert list_groups(prepare({"type": name, **lists}, version=1).scheduler) == list_groups(former)
    prepare({"type": name, **numbers}, [], 1)
