"""Compute the output shapes of PyTorch's common layers by formulas: running them would take longer than building."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.parts.layers.merge import Add, Multiply
from dlspec.parts.layers.normalization import BatchNorm1d
from dlspec.parts.layers.pooling import MaxPool1d

_MAX_CONVOLUTION_SETTING = 2**31  # for larger values PyTorch raises its own error
_ACTIVATIONS = frozenset(
    {nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus}
)
# Layers that return their input in eval mode.
_IDENTITY_IN_EVAL = frozenset({nn.Identity, nn.Dropout})


def apply_formula(module: nn.Module, arguments: Mapping[int | str, Tensor]) -> Tensor | None:
    """Make a tensor with the shape of the layer's output and arbitrary values; None for calls without a formula.

    Formulas do not cover calls that PyTorch rejects: running the layer then gives PyTorch's message.
    """
    module_type, samples = type(module), list(arguments.values())
    if module_type in (Add, Multiply):
        return _merge_output(samples)
    if len(samples) != 1 or not samples[0].is_floating_point():
        return None
    sample = samples[0]
    if module_type in _IDENTITY_IN_EVAL:
        return sample
    if module_type in _ACTIVATIONS:
        return None if getattr(module, "inplace", False) else make_placeholder(sample.shape, sample.dtype)
    formula = _FORMULAS.get(module_type)
    return None if formula is None else formula(module, sample)


def make_placeholder(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make a tensor whose values do not matter. Integers are 0, which is a valid index; floats are not initialized."""
    return torch.empty(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)


def _merge_output(samples: Sequence[Tensor]) -> Tensor | None:
    first = samples[0]
    is_same = all(each.shape == first.shape and each.dtype == first.dtype for each in samples)
    return make_placeholder(first.shape, first.dtype) if len(samples) > 1 and is_same else None


def _linear_output(linear: Any, sample: Tensor) -> Tensor | None:
    if sample.dtype != linear.weight.dtype:
        return None
    return make_placeholder((*sample.shape[:-1], linear.out_features), sample.dtype)


def _layer_norm_output(norm: Any, sample: Tensor) -> Tensor | None:
    sizes, weight = norm.normalized_shape, norm.weight
    fits = tuple(sample.shape[-len(sizes) :]) == sizes and (weight is None or weight.dtype == sample.dtype)
    return make_placeholder(sample.shape, sample.dtype) if fits else None


def _batch_norm_output(norm: Any, sample: Tensor) -> Tensor | None:
    mean = norm.running_mean  # without one, PyTorch rejects a batch with a single value per channel
    fits = mean is not None and mean.dtype == sample.dtype and sample.dim() in _BATCH_NORM_RANKS[type(norm)]
    return make_placeholder(sample.shape, sample.dtype) if fits and sample.shape[1] == len(mean) else None


def _convolution_output(conv: Any, sample: Tensor) -> Tensor | None:
    if conv.padding_mode != "zeros" or sample.dtype != conv.weight.dtype:
        return None
    extents = _compute_kernel_extents(conv.kernel_size, conv.dilation)
    padded = [2 * each for each in conv.padding] if isinstance(conv.padding, tuple) else extents
    padded = [0] * len(extents) if conv.padding == "valid" else padded
    if max(*conv.kernel_size, *conv.stride, *conv.dilation) > _MAX_CONVOLUTION_SETTING:
        return None
    return _apply_window(sample, conv.out_channels, extents, padded, conv.stride)


def _max_pool_output(pool: Any, sample: Tensor) -> Tensor | None:
    rank = sample.dim() - 2
    if pool.ceil_mode or pool.return_indices or rank != _POOL_RANKS[type(pool)]:
        return None
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    kernel, stride, padding, dilation = ([each] * rank if isinstance(each, int) else each for each in settings)
    fits = all(0 < each <= _MAX_CONVOLUTION_SETTING for each in (*kernel, *stride, *dilation))
    if not fits or not all(0 <= 2 * each <= size for each, size in zip(padding, kernel, strict=True)):
        return None
    extents = _compute_kernel_extents(kernel, dilation)
    return _apply_window(sample, sample.shape[1], extents, [2 * each for each in padding], stride)


def _compute_kernel_extents(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Compute the distance from the first to the last element of a kernel, in each dimension."""
    return [gap * (size - 1) for size, gap in zip(kernel, dilation, strict=True)]


def _apply_window(
    sample: Tensor, channels: int, extents: Sequence[int], padded: Sequence[int], strides: Sequence[int]
) -> Tensor | None:
    """Make the output of a window moved over (N, C, sizes...), or None where a size would be 0."""
    sizes = [
        (size + more - extent - 1) // stride + 1
        for size, more, extent, stride in zip(sample.shape[2:], padded, extents, strides, strict=True)
    ]
    return make_placeholder((len(sample), channels, *sizes), sample.dtype) if min(sizes) > 0 else None


# Allowed numbers of dimensions of an input: including the batch for BatchNorm, without batch and channels for MaxPool.
_BATCH_NORM_RANKS = {BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
_POOL_RANKS = {MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
_FORMULAS: Mapping[type[nn.Module], Callable[[Any, Tensor], Tensor | None]] = {
    nn.Linear: _linear_output,
    nn.LayerNorm: _layer_norm_output,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution_output),
    **dict.fromkeys(_BATCH_NORM_RANKS, _batch_norm_output),
    **dict.fromkeys(_POOL_RANKS, _max_pool_output),
}
