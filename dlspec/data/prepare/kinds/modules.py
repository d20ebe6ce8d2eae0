"""What was fitted as modules: the same arithmetic as `apply`, on tensors, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlspec.data.prepare.kinds.numeric_cells import NumericCells
from dlspec.data.prepare.kinds.scales import LinearScale, LogScale, QuantileScale, Scale


class LinearModule(nn.Module):
    """Subtracts a shift, then divides."""

    def __init__(self, scale: LinearScale) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(scale.shift, dtype=torch.float64))
        self.register_buffer("divisor", torch.tensor(scale.divisor, dtype=torch.float64))

    shift: Tensor
    divisor: Tensor

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.shift) / self.divisor


class LogModule(LinearModule):
    """Takes sign · log(1 + |value|), then scales that."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(torch.sign(values) * torch.log1p(values.abs()))


class QuantileModule(nn.Module):
    """Maps quantiles to normal scores, linear between them, as `numpy.interp` does."""

    quantiles: Tensor
    scores: Tensor

    def __init__(self, scale: QuantileScale) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.tensor(scale.quantiles, dtype=torch.float64))
        self.register_buffer("scores", torch.tensor(scale.scores, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        if len(self.quantiles) == 1:
            return torch.zeros_like(values) + self.scores
        inside = values.clamp(self.quantiles[0], self.quantiles[-1]).contiguous()
        above = torch.searchsorted(self.quantiles, inside, right=True).clamp(1, len(self.quantiles) - 1)
        low, high = self.quantiles[above - 1], self.quantiles[above]
        share = (inside - low) / (high - low)
        return self.scores[above - 1] + share * (self.scores[above] - self.scores[above - 1])


def make_scale_module(scale: Scale) -> nn.Module:
    """Make the module of a fitted scale."""
    if isinstance(scale, QuantileScale):
        return QuantileModule(scale)
    if isinstance(scale, LogScale):
        return LogModule(scale.inner)
    assert isinstance(scale, LinearScale)
    return LinearModule(scale)


class NumberModule(nn.Module):
    """Numbers (N,), with NaN for missing cells, to features (N, 1) or (N, 2)."""

    def __init__(self, cells: NumericCells, fill: float, indicator: bool, scale: Scale) -> None:
        super().__init__()
        self.low, self.high, self.fill, self.indicator = cells.low, cells.high, fill, indicator
        self.scale = make_scale_module(scale)

    def forward(self, values: Tensor) -> Tensor:
        missing = torch.isnan(values)
        numbers = values.double()
        if self.low is not None or self.high is not None:
            numbers = numbers.clamp(self.low, self.high)
        scaled = self.scale(torch.where(missing, self.fill, numbers)).float()
        return torch.stack([scaled, missing.float()] if self.indicator else [scaled], dim=1)


class GroupedNumberModule(nn.Module):
    """Numbers and the index of their group (N, 2), with NaN for missing numbers, to features (N, 1) or (N, 2)."""

    fill: Tensor
    shift: Tensor
    divisor: Tensor

    def __init__(self, cells: NumericCells, fills: NDArray[np.float64], indicator: bool, scales: list[Scale]) -> None:
        super().__init__()
        self.low, self.high, self.indicator = cells.low, cells.high, indicator
        self.is_log = isinstance(scales[0], LogScale)
        self.register_buffer("fill", torch.tensor(fills, dtype=torch.float64))  # (G,)
        linear = [each.inner if isinstance(each, LogScale) else each for each in scales]
        shifts = [(each.shift, each.divisor) for each in linear if isinstance(each, LinearScale)]
        self.register_buffer("shift", torch.tensor([float(shift) for shift, _ in shifts], dtype=torch.float64))
        self.register_buffer("divisor", torch.tensor([float(divisor) for _, divisor in shifts], dtype=torch.float64))
        quantiles = [QuantileModule(each) for each in scales if isinstance(each, QuantileScale)]
        self.quantiles = nn.ModuleList(quantiles)  # of each group; empty for other scales

    def forward(self, pairs: Tensor) -> Tensor:
        values, groups = pairs[:, 0].double(), pairs[:, 1].long()
        missing = torch.isnan(values)
        if self.low is not None or self.high is not None:
            values = values.clamp(self.low, self.high)
        scaled = self._scale(torch.where(missing, self.fill[groups], values), groups).float()
        return torch.stack([scaled, missing.float()] if self.indicator else [scaled], dim=1)

    def _scale(self, values: Tensor, groups: Tensor) -> Tensor:
        if self.quantiles:
            scaled = torch.zeros_like(values)
            for number, quantiles in enumerate(self.quantiles):
                scaled = torch.where(groups == number, quantiles(values), scaled)
            return scaled
        if self.is_log:
            values = torch.sign(values) * torch.log1p(values.abs())
        return (values - self.shift[groups]) / self.divisor[groups]


class OneHotModule(nn.Module):
    """Ids (N,) to one-hot features (N, W); an id without a feature becomes zeros."""

    table: Tensor

    def __init__(self, num_ids: int, kept_ids: list[int]) -> None:
        super().__init__()
        table = torch.zeros(num_ids, len(kept_ids))
        table[kept_ids, range(len(kept_ids))] = 1
        self.register_buffer("table", table)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


class DateModule(nn.Module):
    """Parts of dates (N, P), with NaN for missing ones, to features (N, W)."""

    def __init__(self, circles: Sequence[tuple[int, int] | None], year: tuple[float, float], indicator: bool) -> None:
        super().__init__()
        self.circles = circles  # first value and period of each part; None for the year
        self.mean_year, self.year_deviation = year
        self.indicator = indicator

    def forward(self, parts: Tensor) -> Tensor:
        features: list[Tensor] = []
        for number, circle in enumerate(self.circles):
            part = parts[:, number].double()
            if circle is None:
                features.append((part - self.mean_year) / self.year_deviation)
            else:
                angle = (part - circle[0]) * (2 * math.pi / circle[1])
                features += [torch.sin(angle), torch.cos(angle)]
        missing = torch.isnan(parts[:, 0])
        features = [torch.where(missing, 0.0, each) for each in features]
        return torch.stack([*features, missing.double()] if self.indicator else features, dim=1).float()


class NumbersModule(nn.Module):
    """Lists of numbers (N, *shape), with NaN for missing ones and beyond a row's length, to scaled numbers."""

    fill: Tensor

    def __init__(self, fill: NDArray[np.float64], scale: LinearScale, rank: int, has_lengths: bool) -> None:
        super().__init__()
        self.has_lengths = has_lengths
        spread = (-1, 1, 1) if rank == 3 else (-1,)  # channels-first: a number for each channel
        self.register_buffer("fill", torch.tensor(fill).reshape(spread))
        self.scale = LinearModule(LinearScale(scale.shift.reshape(spread), scale.divisor.reshape(spread)))

    def forward(self, values: Tensor) -> Tensor:
        missing = torch.isnan(values)
        scaled: Tensor = self.scale(torch.where(missing, self.fill, values.double()))
        if self.has_lengths:
            is_step = ~missing.all(dim=2)  # (N, T)
            is_inside = is_step.flip(1).cumsum(1).flip(1) > 0
            scaled = scaled * is_inside[:, :, None]
        return scaled.float()


class PlainModule(LinearModule):
    """Numbers (N, ...) to scaled numbers of the same shape."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.double()).float()
