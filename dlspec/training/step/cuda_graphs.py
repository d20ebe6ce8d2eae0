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
from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.formatting import first_line
from dlspec.training.criterion_interface import Targets, total_loss
from dlspec.training.runtime.randomness import get_random_state, set_random_state
from dlspec.training.step.step_functions import Inputs, Step

log = logging.getLogger("dlspec")

WARM_UP_STEPS = 2
"""Batches of a shape that are trained as always before one is recorded: libraries choose kernels, states are made."""
MAX_GRAPHS = 32
"""Batches of more different shapes are trained as always."""
Shapes = tuple[torch.Size, ...]


class CannotRecord(Exception):
    """Something in the step would not be the same when it is replayed."""


@dataclass(frozen=True)
class RecordedStep:
    """A step: where it reads a batch, and where it leaves output and loss."""

    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]
    output: Any
    loss: Tensor

    def __call__(self, *batch: Tensor) -> tuple[Any, Tensor]:
        for recorded_tensor, new_tensor in zip(self.batch, batch, strict=True):
            recorded_tensor.copy_(new_tensor)
        self.graph.replay()
        return map_tensors(Tensor.clone, self.output), self.loss.clone()


class CudaGraphStep:
    """Training steps of `network` that are recorded when they have run a few times; one that can't be runs as it is.

    Recorded steps read the learning rates on the device, where every change of the optimizer's is copied to.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, device: torch.device) -> None:
        self._network, self._optimizer, self._device = network, optimizer, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None
        self._can_record = True
        self._recorded: dict[Shapes, RecordedStep] = {}
        self._seen: Counter[Shapes] = Counter()
        self._state: Any = None
        self._settings: Any = None
        self._flags: Any = None
        self._copied_rates: list[float] = []
        self._device_rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True  # it counts its steps on the device

    def make_step(
        self, eager_step: Step, check_loss: Callable[[Tensor], None], after_update: Callable[[], None]
    ) -> Step:
        """Does one batch as `plain` does; `look` is shown its loss. To be asked for anew in every epoch."""
        flags: Any = None

        def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
            nonlocal flags
            if flags is None:  # which layers are held in evaluation is known by now
                flags = [each.requires_grad for each in self._network.parameters()]
                flags += [each.training for each in self._network.modules()]
            self._discard_outdated_graphs(flags)
            output, loss = self._run_step(eager_step, inputs, targets)
            check_loss(total_loss(loss))
            after_update()
            return output, loss

        return step

    def _discard_outdated_graphs(self, flags: Any) -> None:
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

    def _run_step(self, eager_step: Step, inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        batch = (*inputs, *targets)
        shapes = tuple(each.shape for each in batch)
        recorded = self._recorded.get(shapes) or self._record(eager_step, inputs, targets, shapes)
        if recorded is None:
            with self._on_side_stream():
                return eager_step(inputs, targets)
        self._copy_rates()
        return recorded(*batch)

    def _record(self, eager_step: Step, inputs: Inputs, targets: Targets, shapes: Shapes) -> RecordedStep | None:
        """The step, which has not run then; None where it is not to be recorded."""
        self._seen[shapes] += 1
        if not self._can_record or self._seen[shapes] <= WARM_UP_STEPS or len(self._recorded) == MAX_GRAPHS:
            return None
        copies, count = [each.clone() for each in (*inputs, *targets)], len(inputs)
        torch.cuda.synchronize(self._device)
        try:
            self._check_state_on_device()
            with (
                self._on_side_stream(),
                _forbid_host_random_numbers(),
                _pause_garbage_collection(),
                self._use_device_rates(),
            ):
                graph, (output, loss) = self._capture(eager_step, tuple(copies[:count]), tuple(copies[count:]))
        except Exception as error:  # whatever PyTorch says
            reason = first_line(error) or type(error).__name__
            log.warning("trainer.compile: the step can't be recorded and runs as it is: %s", reason)
            self._can_record = False
            self._recorded.clear()
            return None
        self._recorded[shapes] = RecordedStep(graph, tuple(copies), output, loss)
        return self._recorded[shapes]

    def _capture(self, eager_step: Step, inputs: Inputs, targets: Targets) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph, generator_state = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state(self._device)
        try:
            graph.capture_begin(self._pool, capture_error_mode="thread_local")  # other threads write checkpoints
            result = eager_step(inputs, targets)
            graph.capture_end()
        except Exception:
            self._abort_capture(graph, generator_state)
            raise
        return graph, result

    def _abort_capture(self, graph: torch.cuda.CUDAGraph, generator_state: Tensor) -> None:
        """Leaves the device as it was; PyTorch leaves its generator as if something were still being recorded."""
        end_failed_recording(graph, self._pool)
        new_generator = torch.Generator(self._device)
        new_generator.set_state(generator_state)
        with torch.cuda.device(self._device):
            device_generator = torch.cuda.default_generators[torch.cuda.current_device()]
        device_generator.graphsafe_set_state(new_generator.graphsafe_get_state())

    @contextmanager
    def _on_side_stream(self) -> Iterator[None]:
        """On a stream of its own: nothing can be recorded on the usual one, and backward passes keep to their first."""
        current_stream = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current_stream)
        with torch.cuda.stream(self._stream):
            yield
        current_stream.wait_stream(self._stream)

    @contextmanager
    def _use_device_rates(self) -> Iterator[None]:
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, device_rate in zip(groups, self._device_rates, strict=True):
            group["lr"] = device_rate
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def _copy_rates(self) -> None:
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if rates != self._copied_rates:
            for device_rate, rate in zip(self._device_rates, rates, strict=True):
                device_rate.fill_(rate)
            self._copied_rates = rates

    def _check_state_on_device(self) -> None:
        """A number that an optimizer keeps elsewhere would stay as it was."""
        for each in (each for own in self._optimizer.state.values() for each in own.values()):
            if each is not None and not (isinstance(each, Tensor) and each.is_cuda):
                raise CannotRecord(f"{type(self._optimizer).__name__} keeps numbers that are not on the GPU")


@contextmanager
def _pause_garbage_collection() -> Iterator[None]:
    """A recorded step that is thrown away while another one is being recorded would end that."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _forbid_host_random_numbers() -> Iterator[None]:
    """What is drawn on the host within it would be drawn once and for all: raises CannotRecord, as if none had been."""
    host = torch.device("cpu")
    before = get_random_state(host)
    yield
    if map_tensors(Tensor.tolist, get_random_state(host)) != map_tensors(Tensor.tolist, before):
        set_random_state(before, host)
        raise CannotRecord("it draws random numbers on the host")
