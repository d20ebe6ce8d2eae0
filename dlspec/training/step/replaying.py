"""`trainer.compile: cudagraphs`: a step's kernels are recorded once, and replayed for every batch after it.

Where kernels are short a GPU waits for Python, which calls them one by one. Replayed as a CUDA graph they follow each
other at once, and compute what they did. A graph has fixed shapes and addresses: each shape of a batch has one of its
own, and batches are copied to where it reads them. What Python decides within a step it decides once.

"Whole-network capture" of https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_cuda import end_failed_recording
from dlspec.data.batches.nests import mapped
from dlspec.text import first_line
from dlspec.training.protocols import Targets, total_loss
from dlspec.training.runtime.randomness import random_state, set_random_state
from dlspec.training.step.steps import Inputs, Step

log = logging.getLogger("dlspec")

WARM_UPS = 2
"""Batches of a shape that are trained as always before one is recorded: libraries choose kernels, states are made."""
MOST_GRAPHS = 32
"""Batches of more different shapes are trained as always."""
Shapes = tuple[torch.Size, ...]


class CanNotReplay(Exception):
    """Something in the step would not be the same when it is replayed."""


@dataclass(frozen=True)
class Recorded:
    """A step: where it reads a batch, and where it leaves output and loss."""

    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]
    output: Any
    loss: Tensor

    def __call__(self, *batch: Tensor) -> tuple[Any, Tensor]:
        for mine, theirs in zip(self.batch, batch, strict=True):
            mine.copy_(theirs)
        self.graph.replay()
        return mapped(Tensor.clone, self.output), self.loss.clone()


class ReplayedStep:
    """Training steps of `network` that are recorded when they have run a few times; one that can't be runs as it is.

    Recorded steps read the learning rates on the device, where every change of the optimizer's is copied to.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, device: torch.device) -> None:
        self._network, self._optimizer, self._device = network, optimizer, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None
        self._can_record = True
        self._recorded: dict[Shapes, Recorded] = {}
        self._seen: Counter[Shapes] = Counter()
        self._state: Any = None
        self._settings: Any = None
        self._flags: Any = None
        self._rates: list[float] = []
        self._rates_there = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True  # it counts its steps on the device

    def step(self, plain: Step, look: Callable[[Tensor], None], after_update: Callable[[], None]) -> Step:
        """Does one batch as `plain` does; `look` is shown its loss. To be asked for anew in every epoch."""
        flags: Any = None

        def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
            nonlocal flags
            if flags is None:  # which layers are held in evaluation is known by now
                flags = [each.requires_grad for each in self._network.parameters()]
                flags += [each.training for each in self._network.modules()]
            self._forget_other(flags)
            output, loss = self._done(plain, inputs, targets)
            look(total_loss(loss))
            after_update()
            return output, loss

        return step

    def _forget_other(self, flags: Any) -> None:
        """What was recorded of other settings than the present ones."""
        settings = [
            {name: each for name, each in group.items() if name not in ("params", "lr")}
            for group in self._optimizer.param_groups
        ]
        # Restored optimizers have other tensors, and a new mapping of them.
        if self._state is not self._optimizer.state or settings != self._settings or flags != self._flags:
            self._recorded.clear()
            self._seen.clear()
            self._pool = torch.cuda.graph_pool_handle()  # gradients may lie in the other one
            self._state, self._settings, self._flags = self._optimizer.state, settings, flags

    def _done(self, plain: Step, inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        batch = (*inputs, *targets)
        shapes = tuple(each.shape for each in batch)
        recorded = self._recorded.get(shapes) or self._record(plain, inputs, targets, shapes)
        if recorded is None:
            with self._aside():
                return plain(inputs, targets)
        self._copy_rates()
        return recorded(*batch)

    def _record(self, plain: Step, inputs: Inputs, targets: Targets, shapes: Shapes) -> Recorded | None:
        """The step, which has not run then; None where it is not to be recorded."""
        self._seen[shapes] += 1
        if not self._can_record or self._seen[shapes] <= WARM_UPS or len(self._recorded) == MOST_GRAPHS:
            return None
        copies, count = [each.clone() for each in (*inputs, *targets)], len(inputs)
        torch.cuda.synchronize(self._device)
        try:
            self._demand_state_on_device()
            with self._aside(), _drawing_nothing(), _collecting_nothing(), self._rates_on_device():
                graph, (output, loss) = self._captured(plain, tuple(copies[:count]), tuple(copies[count:]))
        except Exception as error:  # whatever PyTorch says
            reason = first_line(error) or type(error).__name__
            log.warning("trainer.compile: the step can't be recorded and runs as it is: %s", reason)
            self._can_record = False
            self._recorded.clear()
            return None
        self._recorded[shapes] = Recorded(graph, tuple(copies), output, loss)
        return self._recorded[shapes]

    def _captured(self, plain: Step, inputs: Inputs, targets: Targets) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph, drawn = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state(self._device)
        try:
            graph.capture_begin(self._pool, capture_error_mode="thread_local")  # other threads write checkpoints
            given = plain(inputs, targets)
            graph.capture_end()
        except Exception:
            self._give_up(graph, drawn)
            raise
        return graph, given

    def _give_up(self, graph: torch.cuda.CUDAGraph, drawn: Tensor) -> None:
        """Leaves the device as it was; PyTorch leaves its generator as if something were still being recorded."""
        end_failed_recording(graph, self._pool)
        usable = torch.Generator(self._device)
        usable.set_state(drawn)
        with torch.cuda.device(self._device):
            own = torch.cuda.default_generators[torch.cuda.current_device()]
        own.graphsafe_set_state(usable.graphsafe_get_state())

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On a stream of its own: nothing can be recorded on the usual one, and backward passes keep to their first."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            yield
        usual.wait_stream(self._stream)

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, there in zip(groups, self._rates_there, strict=True):
            group["lr"] = there
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def _copy_rates(self) -> None:
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if rates != self._rates:
            for there, rate in zip(self._rates_there, rates, strict=True):
                there.fill_(rate)
            self._rates = rates

    def _demand_state_on_device(self) -> None:
        """A number that an optimizer keeps elsewhere would stay as it was."""
        for each in (each for own in self._optimizer.state.values() for each in own.values()):
            if each is not None and not (isinstance(each, Tensor) and each.is_cuda):
                raise CanNotReplay(f"{type(self._optimizer).__name__} keeps numbers that are not on the GPU")


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """A recorded step that is thrown away while another one is being recorded would end that."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _drawing_nothing() -> Iterator[None]:
    """What is drawn on the host within it would be drawn once and for all: raises CanNotReplay, as if none had been."""
    host = torch.device("cpu")
    before = random_state(host)
    yield
    if mapped(Tensor.tolist, random_state(host)) != mapped(Tensor.tolist, before):
        set_random_state(before, host)
        raise CanNotReplay("it draws random numbers on the host")
