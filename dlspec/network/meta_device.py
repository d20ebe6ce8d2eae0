"""Where a network is built: for real, or on PyTorch's meta device, whose tensors have shapes and no numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dlspec.limits import how_to_raise, limit
from dlspec.network.memory_limits import SizeLimit, TooLarge, memory
from dlspec.text import size


class Unfit(Exception):
    """What was begun in one place is better done in another: it costs too much here, or needs numbers."""


@dataclass(frozen=True)
class Place:
    """The device on which everything is made, and how much of it.

    Without a device the choice is PyTorch's, and the network moves to the run's device. `weights` makes the limit that
    one network's weights have; a pass that is measured may take `most_work` multiply-adds and keep `most_kept` bytes,
    else it raises `Unfit`.
    """

    device: torch.device | None
    weights: Callable[[], SizeLimit]
    most_work: float = math.inf
    most_kept: float = math.inf

    def making(self) -> AbstractContextManager[object]:
        """Within it every new tensor is made there."""
        return nullcontext() if self.device is None else self.device


# The first meta operations of a process import 0.4 to 1.8 s of Python: what takes less is done for real.
SMALL_BYTES, SMALL_WORK, SMALL_KEPT = 50_000_000, 1e9, 2**28
_CPU = torch.device("cpu")


def _costly(total: int, most: int) -> Exception:
    return Unfit(f"weights of {size(total)}")


def _beyond_summaries(total: int, most: int) -> Exception:
    found = f"its weights would fill {size(total)}; a summary goes to {size(most)}"
    return TooLarge(f"{found} ({how_to_raise('summary_bytes')})")


RUN = Place(None, lambda: SizeLimit(memory()))
SMALL = Place(_CPU, lambda: SizeLimit(SMALL_BYTES, _costly), SMALL_WORK, SMALL_KEPT)
META = Place(torch.device("meta"), lambda: SizeLimit(limit("summary_bytes"), _beyond_summaries))
WHOLE = Place(_CPU, lambda: SizeLimit(memory()))
"""For networks that are large and have layers of their own that can't do without numbers."""


def is_on_meta() -> bool:
    """Whether tensors are made on the meta device here."""
    return torch.get_default_device().type == "meta"


def needs_numbers(error: Exception) -> bool:
    """Whether this is what PyTorch says where a meta tensor's numbers are asked for: several kinds of exception."""
    return is_on_meta() and "meta" in str(error)


def not_deterministic(error: Exception) -> str:
    """The operation of which PyTorch says that it has no deterministic algorithm; '' where it says something else."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    return found[1] if found else ""
