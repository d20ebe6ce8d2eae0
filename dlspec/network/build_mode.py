"""Where a network is built: for real, or on PyTorch's meta device, whose tensors have shapes and no numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dlspec.formatting import format_bytes
from dlspec.limits import explain_raising_limit, get_limit
from dlspec.network.memory_limits import NetworkTooLarge, SizeLimit, get_memory_bytes


class BuildModeError(Exception):
    """What was begun in one place is better done in another: it costs too much here, or needs numbers."""


@dataclass(frozen=True)
class BuildMode:
    """The device on which everything is made, and how much of it.

    Without a device the choice is PyTorch's, and the network moves to the run's device. `weights` makes the limit that
    one network's weights have; a pass that is measured may take `max_multiply_adds` multiply-adds and keep `max_kept_bytes` bytes,
    else it raises `Unfit`.
    """

    device: torch.device | None
    weights: Callable[[], SizeLimit]
    max_multiply_adds: float = math.inf
    max_kept_bytes: float = math.inf

    def default_device(self) -> AbstractContextManager[object]:
        """Within it every new tensor is made there."""
        return nullcontext() if self.device is None else self.device


# The first meta operations of a process import 0.4 to 1.8 s of Python: what takes less is done for real.
MAX_SMALL_WEIGHT_BYTES, MAX_SMALL_MULTIPLY_ADDS, MAX_SMALL_KEPT_BYTES = 50_000_000, 1e9, 2**28
_CPU = torch.device("cpu")


def _make_small_mode_error(total: int, max_bytes: int) -> Exception:
    return BuildModeError(f"weights of {format_bytes(total)}")


def _make_summary_error(total: int, max_bytes: int) -> Exception:
    found = f"its weights would fill {format_bytes(total)}; a summary goes to {format_bytes(max_bytes)}"
    return NetworkTooLarge(f"{found} ({explain_raising_limit('summary_bytes')})")


RUN_MODE = BuildMode(None, lambda: SizeLimit(get_memory_bytes()))
SMALL_MODE = BuildMode(
    _CPU,
    lambda: SizeLimit(MAX_SMALL_WEIGHT_BYTES, _make_small_mode_error),
    MAX_SMALL_MULTIPLY_ADDS,
    MAX_SMALL_KEPT_BYTES,
)
META_MODE = BuildMode(torch.device("meta"), lambda: SizeLimit(get_limit("summary_bytes"), _make_summary_error))
UNLIMITED_MODE = BuildMode(_CPU, lambda: SizeLimit(get_memory_bytes()))
"""For networks that are large and have layers of their own that can't do without numbers."""


def is_on_meta() -> bool:
    """Whether tensors are made on the meta device here."""
    return torch.get_default_device().type == "meta"


def is_meta_tensor_error(error: Exception) -> bool:
    """Whether this is what PyTorch says where a meta tensor's numbers are asked for: several kinds of exception."""
    return is_on_meta() and "meta" in str(error)


def find_nondeterministic_operation(error: Exception) -> str:
    """The operation of which PyTorch says that it has no deterministic algorithm; '' where it says something else."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    return found[1] if found else ""
