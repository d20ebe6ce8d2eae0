"""PyTorch's poolings over time that see past a sample's end: with lengths, they pool the real steps only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlspec.layouts import NO_PADDING, LengthChange, Lengths
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape


def _read_size(setting: object) -> int | None:
    """Return a setting of a one-dimensional pooling as a number: `3` and `[3]` mean the same."""
    size = setting[0] if isinstance(setting, list | tuple) else setting
    return size if isinstance(size, int) else None


# ---- windows -------------------------------------------------------------------------------------------------------


def _change_length(settings: Settings) -> LengthChange | None:
    kernel, dilation = _read_size(settings["kernel_size"]) or 1, _read_size(settings.get("dilation")) or 1
    stride, padding = _read_size(settings.get("stride")) or kernel, _read_size(settings.get("padding")) or 0
    if not settings.get("ceil_mode"):
        return LengthChange.from_window(kernel, stride, padding, dilation)
    reach = dilation * (kernel - 1) + 1
    if stride > reach - padding:
        return None  # PyTorch leaves the last window out for some lengths
    return LengthChange(reach - 2 * padding - 2 * stride + 1, stride)


class MaxPool1d(nn.MaxPool1d):
    """`torch.nn.MaxPool1d`; with lengths, a window that reaches past a sample's end leaves padding out."""

    rule = Rule(("channels-first",), dims=1, changes_length=_change_length)

    lengths_of = {"lengths": 0}
    takes_unneeded_lengths = False

    @property
    def needs_lengths(self) -> bool:
        """Whether windows reach past a sample's end, so that padding has to be left out."""
        return bool(self.padding or self.ceil_mode)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (N, C, T); `lengths` (N,) are the real steps of each sample, None if all are real."""
        if lengths is None:
            return super().forward(input)  # type: ignore[no-any-return]
        is_real = make_step_mask(lengths, input.shape[2], input.device).unsqueeze(1)  # (N, 1, T)
        pooled = super().forward(input.masked_fill(~is_real, float("-inf")))
        if isinstance(pooled, tuple):
            return (pooled[0].masked_fill(pooled[0] == float("-inf"), 0), *pooled[1:])  # type: ignore[return-value]
        return pooled.masked_fill(pooled == float("-inf"), 0)  # type: ignore[no-any-return]


# ---- a fixed number of steps ---------------------------------------------------------------------------------------


def _find_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return inputs[0].lengths if _read_size(settings.get("output_size")) is None else NO_PADDING


_ADAPTIVE_RULE = Rule(("channels-first",), dims=1, keeps_lengths=lambda inputs, settings: True, lengths=_find_lengths)


def _make_bin_masks(lengths: Tensor, bins: int, steps: int, device: torch.device) -> Tensor:
    """Make masks (N, bins, T) of the steps in each bin, by PyTorch's rule: bins of equal size over the real steps.

    Args:
        lengths: Number of real steps of each sample, int64 of shape (N,).
        bins: Number of bins.
        steps: Number of steps T in the padded batch.
        device: Device of the masks.
    """
    lengths = lengths.to(device).unsqueeze(1)
    index, step = torch.arange(bins, device=device), torch.arange(steps, device=device)
    start = index * lengths // bins  # (N, bins)
    end = -(-(index + 1) * lengths // bins)  # rounded up
    return (step >= start.unsqueeze(-1)) & (step < end.unsqueeze(-1))


class AdaptiveAvgPool1d(nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d`; with lengths, the bins divide the real steps of each sample."""

    rule = _ADAPTIVE_RULE
    lengths_of = {"lengths": 0}

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (N, C, T); `lengths` (N,) are the real steps of each sample, None if all are real."""
        bins = _read_size(self.output_size)
        if lengths is None or bins is None:
            return super().forward(input)
        masks = _make_bin_masks(lengths, bins, input.shape[2], input.device)
        is_real = make_step_mask(lengths, input.shape[2], input.device).unsqueeze(1)
        shares = masks.to(input.dtype) / masks.sum(2, keepdim=True).to(input.dtype)  # (N, bins, T)
        return input.masked_fill(~is_real, 0) @ shares.transpose(1, 2)


class AdaptiveMaxPool1d(nn.AdaptiveMaxPool1d):
    """`torch.nn.AdaptiveMaxPool1d`; with lengths, the bins divide the real steps of each sample."""

    rule = _ADAPTIVE_RULE
    lengths_of = {"lengths": 0}

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (N, C, T); `lengths` (N,) are the real steps of each sample, None if all are real."""
        bins = _read_size(self.output_size)
        if lengths is None or bins is None:
            return super().forward(input)  # type: ignore[no-any-return]
        masks = _make_bin_masks(lengths, bins, input.shape[2], input.device)
        found = [input.masked_fill(~mask.unsqueeze(1), float("-inf")).max(dim=2) for mask in masks.unbind(1)]
        values, indices = (torch.stack(each, dim=2) for each in zip(*found, strict=True))
        return (values, indices) if self.return_indices else values  # type: ignore[return-value]
