"""`trainer.compile: cudagraphs`: record the kernels of a training step once, and replay them for later batches.

With short kernels a GPU waits for Python, which launches them one by one. A CUDA graph launches all of them at once and
computes the same. Its shapes and addresses are fixed, so there is one graph for each shape of a batch, and each batch
is copied to the addresses that the graph reads. Decisions of Python code are made once, while recording.

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

from dlspec.compat.torch_cuda import end_failed_graph_capture
from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.formatting import first_line
from dlspec.training.criterion_interface import Targets, total_loss
from dlspec.training.runtime.randomness import get_random_state, set_random_state
from dlspec.training.step.step_functions import Inputs, Step

log = logging.getLogger("dlspec")

# Batches of each shape that run eagerly before one is recorded: libraries select kernels, optimizers create state.
WARM_UP_STEPS = 2
MAX_GRAPHS = 32  # batches of further shapes run eagerly
Shapes = tuple[torch.Size, ...]


class CannotRecord(Exception):
    """The step can't be recorded: replaying it would compute something else."""


@dataclass(frozen=True)
class RecordedStep:
    """A recorded training step."""

    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]  # the tensors that the graph reads
    output: Any  # the tensors that it writes
    loss: Tensor

    def __call__(self, *batch: Tensor) -> tuple[Any, Tensor]:
        for recorded_tensor, new_tensor in zip(self.batch, batch, strict=True):
            recorded_tensor.copy_(new_tensor)
        self.graph.replay()
        return map_tensors(Tensor.clone, self.output), self.loss.clone()


class CudaGraphStep:
    """Training steps that are recorded after a few eager runs. If recording fails they keep running eagerly.

    Recorded steps read the learning rates from tensors on the device, into which each change of a rate is copied.
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
                group["capturable"] = True  # so it counts its steps on the device

    def make_step(
        self, eager_step: Step, check_loss: Callable[[Tensor], None], after_update: Callable[[], None]
    ) -> Step:
        """Make the training step of one epoch.

        Args:
            eager_step: the step to record, also for batches without a recording.
            check_loss: called with each loss after the update.
            after_update: called after each update.

        Returns:
            The step from (inputs, targets) to (output, loss).
        """
        flags: Any = None

        def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
            nonlocal flags
            if flags is None:  # not earlier: layers are frozen between make_step and the first batch
                flags = [each.requires_grad for each in self._network.parameters()]
                flags += [each.training for each in self._network.modules()]
            self._discard_outdated_graphs(flags)
            output, loss = self._run_step(eager_step, inputs, targets)
            check_loss(total_loss(loss))
            after_update()
            return output, loss

        return step

    def _discard_outdated_graphs(self, flags: Any) -> None:
        """Discard recordings that were made with other optimizer settings, frozen layers or optimizer state."""
        settings = [
            {name: each for name, each in group.items() if name not in ("params", "lr")}
            for group in self._optimizer.param_groups
        ]
        # A restored optimizer has other state tensors, in a new dict.
        if self._state is not self._optimizer.state or settings != self._settings or flags != self._flags:
            self._recorded.clear()
            self._seen.clear()
            self._pool = torch.cuda.graph_pool_handle()  # the old pool may contain gradients
            self._state, self._settings, self._flags = self._optimizer.state, settings, flags

    def _run_step(self, eager_step: Step, inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        batch = (*inputs, *targets)
        shapes = tuple(each.shape for each in batch)
        recorded = self._recorded.get(shapes) or self._record(eager_step, inputs, targets, shapes)
        if recorded is None:
            with self._on_side_stream():
                return eager_step(inputs, targets)
        self._copy_learning_rates_to_device()
        return recorded(*batch)

    def _record(self, eager_step: Step, inputs: Inputs, targets: Targets, shapes: Shapes) -> RecordedStep | None:
        """Record the step without running it; return None if it should run eagerly."""
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
        except Exception as error:  # PyTorch raises many types here
            reason = first_line(error) or type(error).__name__
            log.warning("trainer.compile: the step can't be recorded and runs eagerly: %s", reason)
            self._can_record = False
            self._recorded.clear()
            return None
        self._recorded[shapes] = RecordedStep(graph, tuple(copies), output, loss)
        return self._recorded[shapes]

    def _capture(self, eager_step: Step, inputs: Inputs, targets: Targets) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph, generator_state = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state(self._device)
        try:
            graph.capture_begin(
                self._pool, capture_error_mode="thread_local"
            )  # other threads copy tensors for checkpoints
            result = eager_step(inputs, targets)
            graph.capture_end()
        except Exception:
            self._abort_capture(graph, generator_state)
            raise
        return graph, result

    def _abort_capture(self, graph: torch.cuda.CUDAGraph, generator_state: Tensor) -> None:
        """Clean up a failed recording. PyTorch would leave the device's generator in recording mode."""
        end_failed_graph_capture(graph, self._pool)
        new_generator = torch.Generator(self._device)
        new_generator.set_state(generator_state)
        with torch.cuda.device(self._device):
            device_generator = torch.cuda.default_generators[torch.cuda.current_device()]
        device_generator.graphsafe_set_state(new_generator.graphsafe_get_state())

    @contextmanager
    def _on_side_stream(self) -> Iterator[None]:
        """Run on a separate stream, for recorded and eager steps.

        Nothing can be recorded on the default stream, and gradients are accumulated on the stream of their first use.
        """
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

    def _copy_learning_rates_to_device(self) -> None:
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if rates != self._copied_rates:
            for device_rate, rate in zip(self._device_rates, rates, strict=True):
                device_rate.fill_(rate)
            self._copied_rates = rates

    def _check_state_on_device(self) -> None:
        """Require the optimizer's state to be on the GPU: replaying a graph does not update anything else."""
        for each in (each for own in self._optimizer.state.values() for each in own.values()):
            if each is not None and not (isinstance(each, Tensor) and each.is_cuda):
                raise CannotRecord(f"{type(self._optimizer).__name__} has state that is not on the GPU")


@contextmanager
def _pause_garbage_collection() -> Iterator[None]:
    """Pause garbage collection: deleting a CUDA graph while another one is being recorded would make that fail."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _forbid_host_random_numbers() -> Iterator[None]:
    """Raise CannotRecord if the host's generators are used inside the context, and restore them.

    A replayed graph would always use the numbers that were drawn while recording.
    """
    host = torch.device("cpu")
    before = get_random_state(host)
    yield
    if map_tensors(Tensor.tolist, get_random_state(host)) != map_tensors(Tensor.tolist, before):
        set_random_state(before, host)
        raise CannotRecord("it draws random numbers on the host")
