"""An optimizer continues with other settings as PyTorch's does when its `param_groups` are changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.optim.optimizer_transfer import transfer_state
from dlspec.parts.torch.torch_parts import OPTIMIZERS

# What each optimizer is made with, where its defaults do not suit the tried parameters.
MADE_WITH: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.5}}
# Other values of the settings for which halving or negating gives none that is allowed.
OTHER_VALUES: dict[str, Any] = {
    "momentum": 0.3, "dampening": 0.1, "weight_decay": 0.01, "lr_decay": 0.1, "lambd": 0.01, "eps": 1e-3, "t0": 2.0,
    "maximize": True, "etas": (0.4, 1.5), "step_sizes": (1e-3, 0.1), "line_search_fn": "strong_wolfe", "max_iter": 3,
    "max_eval": 2, "history_size": 2, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "beta2_decay": -0.5,
    "ns_coefficients": (3.0, -4.0, 2.0), "initial_accumulator_value": 0.5, "foreach": True, "d": 2.0,
}  # fmt: skip
# Which kernel computes the step, not what it computes; and what no parameter on a CPU can have.
KERNELS = ("fused", "capturable", "differentiable")
# Settings that a running optimizer no longer reads: it starts anew.
START_SETTINGS = {("Rprop", "lr"), ("Adagrad", "initial_accumulator_value"), ("LBFGS", "history_size")}
# Settings with which another moment is needed.
MISSING_MOMENTS = {"amsgrad", "centered"}
NAMES = [name for name in OPTIMIZERS if name != "SparseAdam"]


@pytest.fixture(autouse=True)
def without_slow_imports() -> Iterator[None]:
    with without_dynamo():
        yield


def make_parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 4))]


def train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(((each - 0.1) ** 4).sum() for each in parameters)
        loss.backward()
        return loss

    for _ in range(steps):
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def list_cases() -> list[tuple[str, str]]:
    return [(name, key) for name in NAMES for key in OPTIMIZERS[name].settings if key not in KERNELS]


@pytest.mark.parametrize(("name", "key"), list_cases())
def test_a_changed_setting_takes_effect_and_the_moments_stay(name: str, key: str) -> None:
    optimizer_class, parameters = OPTIMIZERS[name].build, make_parameters()
    settings = {"lr": 0.05, **MADE_WITH.get(name, {})}
    before = optimizer_class(parameters, **settings)
    train(before, parameters, 3)
    value = before.param_groups[0].get(key, OPTIMIZERS[name].settings[key].default)
    if (name, key) == ("Adafactor", "eps"):
        other = (1e-6, 1e-2)
    elif key in OTHER_VALUES:
        other = OTHER_VALUES[key]
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, tuple | list):
        other = tuple(None if each is None else each / 2 for each in value)
    else:
        other = value / 2
    changed = {**settings, key: other}
    if name == "SGD" and key == "nesterov":
        changed["dampening"] = 0

    own = copy.deepcopy(parameters)
    now = optimizer_class(own, **changed)
    stateless = transfer_state(now, ["a", "b"], copy.deepcopy(before.state_dict()), ["a", "b"])
    train(now, own, 3)

    if (name, key) in START_SETTINGS or key in MISSING_MOMENTS:
        assert stateless == ["a", "b"]
        expected = copy.deepcopy(parameters)
        train(optimizer_class(expected, **changed), expected, 3)
    else:
        assert stateless == []
        expected = parameters
        for group in before.param_groups:
            group[key] = other
            if key == "max_iter":
                group["max_eval"] = other * 5 // 4
        train(before, expected, 3)
    assert now.param_groups[0][key] == other
    for one, wanted in zip(own, expected, strict=True):
        assert torch.equal(one, wanted)


def test_parameters_are_matched_by_name() -> None:
    first, second = make_parameters()
    before = torch.optim.Adam([first, second], lr=0.1)
    train(before, [first, second], 2)
    new = nn.Parameter(torch.ones(5))
    now = torch.optim.Adam([{"params": [new, second]}, {"params": [first], "lr": 0.3}], lr=0.2)
    assert transfer_state(now, ["new", "second", "first"], before.state_dict(), ["first", "second"]) == ["new"]
    assert [group["lr"] for group in now.param_groups] == [0.2, 0.3]
    assert new not in now.state
    for each in (first, second):
        assert torch.equal(now.state[each]["exp_avg"], before.state[each]["exp_avg"])
        assert now.state[each]["step"] == 2


def test_what_a_custom_optimizer_counts_in_its_groups_stays() -> None:
    class Counting(torch.optim.SGD):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, lr)
            self.param_groups[0]["count"] = 0

    parameters = make_parameters()
    before = Counting(parameters, 0.1)
    before.param_groups[0]["count"] = 7
    now = Counting(parameters, 0.2)
    transfer_state(now, ["a", "b"], before.state_dict(), ["a", "b"])
    assert (now.param_groups[0]["count"], now.param_groups[0]["lr"]) == (7, 0.2)
