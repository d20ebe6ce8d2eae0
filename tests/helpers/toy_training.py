"""What the trainer's tests train: small data, a criterion, a metric, and a trainer with quick settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.optimizer import make_optimizer
from dlspec.training.components import Model, Optimization, TrainingData
from dlspec.training.trainer import Trainer

CLASSES = ("a", "b", "c")


Targets = tuple[Tensor, ...]


class CrossEntropy(nn.Module):
    """The criterion that a classifier's builder would give."""

    target_names: tuple[str, ...] = ("label",)
    term_names: tuple[str, ...] = ()
    factors: tuple[float, ...] = (1.0,)
    trims: Mapping[str, PaddingTrim] = {}
    predicted_targets: tuple[Target, ...] = (Target("label", "classes", (), CLASSES),)

    def predict(self, output: Tensor) -> Tensor:
        return output.softmax(1)

    def forward(self, output: Tensor, targets: Targets) -> Tensor:
        return nn.functional.cross_entropy(output, targets[0])

    def weigh(self, targets: Targets) -> Tensor | None:
        return None

    def accumulate(
        self, output: Tensor, targets: Targets, batch_weights: Tensor, update_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        raise AssertionError("only called if `weigh` returns weights")

    def make_metric_pairs(self, output: Tensor, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        return [(output.softmax(1), targets[0])]


class SquaredError(CrossEntropy):
    predicted_targets = (Target("label", "numbers"),)

    def predict(self, output: Tensor) -> Tensor:
        return output.squeeze(1)

    def forward(self, output: Tensor, targets: Targets) -> Tensor:
        return nn.functional.mse_loss(output.squeeze(1), targets[0])

    def make_metric_pairs(self, output: Tensor, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        return [(output.squeeze(1), targets[0])]


class Accuracy:
    """torchmetrics' interface; it keeps count of its updates."""

    def __init__(self) -> None:
        self.updates = 0
        self.reset()

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.updates += 1
        self.right += (preds.argmax(1) == target).sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        return self.right / self.count

    def reset(self) -> None:
        self.right, self.count = torch.zeros(()), 0

    def to(self, device: torch.device) -> Accuracy:
        return self


def make_split(samples: int, seed: int = 0) -> Split:
    """Samples of three classes that a linear layer can tell apart, more or less."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(samples, 4, generator=generator)
    noise = torch.randn(samples, generator=generator) * 0.3
    labels = (image[:, 0] + noise > 0).long() + (image[:, 1] > 0.5).long()
    return Split({"image": image}, {"label": labels})


def make_dataset(train: int = 70, validation: int = 30, test: int = 20) -> Dataset:
    fields = (Field("image", (4,), "features"),)
    target = Target("label", "classes", (), CLASSES)
    return Dataset("toy", fields, (target,), make_split(train, 1), make_split(validation, 2), make_split(test, 3))


def make_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def make_trainer(
    net: nn.Module | None = None,
    data: Dataset | None = None,
    *,
    lr: float = 0.01,
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """A Trainer of the toy data on the CPU; what is not given is the obvious."""
    net = net or make_network()
    if "optimizer" not in options:
        options["optimizer"] = make_optimizer(optimizer_class, net.parameters(), {"lr": lr})
    spec = TrainerSpec(**{"epochs": 2, "device": "cpu", **(settings or {})})
    options = {"criterion": CrossEntropy(), "inputs": ("image",), "metrics": [{"accuracy": Accuracy()}], **options}
    model = Model(net, **_pop_options(options, "criterion", "inputs", "metrics"))
    optimization = Optimization(**_pop_options(options, "optimizer", "schedule", "freezing"))
    batches = TrainingData(
        data or make_dataset(), **_pop_options(options, "seed", "trim", "max_layer_outputs", "fewest_steps")
    )
    return Trainer(model, optimization, batches, spec, **options)


def _pop_options(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the options, which are no longer among them then."""
    return {name: options.pop(name) for name in names if name in options}


LENGTHS = [3, 1, 7, 2, 0, 5, 4, 2, 6]


def make_text_split() -> Split:
    """Sample i holds the token i + 1 in its first LENGTHS[i] places of eight."""
    lengths = torch.tensor(LENGTHS)
    tokens = torch.arange(1, 10)[:, None] * (torch.arange(8)[None] < lengths[:, None])
    tensors = {"text": tokens, "text_lengths": lengths, "extra": torch.arange(9.0)[:, None]}
    return Split(tensors, {"label": torch.arange(9) % 3, "tags": tokens + 1})
