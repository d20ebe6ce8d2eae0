"""Member-wise update rules equal torch.optim, with scalars for one run and with numbers of each of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RMSprop

from dlspec.optim.update_rules import NoUpdateRule, find_update_rule, read_numbers

STEPS = 50
Settings = Mapping[str, Any]
# An optimizer, and the settings of the members of one stack.
RULES: Sequence[tuple[type[Optimizer], Sequence[Settings]]] = [
    (SGD, [{"lr": 0.1}, {"lr": 0.02}]),
    (SGD, [{"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1}]),
    (SGD, [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.03, "momentum": 0.5, "weight_decay": 0.01}, {"lr": 0.1}]),
    (
        SGD,
        [{"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, {"lr": 0.1, "momentum": 0.4}, {"lr": 0.1, "dampening": 0.3}],
    ),
    (SGD, [{"lr": 0.05, "momentum": 0.9, "nesterov": True}, {"lr": 0.02, "momentum": 0.3, "nesterov": True}]),
    (SGD, [{"lr": 0.01, "momentum": 0.9, "maximize": True, "weight_decay": 0.1}]),
    (Adam, [{"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}]),
    (Adam, [{"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.1}]),
    (Adam, [{"lr": 0.01, "amsgrad": True}, {"lr": 0.1, "amsgrad": True, "betas": (0.8, 0.6)}]),
    (AdamW, [{"lr": 0.01}, {"lr": 0.1, "weight_decay": 0.5, "betas": (0.7, 0.8)}]),
    (AdamW, [{"lr": 0.01, "amsgrad": True, "maximize": True}]),
    (NAdam, [{"lr": 0.01}, {"lr": 0.05, "momentum_decay": 0.1, "weight_decay": 0.1, "betas": (0.7, 0.95)}]),
    (NAdam, [{"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}]),
    (RMSprop, [{"lr": 0.01}, {"lr": 0.002, "alpha": 0.7, "eps": 1e-2, "weight_decay": 0.1}]),
    (RMSprop, [{"lr": 0.01, "momentum": 0.9}, {"lr": 0.01}]),
    (RMSprop, [{"lr": 0.01, "centered": True, "momentum": 0.5}, {"lr": 0.02, "centered": True}]),
    (Adagrad, [{"lr": 0.1}, {"lr": 0.3, "lr_decay": 0.1, "weight_decay": 0.1}]),
    (Adagrad, [{"lr": 0.1, "initial_accumulator_value": 0.5}, {"lr": 0.1, "eps": 1e-2}]),
]


def _name_rule(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else None


def _make_gradients(weights: Tensor, step: int) -> Tensor:
    """Make gradients that depend on the weights, so that errors would grow; in one step they are small."""
    return torch.sin(3 * weights) * (0.01 if step == 20 else 1.0) + 0.1 * weights


def _train_with_torch(optimizer_class: type[Optimizer], settings: Settings, weights: Tensor) -> tuple[Tensor, Settings]:
    parameter = torch.nn.Parameter(weights.clone())
    optimizer = optimizer_class([parameter], **settings)
    for step in range(STEPS):
        parameter.grad = _make_gradients(parameter.detach(), step)
        optimizer.step()
    return parameter.detach(), optimizer.state[parameter]


def _make_groups(optimizer_class: type[Optimizer], members: Sequence[Settings]) -> tuple[Optimizer, list[Any]]:
    optimizers = [optimizer_class([torch.zeros(1, requires_grad=True)], **each) for each in members]
    return optimizers[0], [each.param_groups[0] for each in optimizers]


@pytest.mark.parametrize(("optimizer_class", "members"), RULES, ids=_name_rule)
def test_members_equal_torch(optimizer_class: type[Optimizer], members: Sequence[Settings]) -> None:
    optimizer, groups = _make_groups(optimizer_class, members)
    rule = find_update_rule(optimizer, groups)
    shape = (len(members), 1, 1)
    values = [read_numbers(each) for each in groups]
    numbers = {
        name: torch.tensor([each[name] for each in values], dtype=torch.float64).reshape(shape) for name in rule.numbers
    }
    first = torch.randn(len(members), 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights, state = first, rule.make_state(first, numbers)
    for step in range(STEPS):
        weights, state = rule.update(weights, _make_gradients(weights, step), state, numbers)
    for index, settings in enumerate(members):
        expected, expected_state = _train_with_torch(optimizer_class, settings, first[index])
        torch.testing.assert_close(weights[index], expected, rtol=1e-12, atol=1e-12)
        for name, value in expected_state.items():
            if value is not None:
                torch.testing.assert_close(
                    state[name][index].squeeze().double(), value.squeeze().double(), rtol=1e-12, atol=1e-12
                )


@pytest.mark.parametrize(("optimizer_class", "members"), RULES, ids=_name_rule)
def test_one_run_with_scalars_equals_torch(optimizer_class: type[Optimizer], members: Sequence[Settings]) -> None:
    optimizer, groups = _make_groups(optimizer_class, members[:1])
    rule = find_update_rule(optimizer, groups)
    numbers = {name: torch.tensor(read_numbers(groups[0])[name], dtype=torch.float64) for name in rule.numbers}
    first = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    weights, state = first, rule.make_state(first, numbers)
    for step in range(STEPS):
        weights, state = rule.update(weights, _make_gradients(weights, step), state, numbers)
    expected, _ = _train_with_torch(optimizer_class, members[0], first)
    assert weights.dtype is torch.float32
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-4)


def test_another_optimizer_has_no_rule() -> None:
    optimizer, groups = _make_groups(Adamax, [{}])
    with pytest.raises(NoUpdateRule, match="Adamax has no member-wise update rule"):
        find_update_rule(optimizer, groups)


def test_a_subclass_has_no_rule() -> None:
    class Slower(SGD):
        pass

    optimizer, groups = _make_groups(Slower, [{"lr": 0.1}])
    with pytest.raises(NoUpdateRule, match="Slower has no member-wise update rule"):
        find_update_rule(optimizer, groups)


def test_members_may_not_differ_in_flags() -> None:
    optimizer, groups = _make_groups(Adam, [{"amsgrad": True}, {"amsgrad": False}])
    with pytest.raises(NoUpdateRule, match="settings of Adam differ in more than numbers"):
        find_update_rule(optimizer, groups)


def test_a_schedulers_settings_are_no_numbers() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10, cycle_momentum=False)
    assert set(read_numbers(optimizer.param_groups[0])) == {"lr", "momentum", "dampening", "weight_decay"}
