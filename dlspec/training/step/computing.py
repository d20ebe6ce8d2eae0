"""How a run computes: in which numbers, compiled or not, with how many threads. It turns settings into steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.errors import UserError, cut
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.optimizer import OWN_CHOICE
from dlspec.training.health.finite import Look
from dlspec.training.health.guard import Guard
from dlspec.training.protocols import Criterion
from dlspec.training.runtime.reproducing import deterministic
from dlspec.training.runtime.resources import FLOAT, allocator, is_large, threads
from dlspec.training.step.precision import Precision, Scaled
from dlspec.training.step.steps import Accumulation, Clipping, Gradients, Step, evaluation_step, training_step

if TYPE_CHECKING:
    from dlspec.training.step.compiling import CompiledStep
    from dlspec.training.step.replaying import ReplayedStep


log = logging.getLogger("dlspec")


class Computing:
    """Makes the steps of `network`, which it turns into the numbers that `settings` want, on `device`.

    `widest` is the most numbers that a layer gives for a sample. Raises UserError where the device can't do it.
    """

    def __init__(
        self, network: nn.Module, criterion: Criterion, settings: TrainerSpec, device: torch.device, widest: int = 0
    ) -> None:
        self.network, self.criterion, self.settings, self.device = network, criterion, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        self.clipping = Clipping(settings.clip_grad_norm, settings.clip_grad_value)
        self._widest = widest
        self._forward: Callable[..., Any] | None = None  # compiled, or in halves
        self._compiled: CompiledStep | None = None
        self._replayed: ReplayedStep | None = None
        if settings.compile == "cudagraphs" and device.type != "cuda":
            raise UserError(f"trainer.compile: cudagraphs is for CUDA, and the device is {device}; take step or none")
        network.to(device, self.precision.numbers)
        if settings.channels_last:
            _lay_channels_last(network)
        if isinstance(criterion, nn.Module):
            criterion.to(device, self.precision.numbers)

    def training_step(
        self,
        optimizer: Optimizer | None,
        after_update: Callable[[], None],
        guard: Guard,
        accumulation: Accumulation | None = None,
    ) -> Step:
        """What trains on one batch, whose loss the guard looks at."""
        at_once, look = guard.looks_now, guard.make_look()
        step = self._eager(optimizer, after_update, look, accumulation, guard.policy.is_strict)
        if self.settings.compile == "step" and not at_once and optimizer is not None:
            return self._whole(optimizer).step(step, guard.make_late_look(look), after_update)
        if self.settings.compile == "cudagraphs" and not at_once and optimizer is not None:
            return self._replaying(optimizer).step(self.trial_step(optimizer), look, after_update)
        return guard.watch_step(step)

    def described(self, optimizer: Optimizer | None) -> str:
        """How this run computes, in a line."""
        settings = self.settings
        kernels = [name for name in OWN_CHOICE if optimizer and optimizer.defaults.get(name)]
        said = [
            str(self.device),
            f"threads {settings.threads or torch.get_num_threads()}" if self.device.type == "cpu" else "",
            f"precision {settings.precision}",
            "channels last" if settings.channels_last else "",
            "" if settings.compile == "none" else f"compile: {settings.compile}",
            f"workers {settings.num_workers}" if settings.num_workers else "",
            "" if optimizer is None else " ".join([type(optimizer).__name__, *(f"({each})" for each in kernels)]),
        ]
        return f"computing on {', '.join(each for each in said if each)}"

    def trial_step(self, optimizer: Optimizer | None) -> Step:
        """A training step that nobody looks at and nothing follows."""
        return self._eager(optimizer, lambda: None, lambda loss: None)

    def evaluation_step(self, network: nn.Module) -> Step:
        """What only looks at one batch, with the network or an average of it."""
        return evaluation_step(self.precision.forward(network), self.criterion)

    @contextmanager
    def switched(self, rows: int) -> Iterator[None]:
        """Within it the process is as the settings want it for batches of so many samples; afterwards as before."""
        settings = self.settings
        with (
            deterministic(settings.deterministic),
            self.precision.switched(),
            threads(settings.threads),
            allocator(settings.allocator, self.device, self.largest(rows)),
        ):
            yield

    @property
    def is_large(self) -> bool:
        """Whether a step takes memory from the CPU's allocator that had better not be scattered."""
        return self.device.type == "cpu" and is_large(self.largest(self.settings.rows))

    def largest(self, rows: int) -> int:
        """The bytes of the largest tensor in a step of so many samples."""
        return FLOAT * rows * self._widest

    def _eager(
        self,
        optimizer: Optimizer | None,
        after_update: Callable[[], None],
        look: Look,
        accumulation: Accumulation | None = None,
        is_strict: bool = False,
    ) -> Step:
        forward, parameters = self._training_forward(), list(self.network.parameters())
        scaled = None if self.scaler is None or optimizer is None else Scaled(self.scaler, optimizer)
        gradients = Gradients(forward, self.criterion, parameters, self.clipping, look, scaled, is_strict)
        return training_step(gradients, optimizer, after_update, accumulation)

    def _training_forward(self) -> Callable[..., Any]:
        if self._forward is None:
            self._forward = self.precision.forward(self._kept_forward())
            if self.settings.compile == "model":
                from dlspec.training.step.compiling import compiled_forward

                self._forward = compiled_forward(self._forward, self.settings.rows)
        return self._forward

    def _kept_forward(self) -> Callable[..., Any]:
        """The network, or what computes the same and keeps less."""
        patterns = self.settings.activation_checkpointing
        if not patterns:
            return self.network
        from dlspec.training.step.recomputing import recomputed_parts, recomputing

        parts = recomputed_parts(self.network, patterns)
        log.info("the activations of %d parts are computed twice, not kept: %s", len(parts), cut(", ".join(parts)))
        return recomputing(self.network, patterns)

    def _whole(self, optimizer: Optimizer) -> CompiledStep:
        if self._compiled is None:
            from dlspec.training.step.compiling import CompiledStep, WholeStep

            whole = WholeStep(self.network, self.criterion, optimizer, self.clipping, self.precision)
            self._compiled = CompiledStep(whole, self.settings.rows)
        return self._compiled

    def _replaying(self, optimizer: Optimizer) -> ReplayedStep:
        if self._replayed is None:
            from dlspec.training.step.replaying import ReplayedStep

            self._replayed = ReplayedStep(self.network, optimizer, self.device)
        return self._replayed


def _lay_channels_last(network: nn.Module) -> None:
    """Weights decide: a convolution gives its output in the layout of its kernel, and what follows keeps it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
