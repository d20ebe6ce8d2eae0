"""Where a network is built: on a real device, or on PyTorch's meta device, whose tensors have shapes but no values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dlspec.formatting import format_bytes
from dlspec.limits import explain_raising_limit, get_limit
from dlspec.network.divided_values import DividedValues
from dlspec.network.memory_limits import NetworkTooLarge, SizeLimit, get_memory_bytes


class BuildModeError(Exception):
    """Building in this mode is too expensive or impossible; use another mode.

    Raised where the limits of `SMALL_MODE` are exceeded, or where a layer needs values that meta tensors do not have.
    """


@dataclass(frozen=True)
class BuildMode:
    """The device on which a network is built, and how much memory and computation it may use there."""

    # None: PyTorch's default device; the network is moved to the run's device later.
    device: torch.device | None
    # Makes the limit on the size of one network's weights.
    weights: Callable[[], SizeLimit]
    # A measured forward pass that exceeds one of these limits raises `BuildModeError`.
    max_multiply_adds: float = math.inf
    max_kept_bytes: float = math.inf
    # Keeps a part of the values of each layer, which is made with values and then moved to the meta device.
    values: DividedValues | None = None

    def default_device(self) -> AbstractContextManager[object]:
        """Return a context in which new tensors are made on this device."""
        return nullcontext() if self.device is None else self.device


# The first operations on the meta device spend 0.4 to 1.8 s importing modules; a network below these limits is built
# faster on the CPU.
MAX_SMALL_WEIGHT_BYTES, MAX_SMALL_MULTIPLY_ADDS, MAX_SMALL_KEPT_BYTES = 50_000_000, 1e9, 2**28
_CPU = torch.device("cpu")


def _make_small_mode_error(total: int, max_bytes: int) -> Exception:
    return BuildModeError(f"weights of {format_bytes(total)}")


def _make_summary_error(total: int, max_bytes: int) -> Exception:
    found = f"its weights would need {format_bytes(total)}; a summary is limited to {format_bytes(max_bytes)}"
    return NetworkTooLarge(f"{found} ({explain_raising_limit('summary_bytes')})")


RUN_MODE = BuildMode(None, lambda: SizeLimit(get_memory_bytes()))
SMALL_MODE = BuildMode(
    _CPU,
    lambda: SizeLimit(MAX_SMALL_WEIGHT_BYTES, _make_small_mode_error),
    MAX_SMALL_MULTIPLY_ADDS,
    MAX_SMALL_KEPT_BYTES,
)
META_MODE = BuildMode(torch.device("meta"), lambda: SizeLimit(get_limit("summary_bytes"), _make_summary_error))


def make_divided_mode(values: DividedValues) -> BuildMode:
    """Make the mode in which each of several processes keeps only its part of a network's values."""
    limit = values.world_size * get_memory_bytes()
    return BuildMode(torch.device("meta"), lambda: SizeLimit(limit), values=values)


UNLIMITED_MODE = BuildMode(_CPU, lambda: SizeLimit(get_memory_bytes()))
"""For large networks with custom layers that need real values."""


def is_on_meta() -> bool:
    """Whether the default device is the meta device."""
    return torch.get_default_device().type == "meta"


def is_meta_tensor_error(error: Exception) -> bool:
    """Whether PyTorch raised this because the values of a meta tensor were needed.

    PyTorch raises exceptions of different classes for it, so only their text can be checked.
    """
    return is_on_meta() and "meta" in str(error)


def find_nondeterministic_operation(error: Exception) -> str:
    """Return the operation that has no deterministic algorithm, according to PyTorch's error; '' for other errors."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    return found[1] if found else ""
