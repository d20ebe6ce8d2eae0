"""Make a run's steps from its settings: precision, compilation, threads and memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.compat.torch_optim import make_fused_step
from dlspec.errors import UserError, shorten_middle
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.optimizer import KERNEL_SETTINGS
from dlspec.training.components import Optimization
from dlspec.training.criterion_interface import CriterionProtocol
from dlspec.training.distributed import ProcessGroup
from dlspec.training.health.nan_checks import LossCheck
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.runtime.determinism import deterministic_algorithms
from dlspec.training.runtime.resources import FLOAT_BYTES, is_large_tensor, use_allocator, use_threads
from dlspec.training.step.precision import Precision, ScaledUpdate
from dlspec.training.step.step_functions import (
    GradientAccumulation,
    GradientClipping,
    GradientComputation,
    Step,
    make_evaluation_step,
    make_training_step,
)

if TYPE_CHECKING:
    from dlspec.training.step.compiled_step import CompiledStep
    from dlspec.training.step.cuda_graphs import CudaGraphStep


log = logging.getLogger("dlspec")


class ComputeBackend:
    """Makes training and evaluation steps. Moves the network and the criterion to the device and the weights' dtype.

    Args:
        network: the network to train.
        criterion: all loss terms together.
        settings: the `trainer` section.
        device: where to compute.
        max_layer_outputs: the largest number of values that a layer outputs for one sample.
        group: the processes that train together.

    Raises:
        UserError: the device does not support a setting.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: CriterionProtocol,
        settings: TrainerSpec,
        device: torch.device,
        max_layer_outputs: int = 0,
        group: ProcessGroup | None = None,
    ) -> None:
        self._group = group or ProcessGroup()
        self.network, self.criterion, self.settings, self.device = network, criterion, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.make_scaler()
        self.clipping = GradientClipping(settings.clip_grad_norm, settings.clip_grad_value)
        self.max_layer_outputs = max_layer_outputs
        self._forward: Callable[..., Any] | None = None  # with mixed precision, or compiled
        self._updates: dict[Optimizer, Callable[[], None]] = {}  # what makes the steps of each optimizer
        self._compiled: CompiledStep | None = None
        self._cuda_graph_step: CudaGraphStep | None = None
        self._has_reported_eager_steps = False
        if settings.compile == "cudagraphs" and device.type != "cuda":
            raise UserError(f"trainer.compile: cudagraphs needs a CUDA device, got {device}; use step or none")
        network.to(device, self.precision.weights_dtype)
        if settings.channels_last:
            _convert_to_channels_last(network)
        if isinstance(criterion, nn.Module):
            criterion.to(device, self.precision.weights_dtype)

    def make_training_step(
        self,
        optimization: Optimization,
        after_update: Callable[[], None],
        guard: NanGuard,
        accumulation: GradientAccumulation | None = None,
        *,
        compiles: bool = True,
    ) -> Step:
        """Make the step that trains on one batch.

        Args:
            optimization: the optimizer, which makes the updates, and its schedule; without one the step only evaluates.
            after_update: called after each update.
            guard: checks the losses.
            accumulation: how to combine batches to updates; None updates with every batch.
            compiles: False if this step is not compiled, whatever the settings say: most batches run in blocks.

        Returns:
            The step from (inputs, targets) to (output, loss).
        """
        optimizer, compile_mode = optimization.optimizer, self.settings.compile
        checks_before_update, check_loss = guard.checks_before_update, guard.make_loss_check()
        step = self._make_eager_step(optimizer, after_update, check_loss, accumulation, guard.policy.is_strict)
        if checks_before_update or optimizer is None:
            return guard.watch_step(step)
        if compile_mode == "step" and compiles and self._can_compile_single_steps(optimization, accumulation):
            return self._make_compiled_step(optimizer).make_step(
                step, guard.make_late_loss_check(check_loss), after_update
            )
        if compile_mode == "cudagraphs":
            return self._make_cuda_graph_step(optimizer).make_step(
                self.make_trial_step(optimizer), check_loss, after_update
            )
        return guard.watch_step(step)

    def _can_compile_single_steps(self, optimization: Optimization, accumulation: GradientAccumulation | None) -> bool:
        """Return whether a step for one batch, made before it runs, can be compiled; log if not."""
        scheduler = optimization.schedule and optimization.schedule.scheduler
        reasons = {
            "trainer.accumulate": accumulation is not None,
            "a momentum that changes at every step": bool(getattr(scheduler, "cycle_momentum", False)),
        }
        found = [reason for reason, applies in reasons.items() if applies]
        if found and not self._has_reported_eager_steps:
            log.warning("trainer.compile: with %s these steps can't be compiled and run eagerly", " and ".join(found))
            self._has_reported_eager_steps = True
        return not found

    def describe(self, optimizer: Optimizer | None) -> str:
        """Describe on one line how this run computes: device, precision, compilation, optimizer."""
        settings = self.settings
        kernels = [name for name in KERNEL_SETTINGS if optimizer and optimizer.defaults.get(name)]
        details = [
            str(self.device),
            f"threads {settings.threads or torch.get_num_threads()}" if self.device.type == "cpu" else "",
            f"precision {settings.precision}",
            "channels last" if settings.channels_last else "",
            "" if settings.compile == "none" else f"compile: {settings.compile}",
            f"workers {settings.num_workers}" if settings.num_workers else "",
            "" if optimizer is None else " ".join([type(optimizer).__name__, *(f"({each})" for each in kernels)]),
        ]
        return f"computing on {', '.join(each for each in details if each)}"

    def make_trial_step(self, optimizer: Optimizer | None) -> Step:
        """Make a training step without checks of the loss and without any action after an update."""
        return self._make_eager_step(optimizer, lambda: None, lambda loss: None)

    def make_evaluation_step(self, network: nn.Module) -> Step:
        """Make the step that evaluates one batch, with the network or with averaged weights."""
        return make_evaluation_step(self.precision.wrap_forward(network), self.criterion)

    @contextmanager
    def apply_settings(self, batch_size: int) -> Iterator[None]:
        """Apply threads, allocator, determinism and matmul precision inside the context, for this batch size."""
        settings = self.settings
        with (
            deterministic_algorithms(settings.deterministic),
            self.precision.apply_settings(),
            use_threads(settings.threads),
            use_allocator(
                settings.allocator,
                self.device,
                self.largest_tensor_bytes(batch_size),
                is_sharded=self._group.is_sharded,
            ),
        ):
            yield

    @property
    def has_large_tensors(self) -> bool:
        """Whether a step on the CPU allocates large tensors, which suffer from fragmented memory."""
        return self.device.type == "cpu" and is_large_tensor(
            self.largest_tensor_bytes(self.settings.initial_batch_size)
        )

    def largest_tensor_bytes(self, batch_size: int) -> int:
        """Return the size in bytes of the largest tensor in a step with this batch size."""
        return FLOAT_BYTES * batch_size * self.max_layer_outputs

    def _make_eager_step(
        self,
        optimizer: Optimizer | None,
        after_update: Callable[[], None],
        check_loss: LossCheck,
        accumulation: GradientAccumulation | None = None,
        is_strict: bool = False,
    ) -> Step:
        forward, parameters = self._training_forward(), list(self.network.parameters())
        if optimizer is None:
            return make_evaluation_step(forward, self.criterion)
        scaled_update = None if self.scaler is None else ScaledUpdate(self.scaler, optimizer)
        gradients = GradientComputation(
            forward, self.criterion, parameters, self.clipping, check_loss, scaled_update, is_strict,
            partial(self._group.compute_gradients, network=self.network) if self._group.is_parallel else None,
            self._group.is_true_on_any_part,
        )  # fmt: skip
        return make_training_step(
            gradients, optimizer, scaled_update or self.find_update(optimizer), after_update, accumulation
        )

    def find_update(self, optimizer: Optimizer) -> Callable[[], None]:
        """Return the function that makes the optimizer's step. Its schedulers must exist: they wrap `step`."""
        if optimizer not in self._updates:
            step = make_step_function(optimizer)
            # Compiled steps and CUDA graphs change the tensors of the optimizer's state, and must find the same ones.
            is_eager = self.settings.compile in ("none", "model")
            self._updates[optimizer] = make_fused_step(optimizer, step) if is_eager else step
        return self._updates[optimizer]

    def _training_forward(self) -> Callable[..., Any]:
        if self._forward is None:
            self._forward = self.precision.wrap_forward(self._checkpointed_forward())
            if self.settings.compile == "model":
                from dlspec.training.step.compiled_step import compile_forward

                own_batch_size = -(-self.settings.initial_batch_size // self._group.world_size)
                self._forward = compile_forward(self._forward, own_batch_size)
        return self._forward

    def _checkpointed_forward(self) -> Callable[..., Any]:
        """Return the network, or the variant of it that recomputes activations."""
        patterns = self.settings.activation_checkpointing
        if not patterns or self._group.is_sharded:  # blocks that are sharded recompute themselves
            return self.network
        from dlspec.training.step.activation_checkpointing import checkpoint_activations, find_checkpointed_layers

        layers = find_checkpointed_layers(self.network, patterns)
        log.info(
            "activation checkpointing for %d module(s): %s",
            len(layers),
            shorten_middle(", ".join(layers)),
        )
        return checkpoint_activations(self.network, patterns)

    def _make_compiled_step(self, optimizer: Optimizer) -> CompiledStep:
        if self._compiled is None:
            from dlspec.training.step.compiled_step import CompiledStep, FullTrainingStep

            step = FullTrainingStep(self.network, self.criterion, optimizer, self.clipping, self.precision)
            self._compiled = CompiledStep(step, self.settings.initial_batch_size)
        return self._compiled

    def _make_cuda_graph_step(self, optimizer: Optimizer) -> CudaGraphStep:
        if self._cuda_graph_step is None:
            from dlspec.training.step.cuda_graphs import CudaGraphStep

            self._cuda_graph_step = CudaGraphStep(self.network, optimizer, self.device)
        return self._cuda_graph_step


def _convert_to_channels_last(network: nn.Module) -> None:
    """Convert the convolutions' weights: the output has the memory format of the weight, and later layers keep it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
