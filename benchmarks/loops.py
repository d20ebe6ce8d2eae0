"""Training loops by hand: a tutorial's, and the best eager and the best compiled one that we can write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns
from works import SEED, Loss, Task

from dlspec.training.batches import permutation
from dlspec.training.resources import allocator

Step = Callable[[Tensor, Tensor], Tensor]
"""Trains on a batch and gives its loss, detached."""


def naive(task: Task, turns: Turns) -> None:
    """What a tutorial shows: a DataLoader, Adam as it is, the loss read at every step."""
    network, inputs, targets = task.start()
    optimizer = torch.optim.Adam(network.parameters())
    samples, mean = TensorDataset(inputs, targets), math.nan
    for epoch in count(1):
        turns.next(mean)
        order = permutation(len(targets), SEED, epoch).tolist()
        total = 0.0
        for batch, target in DataLoader(samples, batch_size=task.work.batch_size, sampler=order):
            optimizer.zero_grad()
            loss = task.work.loss(network(batch), target)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
        mean = total / len(targets)


def eager(task: Task, turns: Turns) -> None:
    """Whole tensors, gathered batches, fused Adam, nothing read within an epoch, freed memory kept."""
    network, inputs, targets = task.start()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def step(batch: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = task.work.loss(network(batch), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    _train(task, turns, inputs, targets, step, step)


def compiled(task: Task, turns: Turns) -> None:
    """The same, its whole step compiled as one graph: forward, loss, gradients and update."""
    network, inputs, targets = task.start()
    step = whole_step(network, task.work.loss)
    # Convolutions in channels-last, which it would choose, are slower on a CPU.
    _train(task, turns, inputs, targets, torch.compile(step, options={"layout_optimization": False}), step)


def whole_step(network: nn.Module, loss: Loss) -> Step:
    """A step without autograd's tape, for `torch.compile`."""
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    weights, buffers = dict(network.named_parameters()), dict(network.named_buffers())

    def loss_of(
        weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Tensor, target: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        return loss(functional_call(network, {**weights, **buffers}, batch), target), buffers

    def step(batch: Tensor, target: Tensor) -> Tensor:
        own = {name: each.detach() for name, each in weights.items()}
        moved = {name: each.clone() for name, each in buffers.items()}
        gradients, (value, moved) = grad_and_value(loss_of, has_aux=True)(own, moved, batch, target)
        for name, each in buffers.items():
            each.copy_(moved[name])
        for name, parameter in weights.items():
            parameter.grad = gradients[name]
        optimizer.step()
        return value

    return step


def _train(task: Task, turns: Turns, inputs: Tensor, targets: Tensor, step: Step, smaller: Step) -> None:
    """Epoch after epoch; `smaller` does an epoch's last batch where it has fewer samples."""
    mean = math.nan
    with allocator("keep", torch.device("cpu"), 0):
        for epoch in count(1):
            turns.next(mean)
            total = torch.zeros(())
            for rows in permutation(len(targets), SEED, epoch).split(task.work.batch_size):  # dlspec's order
                train = step if len(rows) == task.work.batch_size else smaller
                total += train(inputs.index_select(0, rows), targets.index_select(0, rows)) * len(rows)
            mean = total.item() / len(targets)
