"""What the trainer takes: a network with what judges it, how it learns, and the data that it learns from."""

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
    """A network with what judges its output.

    `inputs` names the tensors of a split that `network.forward` takes, in order: `("text", "text_lengths")`. `metrics`,
    or a function that makes them, are by their names for each target that the criterion judges, and are reported as
    `train/NAME`, `val/NAME` and `test/NAME`.
    """

    network: nn.Module
    criterion: CriterionProtocol
    inputs: Sequence[str]
    metrics: Callable[[], MetricGroups] | MetricGroups = ()

    def make_metrics(self, device: torch.device) -> MetricGroups:
        """The metrics on the device, for each target that the criterion judges."""
        groups = self.metrics() if callable(self.metrics) else self.metrics
        for group in groups:
            for metric in group.values():
                metric.to(device)
        return groups


@dataclass(frozen=True)
class Optimization:
    """How a network learns. `optimizer` is None for a network without parameters."""

    optimizer: Optimizer | None
    schedule: Schedule | None = None
    freezing: FrozenParameters = field(default_factory=lambda: FrozenParameters({}))


@dataclass(frozen=True)
class TrainingData:
    """The data, and what decides how batches are made of them.

    `seed` decides the order of the samples, and seeds PyTorch's, NumPy's and Python's generators when training begins.
    `trim=False` keeps batches of sequences at their full length, `fewest_steps` are those that the network's windows
    need of each field; `widest` is the most numbers that a layer gives for a sample.
    """

    dataset: Dataset
    seed: int = 0
    trim: bool = True
    fewest_steps: Mapping[str, int] = field(default_factory=lambda: NO_FEWEST_STEPS)
    max_layer_outputs: int = 0

    def state_dict(self) -> dict[str, int]:
        """How many samples each split has: the order of an epoch follows from that."""
        return count_samples(self.dataset)

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Nothing: the data come from the spec, and who resumes a run compares the numbers of samples."""


def count_samples(data: Dataset) -> dict[str, int]:
    """How many samples each split has."""
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
