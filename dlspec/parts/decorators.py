"""Decorators with which a user's module adds parts of its own; `imports: [my_package.layers]` names the module.

    @dlspec.layer
    class Scale(nn.Module):
        def __init__(self, in_features: int, start: float = 1.0) -> None: ...

The settings are the constructor's arguments, checked by their hints; names that PyTorch's layers use for what comes in
(`in_features`, `in_channels`, `num_features`, ...) are inferred.
"""

from __future__ import annotations

from typing import TypeVar

from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

C = TypeVar("C", bound=type)


def layer(cls: C) -> C:
    """Registers an `nn.Module` as a layer under its class's name. ValueError where the name is taken.

    A class that is defined anew replaces itself. `forward`'s positional arguments are the inputs that `from` names, in
    order or by their names; it gives a tensor with a row for each sample, or a tuple of such, whose first flows on and
    whose others are `NAME.1` and so on. Class attributes say more, where there is more to say:

    - `keeps_lengths = True` promises that padding changes no output of a sample: steps come out as they went in, each
      by what stands in the sample alone, or the steps end in one row a sample. Without it a layer may do anything, so
      that all batches keep full length and the layers behind it see no lengths.
    - `lengths_of = {"lengths": 0}`: `forward(x, lengths=None)` is given those of input 0, int64 of shape (N,), where
      samples have some. `lengths_of = {"lengths": 0, "memory_lengths": 1}` says the same of several inputs, by
      their places. Where a layer before it has lost them, it is refused, unless its `needs_lengths` is false.
    - `output_names = ("sequence", "last")` names the outputs. Those that a spec refers to stand in `self.wanted`, the
      first of all before them: where it is one, `forward` gives it alone, else a tuple in that order.
    - `inline = True`: `forward` has no parameters and asks no tensor for its values or its length, so that its
      operations are written into the network's own `forward`.
    - `rule = Rule(...)`, of `dlspec.parts.layers.rule`, says which layouts it takes and gives, and checks its inputs.
    """
    return LAYERS.register(cls)


def loss(cls: C) -> C:
    """Registers an `nn.Module` as a loss: `forward(output, target)` gives the batch's mean, a scalar.

    Classes come one-hot, as floats of the output's shape (or 0.0 and 1.0 where a network has one output for two); with
    the class attribute `takes_class_numbers = True` as int64 of shape (N,). A method `predict(output)` makes the
    network's output probabilities, where they are not.
    """
    return LOSSES.register(cls)


def optimizer(cls: C) -> C:
    """Registers a `torch.optim.Optimizer`."""
    return OPTIMIZERS.register(cls)


def scheduler(cls: C) -> C:
    """Registers a `torch.optim.lr_scheduler.LRScheduler`."""
    return SCHEDULERS.register(cls)
