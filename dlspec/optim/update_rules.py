"""PyTorch's optimizers as functions of tensors, for steps that are compiled or that train several runs at once.

A rule computes new weights and a new state from tensors alone. Its numbers, such as the learning rate, are tensors too:
scalars for one run, or (members, 1, ...) for weights (members, ...) of several runs, each with numbers of its own. So
another learning rate compiles nothing again. PyTorch's own functions can't be used for that: SGD and RMSprop read
the learning rate back as a number, and AdamW its weight decay.

The names of a state are those of PyTorch's `optimizer.state`. SGD has a `step` beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import NAdam, Optimizer, RMSprop
from torch.optim.adagrad import Adagrad
from torch.optim.adam import Adam
from torch.optim.adamw import AdamW
from torch.optim.sgd import SGD

Numbers = Mapping[str, Tensor]  # float64 tensors by the setting's name; `betas` are `beta1` and `beta2`
RuleState = dict[str, Tensor]
# From weights, gradients, state and numbers to new weights and a new state.
Update = Callable[[Tensor, Tensor, RuleState, Numbers], tuple[Tensor, RuleState]]

SCALAR_STATES = ("step", "mu_product")  # one number for all weights of a run; the other states have their shape
# Settings of a parameter group that do not change what a step computes, or that only a scheduler reads.
IGNORED_SETTINGS = (
    "params", "param_names", "fused", "foreach", "capturable", "differentiable",
    "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum",
)  # fmt: skip


class NoUpdateRule(ValueError):
    """An optimizer or setting without an update rule. The message says why."""


@dataclass(frozen=True)
class UpdateRule:
    """How an optimizer updates weights.

    Attributes:
        numbers: the settings that are tensors.
        flags: the other settings, which are the same for all runs.
        state_names: the tensors that it keeps.
        update: computes new weights and a new state.
    """

    numbers: tuple[str, ...]
    flags: Mapping[str, Any]
    state_names: tuple[str, ...]
    update: Update

    def make_state(self, weights: Tensor, numbers: Numbers) -> RuleState:
        """Make the state before the first step; scalar states get the shape of the learning rate."""
        state = {name: torch.zeros_like(weights) for name in self.state_names if name not in SCALAR_STATES}
        if "sum" in state:
            state["sum"] = state["sum"] + _match(numbers["initial_accumulator_value"], weights)
        # NAdam rounds its product of momenta to this dtype at every step.
        product = torch.ones_like(numbers["lr"], dtype=torch.get_default_dtype())
        firsts = {"step": torch.zeros_like(numbers["lr"]), "mu_product": product}
        return state | {name: firsts[name] for name in self.state_names if name in SCALAR_STATES}


def find_update_rule(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    """Find the rule by which an optimizer updates groups of parameters.

    Args:
        optimizer: an optimizer of PyTorch's.
        groups: some of its `param_groups`, or those of other runs with an optimizer of the same class. They may differ
            in numbers.

    Returns:
        The rule for all of these groups.

    Raises:
        NoUpdateRule: for another optimizer, or for groups that differ in more than numbers.
    """
    name = type(optimizer).__name__
    make_rule = _RULES.get(type(optimizer))
    if make_rule is None:
        raise NoUpdateRule(f"{name} has no member-wise update rule")
    flags = [_read_flags(each) for each in groups]
    if any(each != flags[0] for each in flags):
        raise NoUpdateRule(f"settings of {name} differ in more than numbers")
    return make_rule(flags[0], groups)


def has_update_rule(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's class has a rule."""
    return type(optimizer) in _RULES


def read_numbers(group: Mapping[str, Any]) -> dict[str, float]:
    """Read the numbers of a parameter group, those that a rule takes as tensors."""
    betas = group.get("betas")
    numbers = {} if betas is None else {"beta1": float(betas[0]), "beta2": float(betas[1])}
    return numbers | {key: float(value) for key, value in group.items() if _is_number(key, value)}


