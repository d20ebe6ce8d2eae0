"""How a run computes: in which numbers, compiled or not, with how many threads. It turns settings into steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.spec.trainer import TrainerSpec
from dlspec.training.anomaly import detecting
from dlspec.training.criterion import Criterion
from dlspec.training.finite import Look, demand_finite, look_later, notice, rewindable
from dlspec.training.precision import Precision
from dlspec.training.reproducing import deterministic
from dlspec.training.resources import FLOAT, allocator, threads
from dlspec.training.steps import Accumulation, Clipping, Step, evaluation_step, training_step

if TYPE_CHECKING:
    from dlspec.training.compiling import CompiledStep


class Computing:
    """Makes the steps of `network`, which it turns into the numbers that `settings` want, on `device`.

    `widest` is the most numbers that a layer gives for a sample.
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
        network.to(device, self.precision.numbers)
        if isinstance(criterion, nn.Module):
            criterion.to(device, self.precision.numbers)

    def training_step(
        self,
        optimizer: Optimizer | None,
        after_update: Callable[[], None],
        *,
        at_once: bool,
        accumulation: Accumulation | None = None,
        is_strict: bool = False,
    ) -> Step:
        """What trains on one batch; `at_once` each loss is looked at before it changes anything."""
        look = demand_finite if at_once else look_later(self.device)
        step = self._eager(optimizer, after_update, look, accumulation, is_strict)
        if self.settings.compile == "step" and not at_once and optimizer is not None:
            later = notice if self.device.type == "cpu" else look
            return self._whole(optimizer).step(step, later, after_update)
        if self.settings.debug == "anomaly":
            step = detecting(step)
        return rewindable(step, self.device) if at_once else step

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
            allocator(settings.allocator, self.device, FLOAT * rows * self._widest),
        ):
            yield

    def _eager(
        self,
        optimizer: Optimizer | None,
        after_update: Callable[[], None],
        look: Look,
        accumulation: Accumulation | None = None,
        is_strict: bool = False,
    ) -> Step:
        return training_step(
            self.network, self.criterion, optimizer, self.clipping, after_update, accumulation, look,
            self._training_forward(), self.scaler, is_strict,
        )  # fmt: skip

    def _training_forward(self) -> Callable[..., Any]:
        if self._forward is None:
            self._forward = self.precision.forward(self.network)
            if self.settings.compile == "model":
                from dlspec.training.compiling import compiled_forward

                self._forward = compiled_forward(self._forward, self.settings.rows)
        return self._forward

    def _whole(self, optimizer: Optimizer) -> CompiledStep:
        if self._compiled is None:
            from dlspec.training.compiling import CompiledStep, WholeStep

            whole = WholeStep(self.network, self.criterion, optimizer, self.clipping, self.precision)
            self._compiled = CompiledStep(whole, self.settings.rows)
        return self._compiled
