"""Decorators with which a user's module adds parts of its own; `imports: [my_package.layers]` names the module.

    @dlspec.layer
    class Scale(nn.Module):
        def __init__(self, in_features: int, start: float = 1.0) -> None: ...

The settings are the constructor's arguments, checked by their hints; names that PyTorch's layers use for what comes in
(`in_features`, `in_channels`, `num_features`, ...) are inferred.
"""

from __future__ import annotations

from typing import TypeVar

from dlspec.registry.registry import Registry
from dlspec.registry.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

C = TypeVar("C", bound=type)


def layer(cls: C) -> C:
    """Registers an `nn.Module` as a layer under its class's name. ValueError where the name is taken.

    A class that is defined anew replaces itself. Where samples have lengths of their own, two class attributes say how
    the layer treats the padding behind them; without them it may do anything, so that all batches keep full length and
    the layers behind it see no lengths. With `takes_lengths = True` `forward(x, lengths=None)` is given them, int64 of
    shape (N,). `keeps_lengths = True` promises that padding changes no output of a sample: steps come out as they went
    in, each by what stands in the sample alone, or the steps end in one row a sample.
    """
    return _register(LAYERS, cls)


def loss(cls: C) -> C:
    """Registers an `nn.Module` as a loss: `forward(output, target)` gives the batch's mean, a scalar.

    Classes come one-hot, as floats of the output's shape (or 0.0 and 1.0 where a network has one output for two); with
    the class attribute `takes_class_numbers = True` as int64 of shape (N,). A method `predict(output)` makes the
    network's output probabilities, where they are not.
    """
    return _register(LOSSES, cls)


def optimizer(cls: C) -> C:
    """Registers a `torch.optim.Optimizer`."""
    return _register(OPTIMIZERS, cls)


def scheduler(cls: C) -> C:
    """Registers a `torch.optim.lr_scheduler.LRScheduler`."""
    return _register(SCHEDULERS, cls)


def _register(registry: Registry, cls: C) -> C:
    registry.register(cls)
    return cls
