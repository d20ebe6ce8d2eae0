"""Hand-written training loops: one as in a tutorial, and the fastest we can write: eager, compiled, CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from itertools import count

import torch
from roofline import floor
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns
from works import SEED, Loss, Task

from dlspec.data.batches.batch_loader import make_permutation
from dlspec.training.runtime.resources import use_allocator

Step = Callable[[Tensor, Tensor], Tensor]
"""Trains on a batch and returns its loss, detached."""


def naive(task: Task, turns: Turns) -> None:
    """Train as in a tutorial: a DataLoader, Adam with its defaults, the loss read at every step."""
    network, inputs, targets = task.start()
    network.to(task.device)
    optimizer = torch.optim.Adam(network.parameters())
    samples, mean = TensorDataset(inputs, targets), math.nan
    for epoch in count(1):
        turns.next(mean)
        order = make_permutation(len(targets), SEED, epoch).tolist()
        total = 0.0
        for batch, target in DataLoader(samples, batch_size=task.work.batch_size, sampler=order):
            optimizer.zero_grad()
            loss = task.work.loss(network(batch.to(task.device)), target.to(task.device))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
        mean = total / len(targets)


def eager(task: Task, turns: Turns) -> None:
    """Train with all data on the device, `index_select`, fused Adam, no value read in an epoch, freed memory kept."""
    network, inputs, targets = _placed(task)
    rows = task.work.batch_size
    if task.device == "cuda":
        copy = deepcopy(network).to("cpu").to("cuda")  # makes a recurrent layer's weights contiguous
        trial = eager_step(copy, task.work.loss, _fused(copy))
        turns.floor = floor(partial(trial, inputs[:rows], targets[:rows])) / rows
    step = eager_step(network, task.work.loss, _fused(network))
    _train(task, turns, inputs, targets, step, step)


def eager_step(network: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Step:
    def step(batch: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(network(batch), target)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def _fused(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), fused=True)


def replayed(task: Task, turns: Turns) -> None:
    """Like `eager`, with the step recorded as a CUDA graph. The last, smaller batch of an epoch runs without it."""
    network, inputs, targets = _placed(task)
    rows, optimizer = task.work.batch_size, torch.optim.Adam(network.parameters(), fused=True, capturable=True)
    step = eager_step(network, task.work.loss, optimizer)
    batch, target = inputs[:rows].clone(), targets[:rows].clone()
    start, own = deepcopy(network.state_dict()), torch.cuda.Stream()
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        for _ in range(3):
            step(batch, target)
    torch.cuda.current_stream().wait_stream(own)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(batch, target)
    network.load_state_dict(start)  # undo the warm-up steps
    for each in (each for state in optimizer.state.values() for each in state.values()):
        each.zero_()

    def again(new: Tensor, its: Tensor) -> Tensor:
        batch.copy_(new)
        target.copy_(its)
        graph.replay()
        return loss.clone()

    _train(task, turns, inputs, targets, again, step)


def compiled(task: Task, turns: Turns) -> None:
    """Like `eager`, with the whole step compiled as one graph: forward, loss, gradients and update."""
    network, inputs, targets = _placed(task)
    step = whole_step(network, task.work.loss)
    # The compiler would choose channels-last convolutions, which are slower on a CPU.
    _train(task, turns, inputs, targets, torch.compile(step, options={"layout_optimization": False}), step)


def whole_step(network: nn.Module, loss: Loss) -> Step:
    """Build a step without autograd's graph, for `torch.compile`."""
    optimizer = _fused(network)
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


def _placed(task: Task) -> tuple[nn.Module, Tensor, Tensor]:
    network, inputs, targets = task.start()
    return network.to(task.device), inputs.to(task.device), targets.to(task.device)


def _train(task: Task, turns: Turns, inputs: Tensor, targets: Tensor, step: Step, smaller: Step) -> None:
    """Train epoch after epoch. `smaller` is the step for the last batch of an epoch, if it has fewer samples."""
    mean, device = math.nan, torch.device(task.device)
    with use_allocator("keep", device, 0):
        for epoch in count(1):
            turns.next(mean)
            total = torch.zeros((), device=device)
            order = make_permutation(len(targets), SEED, epoch)  # dlspec's
            for rows in order.to(device).split(task.work.batch_size):
                train = step if len(rows) == task.work.batch_size else smaller
                total += train(inputs.index_select(0, rows), targets.index_select(0, rows)) * len(rows)
            mean = total.item() / len(targets)
