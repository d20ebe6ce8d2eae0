"""The arguments of the trainer: a network with its loss and metrics, its optimizer, and the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.data.batches.batch_loader import NO_FEWEST_STEPS
from dlspec.data.dataset import Dataset
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.schedule import Schedule
from dlspec.training.criterion_interface import CriterionProtocol, MetricGroups


@dataclass(frozen=True)
class Model:
    """A network with its loss and metrics."""

    network: nn.Module
    criterion: CriterionProtocol
    # The tensors of a split that `network.forward` takes, in order: ("text", "text_lengths").
    inputs: Sequence[str]
    # Metrics by name for each target that the criterion predicts, or a function that makes them. They are reported as
    # `train/NAME`, `val/NAME` and `test/NAME`.
    metrics: Callable[[], MetricGroups] | MetricGroups = ()
    # A copy of the network for averaged weights, where the trainer can't copy it itself.
    copy: nn.Module | None = None

    def make_metrics(self, device: torch.device) -> MetricGroups:
        """Make the metrics for each target that the criterion predicts, on a device."""
        groups = self.metrics() if callable(self.metrics) else self.metrics
        for group in groups:
            for metric in group.values():
                metric.to(device)
        return groups


@dataclass(frozen=True)
class Optimization:
    """A network's optimizer, learning-rate schedule and frozen parameters."""

    optimizer: Optimizer | None  # None for a network without parameters
    schedule: Schedule | None = None
    freezing: FrozenParameters = field(default_factory=lambda: FrozenParameters({}))


@dataclass(frozen=True)
class TrainingData:
    """The data, and how batches are made from them."""

    dataset: Dataset
    # Determines the order of the samples, and seeds PyTorch's, NumPy's and Python's generators when training starts.
    seed: int = 0
    # Whether batches of sequences are cut to their longest sample.
    trim: bool = True
    # The minimum number of time steps of each field that the network's windows (kernels) need.
    fewest_steps: Mapping[str, int] = field(default_factory=lambda: NO_FEWEST_STEPS)
    # The size of the largest layer output for one sample, in numbers: it limits the batch size for evaluation.
    max_layer_outputs: int = 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of samples of each split, which determines the order of the samples in an epoch."""
        return count_samples(self.dataset)

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Do nothing: the data come from the spec. The numbers of samples are compared when a run is resumed."""


def find_sampled_target(data: Dataset) -> str | None:
    """Return the target whose classes `trainer.sampling` balances: the first with one class for each sample."""
    return next((each.name for each in data.targets if each.kind == "classes" and not each.shape), None)


def count_samples(data: Dataset) -> dict[str, int]:
    """Count the samples of each split."""
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
