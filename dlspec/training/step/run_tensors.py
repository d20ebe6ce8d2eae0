"""The tensors and numbers of a run that its training step takes as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.optim.update_rules import RuleState, UpdateRule, find_update_rule, read_numbers
from dlspec.optim.weight_averages import MovingAverage
from dlspec.training.step.functional_step import StepTensors, TensorsByName


class RunTensors:
    """Collects what a training step changes, and what it reads.

    Args:
        network: the network that is trained.
        optimizer: an optimizer with an update rule.
        average: the moving average to update after each step.

    Raises:
        NoUpdateRule: the optimizer has no update rule.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, average: MovingAverage | None) -> None:
        self._network, self._optimizer, self._average = network, optimizer, average
        groups = optimizer.param_groups
        self.rules = [find_update_rule(optimizer, [group]) for group in groups]
        self.number_names = [tuple(read_numbers(group)) for group in groups]

    def read_numbers(self) -> list[float]:
        """Read the optimizer's numbers of the next update, in the order of `number_names`."""
        return [number for group in self._optimizer.param_groups for number in read_numbers(group).values()]

    def find_rules(self, names: Mapping[str, Any]) -> dict[str, tuple[UpdateRule, int]]:
        """Find the rule and the index of the parameter group of each of these weights."""
        parameters = dict(self._network.named_parameters())
        groups = self._find_groups()
        return {name: (self.rules[groups[parameters[name]]], groups[parameters[name]]) for name in names}

    def _find_groups(self) -> dict[Tensor, int]:
        return {each: index for index, group in enumerate(self._optimizer.param_groups) for each in group["params"]}

    def collect(self) -> tuple[StepTensors, TensorsByName, bool]:
        """Collect what a step changes, the frozen parameters, and whether all weights have a state.

        After the first update, weights without a state are those that the loss does not depend on.
        """
        groups, is_complete = self._find_groups(), True
        weights: TensorsByName = {}
        frozen: TensorsByName = {}
        states: dict[str, RuleState] = {}
        for name, parameter in self._network.named_parameters():
            group = groups.get(parameter) if parameter.requires_grad else None
            state = None if group is None else self._read_state(parameter, self.rules[group])
            if state is None:
                frozen[name] = parameter
                is_complete = is_complete and group is None
            else:
                weights[name], states[name] = parameter, state
        tensors = StepTensors(weights, dict(self._network.named_buffers()), states, self._collect_averages(weights))
        return tensors, frozen, is_complete

    def _read_state(self, parameter: Tensor, rule: UpdateRule) -> RuleState | None:
        """Read the optimizer's state of a parameter; None if it is still to be created."""
        state = self._optimizer.state.get(parameter, {})
        # SGD and RMSprop without momentum do not count steps; only dampening depends on it, and not after the first.
        found = {name: state.get(name, torch.ones(()) if name == "step" else None) for name in rule.state_names}
        return None if any(each is None for each in found.values()) else found

    def _collect_averages(self, weights: TensorsByName) -> TensorsByName:
        if self._average is None:
            return {}
        averages = {id(value): average for average, value in self._average.list_pairs()}
        named = {**dict(self._network.named_parameters()), **dict(self._network.named_buffers())}
        is_changed = {*weights, *dict(self._network.named_buffers())}
        return {name: averages[id(each)] for name, each in named.items() if id(each) in averages and name in is_changed}
