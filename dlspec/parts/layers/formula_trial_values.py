"""The values of a `Formula`'s trial: each one computed for two batch sizes, so that the batch dimension is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.layouts import TensorInfo
from dlspec.parts.layers.formula_roles import Roles


@dataclass(frozen=True)
class TrialTensorPair:
    """One value computed twice, with batches of 2 and of 3 samples: a dimension whose size differs is the batch."""

    two: Tensor
    three: Tensor
    roles: Roles | None = None  # of the dimensions without the batch, if they are known

    @property
    def has_batch(self) -> bool:
        """Whether the value has a batch dimension."""
        return self.two.shape != self.three.shape

    @property
    def device(self) -> torch.device:
        return self.two.device

    @property
    def rank(self) -> int:
        return self.two.dim()

    @property
    def mixes_samples(self) -> bool:
        """Whether the batch is not the first dimension any more, or its size is not the number of samples."""
        return self.has_batch and (
            (*self.two.shape[:1], *self.three.shape[:1]) != (2, 3) or self.two.shape[1:] != self.three.shape[1:]
        )


def select_batch(value: Any, which: str) -> Any:
    """Replace each pair within a value by its tensor for a batch of 2 or of 3."""
    if isinstance(value, tuple):
        return tuple(select_batch(each, which) for each in value)
    return getattr(value, which) if isinstance(value, TrialTensorPair) else value


def pair_trial_results(two: Any, three: Any) -> Any:
    """Combine the results for a batch of 2 and of 3 into pairs. Results that are not tensors are the same for both."""
    if isinstance(two, tuple | list):
        return tuple(pair_trial_results(*each) for each in zip(two, three, strict=True))
    return TrialTensorPair(two, three) if isinstance(two, Tensor) else two


def collect_tensor_pairs(value: Any) -> list[TrialTensorPair]:
    """List the pairs in a value, also within tuples and lists."""
    if isinstance(value, tuple | list):
        return [pair for each in value for pair in collect_tensor_pairs(each)]
    return [value] if isinstance(value, TrialTensorPair) else []


def make_trial_pair(value: TensorInfo, device: str) -> TrialTensorPair:
    """Make tensors in the shape of a value, for a batch of 2 and of 3 samples.

    A constant has its values, token indices are the last of the vocabulary, and everything else is zeros.
    """
    if value.constant is not None and value.constant.is_computed():
        constant = value.constant.make_copy(torch.float32).to(device)
        return TrialTensorPair(constant, constant)
    dtype, fill = find_dtype(value), 0 if value.vocab_size is None else value.vocab_size - 1
    shapes = [(rows, *value.shape) if value.has_batch else value.shape for rows in (2, 3)]
    roles = value.roles if value.has_batch else None
    two, three = (torch.full(shape, fill, dtype=dtype, device=device) for shape in shapes)
    return TrialTensorPair(two, three, roles)


def find_dtype(value: TensorInfo) -> torch.dtype:
    """Return the data type of a value; float32 stands for the network's precision."""
    if value.dtype not in ("", "float"):
        found: torch.dtype = getattr(torch, value.dtype)
        return found
    is_index = value.layout == "tokens" or value.vocab_size is not None
    return torch.long if is_index and not value.dtype else torch.float32


def is_integer_dtype(dtype: torch.dtype) -> bool:
    """Whether tensors of a data type consist of integers."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
