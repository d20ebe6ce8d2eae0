"""PyTorch's normalizations over time, with the statistics of the real steps only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Rule


def _compute_masked_statistics(input: Tensor, is_counted: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance over `dims`, which are kept with size 1.

    Args:
        input: The values, float.
        is_counted: Which of them count; broadcasts to `input`.
        dims: The dimensions to reduce.

    Returns:
        Mean and variance.
    """
    weights = is_counted.to(input.dtype).expand_as(input)
    count = weights.sum(dims, keepdim=True).clamp(min=1)
    mean = torch.where(is_counted, input, 0).sum(dims, keepdim=True) / count
    variance = torch.where(is_counted, (input - mean).square(), 0).sum(dims, keepdim=True) / count
    return mean, variance


def _scale_channels(normalized: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Multiply (N, C, T) by a weight (C,) and add a bias (C,), where there are any."""
    if weight is not None:
        normalized = normalized * weight.unsqueeze(-1)
    return normalized if bias is None else normalized + bias.unsqueeze(-1)


def _update_running_statistics(
    norm: nn.BatchNorm1d | nn.InstanceNorm1d, mean: Tensor, variance: Tensor, count: Tensor
) -> None:
    """Update the running mean and the running, unbiased variance, as PyTorch does.

    Args:
        norm: The normalization.
        mean: Means (..., C, 1).
        variance: Biased variances, in the same shape; over all dimensions but the channels they are averaged.
        count: How many numbers each of them was computed from; broadcasts to them.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    unbiased = variance * (count / (count - 1).clamp(min=1))
    for running, found in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        average = found.detach().flatten(0, -3).mean(0).squeeze(-1) if found.dim() > 2 else found.detach().squeeze(-1)
        running.copy_(running * (1 - momentum) + average * momentum)


def _normalize_real_steps(
    norm: nn.BatchNorm1d | nn.InstanceNorm1d, input: Tensor, is_real: Tensor, dims: tuple[int, ...], count: Tensor
) -> Tensor:
    """Normalize (N, C, T) by the statistics of its real steps, and update the running ones in training.

    Args:
        norm: The normalization.
        input: The values, (N, C, T).
        is_real: The mask of the real steps, (N, 1, T).
        dims: The dimensions over which statistics are computed.
        count: How many numbers each statistic is computed from.

    Returns:
        A tensor of the same shape and type.
    """
    values = _widen(input)
    mean, variance = _compute_masked_statistics(values, is_real, dims)
    if norm.training and norm.track_running_stats:
        with torch.no_grad():
            _update_running_statistics(norm, mean, variance, count)
    normalized = (values - mean) * (variance + norm.eps).rsqrt()
    return _scale_channels(normalized, norm.weight, norm.bias).to(input.dtype)


def _widen(input: Tensor) -> Tensor:
    """Convert half precision to float32, in which statistics are computed."""
    return input.float() if input.dtype in (torch.float16, torch.bfloat16) else input


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`; with lengths, padding counts neither in a batch's statistics nor in the running ones."""

    rule = Rule(("features", "channels-first"), dims=1, keeps_lengths=True)
    lengths_of = {"lengths": 0}

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize (N, C) or (N, C, T); `lengths` (N,) are the real steps of each sample, None if all are real."""
        if lengths is None or input.dim() != 3 or not (self.training or self.running_mean is None):
            return super().forward(input)
        is_real = make_step_mask(lengths, input.shape[2], input.device).unsqueeze(1)  # (N, 1, T)
        return _normalize_real_steps(self, input, is_real, (0, 2), is_real.sum())


class InstanceNorm1d(nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d`; with lengths, padding does not count in a sample's statistics."""

    rule = Rule(("channels-first",), dims=1, keeps_lengths=True)
    lengths_of = {"lengths": 0}

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize (N, C, T); `lengths` (N,) are the real steps of each sample, None if all are real."""
        uses_own_statistics = self.training or not self.track_running_stats
        if lengths is None or not uses_own_statistics:
            return super().forward(input)
        is_real = make_step_mask(lengths, input.shape[2], input.device).unsqueeze(1)  # (N, 1, T)
        return _normalize_real_steps(self, input, is_real, (2,), is_real.sum(2, keepdim=True))


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`; with lengths, padding does not count in a sample's statistics."""

    rule = Rule(("channels-first",), keeps_lengths=True)
    lengths_of = {"lengths": 0}

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize (N, C, ...); `lengths` (N,) are the real steps of samples (N, C, T), None if all are real."""
        if lengths is None:
            return super().forward(input)
        is_real = make_step_mask(lengths, input.shape[2], input.device)[:, None, None]  # (N, 1, 1, T)
        groups: Tensor = _widen(input).unflatten(1, (self.num_groups, -1))  # type: ignore[no-untyped-call]  # (N, G, C / G, T)
        mean, variance = _compute_masked_statistics(groups, is_real, (2, 3))
        normalized = ((groups - mean) * (variance + self.eps).rsqrt()).flatten(1, 2)
        return _scale_channels(normalized, self.weight, self.bias).to(input.dtype)
