"""Which stacks can compile their steps, and for which members one function can be compiled."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.optim import Optimizer

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.optim.update_rules import has_update_rule
from dlspec.parts.layers.normalization import BatchNorm1d
from dlspec.training.stacking.stacked_layers import ELEMENTWISE
from dlspec.training.stacking.stacked_network import count_calls
from dlspec.training.stacking.training_pass import TrainingPass
from dlspec.training.step.pure_code import PLAIN_TYPES

COMPILE_SECONDS = 12.0  # of a stack's step; measured 5 to 12 s, and 1 to 3 s if the code is on the disk

# Layers whose compiled form is fast with a dimension for the members. Convolutions are not, on a CPU.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, fx.GraphModule)
_FAST_LAYERS = (
    *ELEMENTWISE, nn.Linear, nn.Flatten, nn.Unflatten, nn.LayerNorm, BatchNorm1d, nn.BatchNorm1d, nn.Embedding,
    nn.Softmax, nn.LogSoftmax, nn.Dropout,
)  # fmt: skip


def find_compile_obstacle(network: nn.Module, optimizer: Optimizer | None, batches: BatchLoader) -> str:
    """Return why the steps of a run can't be compiled for a stack, or would be slow; '' if they can be.

    Args:
        network: the network that is trained.
        optimizer: trains it.
        batches: the batches of its training split.
    """
    calls = count_calls(network)
    for name, each in network.named_modules():
        if not isinstance(each, _CONTAINERS) and type(each) not in _FAST_LAYERS:
            return f"{type(each).__name__} has no fast form for several jobs"
        if isinstance(each, nn.Dropout) and (calls[name] != 1 or each.inplace):
            return "a layer of dropout is not called once for each batch"
    if not batches.gathers_by_index:
        return "their batches are gathered before the step"
    if optimizer is None or not has_update_rule(optimizer):
        return f"{type(optimizer).__name__} has no update rule"
    return ""


def have_equal_data(one: TrainingPass, other: TrainingPass) -> bool:
    """Whether two runs train on the same samples."""
    pairs = zip(one.batches.tensors, other.batches.tensors, strict=True)
    return all(mine.data_ptr() == theirs.data_ptr() or torch.equal(mine, theirs) for mine, theirs in pairs)


def describe_step(training_pass: TrainingPass) -> Hashable:
    """Describe what would be constants of the compiled step; equal for members that can share it.

    Numbers of the optimizer are none of them.
    """
    backend, average = training_pass.backend, training_pass.moving_average
    criterion = backend.criterion
    modules = [training_pass.network, *([criterion] if isinstance(criterion, nn.Module) else [])]
    groups = training_pass.optimizer.param_groups
    return (
        tuple(_describe_constants(modules)),
        backend.clipping,
        average and average.decay,
        type(training_pass.optimizer),
        tuple(tuple(sorted(group)) for group in groups),
        training_pass.batches.sizes[0],
    )


def _describe_constants(modules: Sequence[nn.Module]) -> Iterator[Any]:
    for module in modules:
        for each in module.modules():
            skipped = "p" if isinstance(each, nn.Dropout) else None  # only the masks depend on it
            items = ((key, value) for key, value in vars(each).items() if key != skipped)
            yield tuple((key, value) for key, value in items if isinstance(value, PLAIN_TYPES))
    for buffer in (each for module in modules[1:] for each in module.buffers()):
        yield tuple(buffer.flatten().tolist())