def _is_number(key: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return key == "lr" or (is_number and key not in IGNORED_SETTINGS)


def _read_flags(group: Mapping[str, Any]) -> dict[str, Any]:
    skipped = {*IGNORED_SETTINGS, "betas"}
    return {key: value for key, value in group.items() if key not in skipped and not _is_number(key, value)}


def _has_any(groups: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(float(each.get(name) or 0) for each in groups)


def _match(number: Tensor, weights: Tensor) -> Tensor:
    """Convert a number to the dtype of the weights: a float64 tensor with dimensions would widen them."""
    return number.to(weights.dtype)


def _decay(weights: Tensor, gradients: Tensor, numbers: Numbers, flags: Mapping[str, Any]) -> Tensor:
    """Negate the gradients if the optimizer maximizes, and add the weight decay."""
    if flags.get("maximize"):
        gradients = -gradients
    if not flags["decays"]:
        return gradients
    return torch.addcmul(gradients, weights, _match(numbers["weight_decay"], weights))


# ---- rules -----------------------------------------------------------------------------------------------------------


def _make_sgd(flags: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    flags = {**flags, "decays": _has_any(groups, "weight_decay")}
    has_momentum, has_dampening = _has_any(groups, "momentum"), _has_any(groups, "dampening")

    def update(weights: Tensor, gradients: Tensor, state: RuleState, numbers: Numbers) -> tuple[Tensor, RuleState]:
        gradients, step = _decay(weights, gradients, numbers, flags), state["step"] + 1
        state = {**state, "step": step}
        if has_momentum:
            momentum = _match(numbers["momentum"], weights)
            added = gradients
            if has_dampening:  # the first gradients are not, nor those without momentum
                is_undamped = (step == 1) | (numbers["momentum"] == 0)
                added = gradients * _match(torch.where(is_undamped, 1.0, 1 - numbers["dampening"]), weights)
            state["momentum_buffer"] = torch.addcmul(added, state["momentum_buffer"], momentum)
            velocity = state["momentum_buffer"]
            gradients = torch.addcmul(gradients, velocity, momentum) if flags["nesterov"] else velocity
        return torch.addcmul(weights, gradients, _match(-numbers["lr"], weights)), state

    names = ("step", "momentum_buffer") if has_momentum else ("step",)
    return UpdateRule(("lr", "momentum", "dampening", "weight_decay"), flags, names, update)


def _make_adam(flags: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    is_decoupled = bool(flags.get("decoupled_weight_decay"))
    has_decay, has_maximum = _has_any(groups, "weight_decay"), bool(flags["amsgrad"])
    flags = {**flags, "decays": has_decay and not is_decoupled}

    def update(weights: Tensor, gradients: Tensor, state: RuleState, numbers: Numbers) -> tuple[Tensor, RuleState]:
        lr, beta1, beta2, step = numbers["lr"], numbers["beta1"], numbers["beta2"], state["step"] + 1
        if has_decay and is_decoupled:
            weights = weights * _match(1 - lr * numbers["weight_decay"], weights)
        gradients = _decay(weights, gradients, numbers, flags)
        state = {**state, "step": step, **_average_moments(state, gradients, beta1, beta2)}
        largest = state["exp_avg_sq"]
        if has_maximum:
            largest = state["max_exp_avg_sq"] = torch.maximum(state["max_exp_avg_sq"], largest)
        return _step_by_moments(weights, state["exp_avg"], largest, lr / (1 - beta1**step), step, numbers), state

    names = ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if has_maximum else ()))
    return UpdateRule(("lr", "beta1", "beta2", "eps", "weight_decay"), flags, names, update)


def _average_moments(state: RuleState, gradients: Tensor, beta1: Tensor, beta2: Tensor) -> RuleState:
    mean = torch.lerp(state["exp_avg"], gradients, _match(1 - beta1, gradients))
    rest = gradients * _match(1 - beta2, gradients)
    square = torch.addcmul(state["exp_avg_sq"] * _match(beta2, gradients), gradients, rest)
    return {"exp_avg": mean, "exp_avg_sq": square}


def _step_by_moments(
    weights: Tensor, mean: Tensor, square: Tensor, step_size: Tensor, step: Tensor, numbers: Numbers
) -> Tensor:
    root = square.sqrt() * _match((1 - numbers["beta2"] ** step).rsqrt(), weights)
    return torch.addcdiv(weights, mean * _match(-step_size, weights), root + _match(numbers["eps"], weights))


def _make_nadam(flags: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    is_decoupled, has_decay = bool(flags["decoupled_weight_decay"]), _has_any(groups, "weight_decay")
    flags = {**flags, "decays": has_decay and not is_decoupled}

    def update(weights: Tensor, gradients: Tensor, state: RuleState, numbers: Numbers) -> tuple[Tensor, RuleState]:
        lr, beta1, beta2, step = numbers["lr"], numbers["beta1"], numbers["beta2"], state["step"] + 1
        if has_decay and is_decoupled:
            weights = weights * _match(1 - lr * numbers["weight_decay"], weights)
        gradients = _decay(weights, gradients, numbers, flags)
        momentum = beta1 * (1 - 0.5 * 0.96 ** (step * numbers["momentum_decay"]))
        next_momentum = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * numbers["momentum_decay"]))
        rounded = state["mu_product"] * momentum.to(state["mu_product"].dtype)
        state = {"step": step, "mu_product": rounded, **_average_moments(state, gradients, beta1, beta2)}
        product = rounded.to(lr.dtype)
        by_gradient = lr * (1 - momentum) / (1 - product)
        by_mean = lr * next_momentum / (1 - product * next_momentum)
        mixed = torch.addcmul(gradients * _match(by_gradient, weights), state["exp_avg"], _match(by_mean, weights))
        one = torch.ones_like(lr)
        return _step_by_moments(weights, mixed, state["exp_avg_sq"], one, step, numbers), state

    names = ("lr", "beta1", "beta2", "eps", "weight_decay", "momentum_decay")
    return UpdateRule(names, flags, ("step", "mu_product", "exp_avg", "exp_avg_sq"), update)


def _make_rmsprop(flags: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    has_momentum, is_centered = _has_any(groups, "momentum"), bool(flags["centered"])
    flags = {**flags, "decays": _has_any(groups, "weight_decay")}

    def update(weights: Tensor, gradients: Tensor, state: RuleState, numbers: Numbers) -> tuple[Tensor, RuleState]:
        gradients = _decay(weights, gradients, numbers, flags)
        alpha, rest = _match(numbers["alpha"], weights), _match(1 - numbers["alpha"], weights)
        square = torch.addcmul(state["square_avg"] * alpha, gradients, gradients * rest)
        state = {**state, "step": state["step"] + 1, "square_avg": square}
        if is_centered:
            state["grad_avg"] = torch.lerp(state["grad_avg"], gradients, rest)
            square = torch.addcmul(square, state["grad_avg"], state["grad_avg"], value=-1)
        root, lr = square.sqrt() + _match(numbers["eps"], weights), _match(-numbers["lr"], weights)
        if not has_momentum:
            return torch.addcdiv(weights, gradients * lr, root), state
        buffer = state["momentum_buffer"] * _match(numbers["momentum"], weights)
        state["momentum_buffer"] = torch.addcdiv(buffer, gradients, root)
        return torch.addcmul(weights, state["momentum_buffer"], lr), state

    optional = {"momentum_buffer": has_momentum, "grad_avg": is_centered}
    names = ("step", "square_avg", *(name for name, is_kept in optional.items() if is_kept))
    return UpdateRule(("lr", "alpha", "eps", "weight_decay", "momentum"), flags, names, update)


def _make_adagrad(flags: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> UpdateRule:
    flags = {**flags, "decays": _has_any(groups, "weight_decay")}

    def update(weights: Tensor, gradients: Tensor, state: RuleState, numbers: Numbers) -> tuple[Tensor, RuleState]:
        gradients = _decay(weights, gradients, numbers, flags)
        total = torch.addcmul(state["sum"], gradients, gradients)
        lr = numbers["lr"] / (1 + state["step"] * numbers["lr_decay"])
        root = total.sqrt() + _match(numbers["eps"], weights)
        new_weights = torch.addcdiv(weights, gradients * _match(-lr, weights), root)
        return new_weights, {"step": state["step"] + 1, "sum": total}

    names = ("lr", "lr_decay", "weight_decay", "eps", "initial_accumulator_value")
    return UpdateRule(names, flags, ("step", "sum"), update)


_RULES: Mapping[type[Optimizer], Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], UpdateRule]] = {
    SGD: _make_sgd,
    Adam: _make_adam,
    AdamW: _make_adam,
    NAdam: _make_nadam,
    RMSprop: _make_rmsprop,
    Adagrad: _make_adagrad,
}
