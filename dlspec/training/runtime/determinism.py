"""Algorithms that give the same numbers every time, for a run alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dlspec.compat.torch_dynamo import use_deterministic_algorithms
from dlspec.errors import TrainingFailed
from dlspec.network.build_mode import find_nondeterministic_operation

WORKSPACE_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACE = ":4096:8"
"""cuBLAS adds up in one order with it; PyTorch asks for it (docs.nvidia.com/cuda/cublas, "Results reproducibility")."""


class _DeterminismFlags(NamedTuple):
    is_deterministic: bool
    warns_only: bool
    benchmark: bool
    workspace: str | None


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Within it PyTorch takes deterministic algorithms alone, where that is wanted; afterwards all is as it was.

    Raises TrainingFailed where an operation has none.
    """
    if not enabled:
        yield
        return
    before = _read_flags()
    _set_flags(_DeterminismFlags(True, False, False, before.workspace or FIXED_WORKSPACE))
    try:
        yield
    except RuntimeError as error:
        operation = find_nondeterministic_operation(error)
        if not operation:
            raise
        fix = "take another layer, another device, or trainer.deterministic=false"
        raise TrainingFailed(f"there is no deterministic way to compute {operation} here; {fix}") from error
    finally:
        _set_flags(before)


def _read_flags() -> _DeterminismFlags:
    return _DeterminismFlags(
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(WORKSPACE_VARIABLE),
    )


def _set_flags(flags: _DeterminismFlags) -> None:
    use_deterministic_algorithms(flags.is_deterministic, warn_only=flags.warns_only)
    torch.backends.cudnn.benchmark = flags.benchmark
    if flags.workspace is None:
        os.environ.pop(WORKSPACE_VARIABLE, None)
    else:
        os.environ[WORKSPACE_VARIABLE] = flags.workspace
