"""A training step as a function of tensors: forward pass, loss, gradients and update.

Weights, buffers, the optimizer's state and its numbers (learning rates, momenta) are arguments, and new weights,
buffers and states are returned. So steps can follow each other within one compiled function, and other learning rates
compile nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from dlspec.optim.update_rules import Numbers, RuleState, UpdateRule
from dlspec.training.criterion_interface import CriterionProtocol, Targets, total_loss
from dlspec.training.step.precision import Precision, widen_to_float32
from dlspec.training.step.step_functions import GradientClipping, Inputs, TermWeights

TensorsByName = dict[str, Tensor]
StepResult = tuple[Any, Tensor]  # a batch's output and its loss, as the criterion returns it


class StepTensors(NamedTuple):
    """The tensors that a step changes, by the names of the network's parameters and buffers."""

    weights: TensorsByName  # that are trained
    buffers: TensorsByName
    states: dict[str, RuleState]  # the optimizer's state of each of the weights
    averages: TensorsByName  # moving averages of weights and running statistics


@dataclass(frozen=True)
class FunctionalStep:
    """Forward pass, loss, gradients and update, without changing any tensor in place."""

    network: nn.Module
    criterion: CriterionProtocol
    clipping: GradientClipping
    precision: Precision
    # How each of the weights is updated, and the index of its parameter group. The others are not updated.
    rules: Mapping[str, tuple[UpdateRule, int]]
    decay: float = 0.0  # of the moving averages

    def __call__(
        self,
        tensors: StepTensors,
        frozen: TensorsByName,
        numbers: Sequence[Numbers],
        batches: Sequence[tuple[Inputs, Targets]],
    ) -> tuple[StepTensors, list[StepResult]]:
        """Make one update with the mean gradient of some batches of equal size.

        Args:
            tensors: what the step changes.
            frozen: the parameters that are not trained.
            numbers: the numbers of each parameter group, such as its learning rate.
            batches: inputs and targets of each batch.

        Returns:
            The changed tensors, and the output and the loss of each batch.
        """
        gradients, buffers, results = self._accumulate_gradients(tensors, frozen, batches)
        clipped = dict(zip(gradients, self.clipping.clip_tensors(list(gradients.values())), strict=True))
        weights, states = dict(tensors.weights), dict(tensors.states)
        for name, (rule, group) in self.rules.items():
            weights[name], states[name] = rule.update(weights[name], clipped[name], states[name], numbers[group])
        values = {**weights, **buffers}
        averages = {name: torch.lerp(each, values[name], 1 - self.decay) for name, each in tensors.averages.items()}
        return StepTensors(weights, buffers, states, averages), results

    def _accumulate_gradients(
        self, tensors: StepTensors, frozen: TensorsByName, batches: Sequence[tuple[Inputs, Targets]]
    ) -> tuple[TensorsByName, TensorsByName, list[StepResult]]:
        buffers = tensors.buffers
        gradients: TensorsByName = {}
        results: list[StepResult] = []
        for (inputs, targets), weights in zip(batches, self._weigh_batches(batches), strict=True):
            found, (_, (output, loss, buffers)) = grad_and_value(self._compute_loss, has_aux=True)(
                tensors.weights,
                {name: each.clone() for name, each in buffers.items()},
                frozen,
                inputs,
                targets,
                weights,
            )
            gradients = {name: gradients[name] + each if gradients else each for name, each in found.items()}
            results.append((output, loss))
        return gradients, buffers, results

    def _weigh_batches(self, batches: Sequence[tuple[Inputs, Targets]]) -> Sequence[TermWeights | float]:
        """Compute each batch's weight in the update, as `compute_batch_weights` does."""
        if len(batches) == 1:
            return [1.0]
        weights = [self.criterion.weigh(targets) for _, targets in batches]
        sums = [each.sum(0) for each in weights if each is not None]
        if len(sums) < len(batches):
            return [1 / len(batches)] * len(batches)
        return [TermWeights(each, sum(sums[1:], sums[0])) for each in sums]

    def _compute_loss(
        self,
        weights: TensorsByName,
        buffers: TensorsByName,
        frozen: TensorsByName,
        inputs: Inputs,
        targets: Targets,
        batch_weight: TermWeights | float,
    ) -> tuple[Tensor, tuple[Any, Tensor, TensorsByName]]:
        with self.precision.autocast():
            output = functional_call(self.network, {**weights, **frozen, **buffers}, inputs)
        output = widen_to_float32(output)
        if isinstance(batch_weight, TermWeights):
            part, loss = self.criterion.accumulate(output, targets, batch_weight.batch, batch_weight.update)
        else:
            loss = self.criterion(output, targets)
            part = total_loss(loss) * batch_weight
        return part, (output, loss, buffers)
