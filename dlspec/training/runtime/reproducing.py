"""Algorithms that give the same numbers every time, for a run alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dlspec.compat.torch_dynamo import use_deterministic_algorithms
from dlspec.errors import TrainingFailed
from dlspec.network.meta_device import not_deterministic

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACE = ":4096:8"
"""cuBLAS adds up in one order with it; PyTorch asks for it (docs.nvidia.com/cuda/cublas, "Results reproducibility")."""


class _Switches(NamedTuple):
    is_deterministic: bool
    warns_only: bool
    benchmark: bool
    workspace: str | None


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within it PyTorch takes deterministic algorithms alone, where that is wanted; afterwards all is as it was.

    Raises TrainingFailed where an operation has none.
    """
    if not wanted:
        yield
        return
    before = _switches()
    _switch(_Switches(True, False, False, before.workspace or FIXED_WORKSPACE))
    try:
        yield
    except RuntimeError as error:
        operation = not_deterministic(error)
        if not operation:
            raise
        fix = "take another layer, another device, or trainer.deterministic=false"
        raise TrainingFailed(f"there is no deterministic way to compute {operation} here; {fix}") from error
    finally:
        _switch(before)


def _switches() -> _Switches:
    return _Switches(
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(WORKSPACE),
    )


def _switch(to: _Switches) -> None:
    use_deterministic_algorithms(to.is_deterministic, warn_only=to.warns_only)
    torch.backends.cudnn.benchmark = to.benchmark
    if to.workspace is None:
        os.environ.pop(WORKSPACE, None)
    else:
        os.environ[WORKSPACE] = to.workspace
