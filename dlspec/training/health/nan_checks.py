"""Numbers gone wrong: a batch's loss or gradients that are infinite or nan, seen before they reach the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.tensor_tree import iterate_tensors
from dlspec.network.random_state import get_torch_rng_state, set_torch_rng_state

CHECK_INTERVAL = 50
"""Steps between two looks at a GPU's losses."""

Step = Callable[[Any, Any], tuple[Any, Tensor]]
LossCheck = Callable[[Tensor], None]
"""Is given each batch's loss before its gradients are computed; raises `NotFinite` or `NotFiniteTooLate`."""


class NotFinite(Exception):
    """A batch's loss or a gradient is not finite; nothing was updated with it.

    `rewind` puts PyTorch's generators where they stood before the batch, so that it can be passed again as it was.
    """

    rewind: Callable[[], None] = staticmethod(lambda: None)


class NotFiniteGradient(NotFinite):
    """The loss is finite, and a gradient of it is not."""

    def __init__(self) -> None:
        super().__init__("loss is finite, and a gradient of it is not,")


class NotFiniteTooLate(Exception):
    """Some batches ago a loss was not finite, and the weights have moved on since."""


def require_finite_loss(loss: Tensor) -> None:
    """Raises `NotFinite`. Waits for the device; on a CPU there is nothing to wait for: measured 0.13 us."""
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite(f"loss became {value}")


def require_finite_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Raises `NotFinite`. Waits for the device."""
    if not are_all_finite(each.grad for each in parameters if each.grad is not None):
        raise NotFiniteGradient


def make_deferred_check(device: torch.device) -> LossCheck:
    """How losses are looked at without making a step wait; where there is no such way the epoch's end tells."""
    return DeferredLossCheck() if device.type == "cuda" else _skip_check


def check_after_update(loss: Tensor) -> None:
    """For a step on a CPU that has made its update when its loss is there: raises `NotFiniteTooLate`."""
    if not math.isfinite(loss.item()):
        raise NotFiniteTooLate


def _skip_check(loss: Tensor) -> None: ...


def make_rewindable(step: Step, device: torch.device) -> Step:
    """The step; a `NotFinite` that it raises can be rewound. Reading a CPU's generator takes 0.7 us."""

    def rewindable_step(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        generator_state = get_torch_rng_state(device)
        try:
            return step(inputs, targets)
        except NotFinite as error:
            error.rewind = lambda: set_torch_rng_state(generator_state, device)
            raise

    return rewindable_step


class DeferredLossCheck:
    """Looks at CUDA's losses in pieces: a flag is copied while the queue goes on, and read when the copy is there."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._has_bad_loss = torch.zeros((), dtype=torch.bool, pin_memory=True)
        self._copy_event: torch.cuda.Event | None = None

    def __call__(self, loss: Tensor) -> None:
        self._losses.append(loss.detach())
        if len(self._losses) >= CHECK_INTERVAL and (self._copy_event is None or self._copy_event.query()):  # type: ignore[no-untyped-call]
            self._check_losses()

    def _check_losses(self) -> None:
        if self._has_bad_loss.item():  # of the piece before; it lies in the host's memory
            raise NotFiniteTooLate
        has_bad_loss = torch.stack(self._losses).isfinite().all().logical_not()
        self._has_bad_loss.copy_(has_bad_loss, non_blocking=True)
        self._copy_event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copy_event.record()
        self._losses.clear()


def are_all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in them is. Waits for the device, once."""
    dense = [each.coalesce().values() if each.is_sparse else each for each in tensors]
    non_empty = [each.detach() for each in dense if each.numel()]
    return not non_empty or bool(nn.utils.get_total_norm(non_empty, math.inf).isfinite())


def find_non_finite(value: Any) -> float | None:
    """The first number in a tensor, or in several however nested, that is not finite; None where all are."""
    for tensor in iterate_tensors(value):
        if tensor.is_floating_point() or tensor.is_complex():
            bad_values = tensor.detach()[~tensor.detach().isfinite()]
            if bad_values.numel():
                return float(bad_values.flatten()[0].abs() if bad_values.is_complex() else bad_values.flatten()[0])
    return None
