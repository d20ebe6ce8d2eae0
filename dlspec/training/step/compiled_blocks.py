"""Several training steps in one call of a compiled function, which gathers the batches itself.

A short step spends most of its time in Python. A compiled function that makes eight steps of an MLP 64-128-10 was
measured 4 times as fast as the best eager loop, where a compiled function for each step is 2 to 3 times as fast.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlspec.compat.torch_inductor import keep_addresses
from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.batches.tensor_tree import iterate_tensors
from dlspec.formatting import first_line, format_duration
from dlspec.network.random_state import preserve_random_state
from dlspec.optim.update_rules import RuleState, UpdateRule, find_update_rule, read_numbers
from dlspec.optim.weight_averages import MovingAverage
from dlspec.training.step.block_function import BlockFunction, BlockResult, BlockSize, FlatFunction
from dlspec.training.step.functional_step import FunctionalStep, StepTensors, TensorsByName
from dlspec.training.step.pure_code import require_pure_code

log = logging.getLogger("dlspec")

# The numbers of one update: those of each parameter group, in the order of `BlockFunction.names`, and loss factors.
StepNumbers = Sequence[float]


class CompiledBlocks:
    """Runs blocks of training steps. If compiling fails it logs a warning, and `can_run` is False from then on.

    The optimizer's state must exist, so the first update runs eagerly. Frozen parameters and modes of layers are
    constants of the compiled code: with others it is compiled again.

    Args:
        step: the step to repeat; its rules and the decay of its averages are replaced.
        optimizer: an optimizer with an update rule.
        average: the moving average to update after each step.
        batches: the batches of the training split, which `gathers_by_index`.
        size: the number of steps of a call, and their batches.

    Raises:
        NoUpdateRule: the optimizer has no update rule.
    """

    def __init__(
        self,
        step: FunctionalStep,
        optimizer: Optimizer,
        average: MovingAverage | None,
        batches: BatchLoader,
        size: BlockSize,
    ) -> None:
        self.size = size
        self._step, self._network, self._optimizer, self._average = step, step.network, optimizer, average
        self._split, self._num_inputs, self._device = batches.tensors, batches.input_count, step.precision.device
        groups = optimizer.param_groups
        self._rules = [find_update_rule(optimizer, [group]) for group in groups]
        self._names = [tuple(read_numbers(group)) for group in groups]
        self._numbers: tuple[Sequence[StepNumbers], Tensor] | None = None
        self._functions: dict[Any, FlatFunction] = {}
        self._function: FlatFunction | None = None  # of this epoch
        self._tensors: Sequence[Tensor] = ()  # its arguments that stay the same in an epoch
        self._has_failed = False

    def start_epoch(self) -> None:
        """Forget the tensors of the last epoch: a restored optimizer has others, and layers may have been unfrozen."""
        self._function, self._tensors = None, ()

    def read_numbers(self) -> StepNumbers:
        """Read the numbers of the next update: the optimizer's, and the factors of multiple loss terms."""
        numbers = [number for group in self._optimizer.param_groups for number in read_numbers(group).values()]
        factors = self._step.criterion.factors
        # Accumulated losses are weighted by factors that are constants.
        return [*numbers, *factors] if len(factors) > 1 and self.size.accumulate == 1 else numbers

    def can_run(self, *, is_first_update: bool) -> bool:
        """Return whether the next steps can be a block; compile the function if this is the first.

        Args:
            is_first_update: whether this is the first update of the epoch. It may create the optimizer's state.
        """
        if self._has_failed or (self._average is not None and not self._average.has_values):
            return False
        if self._function is None:
            tensors, frozen, is_complete = self._collect_tensors()
            if is_first_update and not is_complete:
                return False
            self._function = self._find_function(tensors, frozen)
            self._tensors = list(iterate_tensors((tensors, frozen, self._split)))
        return self._function is not None

    def __call__(self, rows: Tensor, numbers: Sequence[StepNumbers]) -> BlockResult:
        """Make the steps of a block. `can_run` must have returned True.

        Args:
            rows: the samples of the block's batches, (batches * batch size,).
            numbers: the optimizer's numbers at each step.
        """
        assert self._function is not None
        result = self._function(self._make_number_tensor(numbers), rows, self._tensors)
        if self._average is not None:
            self._average.count_updates(self.size.steps)
        return result

    def _make_number_tensor(self, numbers: Sequence[StepNumbers]) -> Tensor:
        if self._numbers is None or self._numbers[0] != numbers:
            self._numbers = numbers, torch.tensor(numbers, dtype=torch.float64, device=self._device)
        return self._numbers[1]

    def _find_function(self, tensors: StepTensors, frozen: TensorsByName) -> FlatFunction | None:
        """Find the function for the weights that are trained now and the modes of the layers, or compile one."""
        key = (tuple(tensors.states), tuple(each.training for each in self._network.modules()))
        if key not in self._functions:
            decay = self._average.decay if self._average else 0.0
            step = replace(self._step, rules=self._find_rules(tensors.states), decay=decay)
            block = BlockFunction(step, self.size, self._names, self._num_inputs)
            function = FlatFunction(block, (tensors, frozen, self._split))
            if not self._compile(function):
                return None
            self._functions[key] = function
        return self._functions[key]

    def _compile(self, function: FlatFunction) -> bool:
        """Compile a function. If that fails, log a warning and return False."""
        size, started = self.size, time.perf_counter()
        log.warning("compiling the training step%s ...", "" if size.steps == 1 else f", {size.steps} steps a call")
        rows = torch.zeros(size.batches * size.batch_size, dtype=torch.int64, device=self._device)
        numbers = self._make_number_tensor([self.read_numbers()] * size.steps)
        try:
            with preserve_random_state(self._device), require_pure_code(self._network, self._step.criterion):
                function.compile(numbers, rows, _choose_options(self._device))
        except Exception as error:  # PyTorch raises many types here
            reason = first_line(error) or type(error).__name__
            log.warning("trainer.compile: the step can't be compiled and runs eagerly: %s", reason)
            log.debug("the compiler says:", exc_info=True)
            self._has_failed = True
            return False
        log.warning("compiled the training step in %s", format_duration(time.perf_counter() - started))
        return True

    def _find_rules(self, names: Mapping[str, Any]) -> dict[str, tuple[UpdateRule, int]]:
        parameters = dict(self._network.named_parameters())
        groups = self._find_groups()
        return {name: (self._rules[groups[parameters[name]]], groups[parameters[name]]) for name in names}

    def _find_groups(self) -> dict[Tensor, int]:
        return {each: index for index, group in enumerate(self._optimizer.param_groups) for each in group["params"]}

    def _collect_tensors(self) -> tuple[StepTensors, TensorsByName, bool]:
        """Collect what a step changes, the frozen parameters, and whether all weights have a state.

        After the first update, weights without a state are those that the loss does not depend on.
        """
        groups, is_complete = self._find_groups(), True
        weights: TensorsByName = {}
        frozen: TensorsByName = {}
        states: dict[str, RuleState] = {}
        for name, parameter in self._network.named_parameters():
            group = groups.get(parameter) if parameter.requires_grad else None
            state = None if group is None else self._read_state(parameter, self._rules[group])
            if state is None:
                frozen[name] = parameter.detach()
                is_complete = is_complete and group is None
            else:
                weights[name], states[name] = parameter.detach(), state
        tensors = StepTensors(weights, dict(self._network.named_buffers()), states, self._collect_averages(weights))
        if self._device.type == "cuda":
            keep_addresses(iterate_tensors(tuple(tensors)))
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


def _choose_options(device: torch.device) -> dict[str, Any]:
    """Choose Inductor's options: on a CPU a wrapper in C++, on CUDA recorded graphs."""
    # Channels-last convolutions are slower on a CPU: measured 0.4 times the speed at batch size 32.
    options: dict[str, Any] = {"layout_optimization": False}
    if device.type == "cuda":
        return options | {"triton.cudagraphs": True}
    # The threshold makes the code compute the powers of Adam's betas once, not for each weight: on the MLP 64-128-10,
    # the speed rose from 4.8 to 7.0 times that of the best eager loop.
    return options | ({"cpp_wrapper": True, "realize_opcount_threshold": 4} if device.type == "cpu" else {})
