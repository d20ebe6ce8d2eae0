"""Deterministic algorithms for the duration of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dlspec.compat.torch_dynamo import use_deterministic_algorithms
from dlspec.errors import TrainingFailed
from dlspec.network.build_mode import find_nondeterministic_operation

# cuBLAS sums in a fixed order with this workspace, and PyTorch requires it for deterministic algorithms
# (docs.nvidia.com/cuda/cublas, "Results reproducibility").
WORKSPACE_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACE = ":4096:8"


class _DeterminismFlags(NamedTuple):
    is_deterministic: bool
    warns_only: bool
    benchmark: bool
    workspace: str | None


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Make PyTorch use only deterministic algorithms inside the context, if `enabled`.

    Raises:
        TrainingFailed: an operation has no deterministic algorithm.
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
        fix = "use another layer, another device, or trainer.deterministic=false"
        raise TrainingFailed(f"{operation} has no deterministic algorithm on this device; {fix}") from error
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
