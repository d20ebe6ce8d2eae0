"""Decorators that register a user's own classes as parts. List the module under `imports: [my_package.layers]`.

    @dlspec.layer
    class Scale(nn.Module):
        def __init__(self, in_features: int, start: float = 1.0) -> None: ...

The constructor's arguments become the part's settings, checked against their type hints. Arguments with the names that
PyTorch's layers use for input sizes (`in_features`, `in_channels`, `num_features`, ...) are inferred from the input.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn, optim

from dlspec.parts.own_classes import check_own_class, check_own_layer, check_own_loss
from dlspec.parts.specs.loss_spec import LOSS_KEYS
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

C = TypeVar("C", bound=type)


def layer(cls: C) -> C:
    """Register an `nn.Module` as a layer under its class's name.

    A class that is defined again, as in a notebook, replaces its earlier version. `forward`'s positional arguments are
    the inputs that `from` names, in order or by name. It returns a tensor whose first dimension is the batch, or a
    tuple of them: the first is the input of the next layer, the others are available as `NAME.1`, `NAME.2`, ...

    Optional class attributes describe the layer further:

    - `keeps_lengths = True` promises that padding does not change a sample's output: either each output step depends
      only on real steps of its own sample, or the steps are reduced to one vector per sample. Without it, batches are
      always padded to full length and the layers after it get no lengths.
    - `lengths_of = {"lengths": 0}` passes the lengths of input 0 to `forward(x, lengths=None)`, as int64 of shape (N,),
      if the samples have lengths. `{"lengths": 0, "memory_lengths": 1}` does the same for two inputs by their position.
      If an earlier layer has lost the lengths, the layer is refused, unless its `needs_lengths` is false.
    - `output_names = ("sequence", "last")` names the outputs. `self.wanted` lists the outputs that the spec refers to,
      after the first output, which is always listed. `forward` returns the output itself if there is only one, else a
      tuple in that order.
    - `inline = True` writes the operations of `forward` into the network's own `forward`. Only for layers without
      parameters whose `forward` does not depend on a tensor's values or length.
    - `rule = Rule(...)`, from `dlspec.parts.layers.rule`, declares the input and output layouts and checks the inputs.

    Raises:
        TypeError: it is not such a class, or an argument of its constructor has the name of an entry's key.
        ValueError: another layer has this name.
    """
    check_own_layer(cls, nn.Module)
    return LAYERS.register(cls)


def loss(cls: C) -> C:
    """Register an `nn.Module` as a loss: `forward(output, target)` returns the mean over the batch, a scalar.

    Class targets are one-hot floats of the output's shape (or 0.0 and 1.0 if the network has a single output for two
    classes). With the class attribute `takes_class_numbers = True` they are int64 of shape (N,). Define a method
    `predict(output)` that returns probabilities if the network's output is something else, such as logits.
    """
    check_own_loss(cls, nn.Module, LOSS_KEYS)
    return LOSSES.register(cls)


def optimizer(cls: C) -> C:
    """Register a `torch.optim.Optimizer` under its class's name."""
    check_own_class(cls, optim.Optimizer, "optimizer")
    return OPTIMIZERS.register(cls)


def scheduler(cls: C) -> C:
    """Register a `torch.optim.lr_scheduler.LRScheduler` under its class's name."""
    check_own_class(cls, optim.lr_scheduler.LRScheduler, "scheduler")
    return SCHEDULERS.register(cls)
