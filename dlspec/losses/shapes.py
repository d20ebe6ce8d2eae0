"""How an output and a target are given to a loss: squeezed, as rows, one-hot; and which steps are padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dlspec.data.batches.trimming import mapped
from dlspec.data.dataset import Target
from dlspec.layouts import Value, Window
from dlspec.losses.matching import Match
from dlspec.losses.rules import LossRule, TensorFunction, identity
from dlspec.parts.layers.padding import real_steps

Targets = tuple[Tensor, ...]
Aim = Callable[[Tensor, Targets], Tensor]
"""What the loss compares with: of the output, as it is given to the loss, and the batch's targets."""


@dataclass(frozen=True)
class Shapes:
    """`output` and `aim` are what the loss is given; `mask` makes (N, T) fit the loss's values."""

    output: TensorFunction
    aim: Aim
    mask: TensorFunction = identity


@dataclass(frozen=True)
class Padding:
    """Which steps of an output are real, by the lengths at `index` of a batch's targets."""

    index: int
    windows: Sequence[Window]
    time_dim: int

    def real(self, output: Tensor, targets: Targets) -> Tensor:
        """(N, T), false where there is padding; `output` is the network's own."""
        return real_steps(mapped(targets[self.index], self.windows), output.shape[self.time_dim])


def shapes_of(match: Match, index: int) -> Shapes:
    """For a target at `index` of a batch's targets, a number, or nothing to compare with."""
    value, target, rule = match.main.value, match.target, match.rule
    if target is None:
        return Shapes(identity, lambda output, targets: output, _beside_channels(value))
    if not isinstance(target, Target):
        return _constant(float(target), value, rule)
    if target.kind == "numbers":
        squeezed = value.shape != target.shape
        output = _squeeze(value.channels_dim) if squeezed else identity
        return Shapes(output, lambda _, targets: targets[index], identity if squeezed else _beside_channels(value))
    if not target.shape:
        return _by_sample(value, rule, index)
    return _by_step(value, rule, index)


def _by_sample(value: Value, rule: LossRule, index: int) -> Shapes:
    if rule.size == "any":
        return Shapes(identity, _aimed(_signs, index))
    if value.channels == 1 and not rule.takes_class_numbers:
        return Shapes(_squeeze(1), _aimed(_signs if rule.signed else as_float, index))
    return Shapes(identity, _aimed(_class_aim(rule, value.channels), index))


def _by_step(value: Value, rule: LossRule, index: int) -> Shapes:
    """A class a step: steps as rows, but where the loss takes channels first itself or there is one output a step."""
    if value.channels == 1 and not rule.takes_class_numbers:
        return Shapes(_squeeze(value.channels_dim), _aimed(_signs if rule.signed else as_float, index))
    if rule.is_native and value.layout == "channels-first":
        return Shapes(identity, lambda _, targets: targets[index])
    aim = _class_aim(rule, value.channels)
    return Shapes(rows(value), lambda _, targets: aim(targets[index].flatten()), torch.flatten)


def _constant(number: float, value: Value, rule: LossRule) -> Shapes:
    """The same target for every sample (and step)."""
    if rule.takes_class_numbers:
        whole = int(number)
        return Shapes(
            rows(value), lambda output, _: output.new_full(output.shape[:1], whole, dtype=torch.int64), torch.flatten
        )
    if rule.numbers == "signs":
        shape = _squeeze(1) if rule.size == "one" else identity
        return Shapes(shape, lambda output, _: output.new_full(output.shape[:1], number))
    return Shapes(identity, lambda output, _: torch.full_like(output, number), _beside_channels(value))


def rows(value: Value) -> TensorFunction:
    """(M, K) of an output: a row a sample, step or pixel."""
    if len(value.shape) == 1:
        return identity
    if value.channels_dim == len(value.shape):
        return lambda output: output.flatten(0, -2)
    return lambda output: output.movedim(1, -1).flatten(0, -2)


def _beside_channels(value: Value) -> TensorFunction:
    """(N, T) as it lies in (N, C, T); elsewhere nothing needs to be done."""
    return (lambda mask: mask.unsqueeze(1)) if value.layout == "channels-first" else identity


def _aimed(aim: TensorFunction, index: int) -> Aim:
    if aim is identity:
        return lambda _, targets: targets[index]
    return lambda _, targets: aim(targets[index])


def _class_aim(rule: LossRule, count: int) -> TensorFunction:
    if rule.takes_class_numbers:
        return identity
    return (
        (lambda classes: _one_hot(classes, count) * 2 - 1) if rule.signed else lambda classes: _one_hot(classes, count)
    )


def _squeeze(dim: int) -> TensorFunction:
    return lambda output: output.squeeze(dim)


def as_float(classes: Tensor) -> Tensor:
    return classes.to(torch.get_default_dtype())


def _signs(classes: Tensor) -> Tensor:
    """-1 and 1; numbers are these already."""
    return classes if classes.is_floating_point() else as_float(classes) * 2 - 1


def _one_hot(classes: Tensor, count: int) -> Tensor:
    return functional.one_hot(classes, count).to(torch.get_default_dtype())
