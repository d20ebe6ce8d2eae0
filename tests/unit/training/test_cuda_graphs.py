"""A replayed step computes what a plain one does. All but the first want a GPU."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torchmetrics.classification import MulticlassAccuracy

from dlspec.errors import TrainingFailed, UserError
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.training.trainer import Trainer
from helpers.toy_training import CrossEntropy, make_dataset, make_network, make_trainer

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs want a GPU")


def test_it_is_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(UserError, match="cudagraphs needs a CUDA device, got cpu; use step or none"):
        make_trainer(settings={"compile": "cudagraphs", "device": "cpu"})


def normalised() -> nn.Module:
    torch.manual_seed(0)
    # A bias before the normalisation would have no gradient but rounding, which some optimizers enlarge.
    first = nn.Linear(4, 16, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def made(compile: str, net: nn.Module | None = None, optimizer: str = "AdamW", **options: Any) -> Trainer:
    """A trainer on the GPU of a batch norm, dropout, clipped gradients, a rate that falls at every step."""
    settings = {"device": "cuda", "compile": compile, "epochs": 6, "clip_grad_norm": 0.5}
    settings |= options.pop("settings", {})
    net = (net or normalised()).cuda()
    more = {"momentum": 0.9} if optimizer == "SGD" else {}
    built = make_optimizer(getattr(torch.optim, optimizer), list(net.parameters()), {"lr": 0.01, **more})
    schedule = Schedule(StepLR(built, 2, 0.9), "step")
    options = {"metrics": (), "optimizer": built, "schedule": schedule, **options}
    return make_trainer(net, settings=settings, **options)


def equal(one: Trainer, other: Trainer, tolerance: float = 1e-4) -> None:
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], value, rtol=tolerance, atol=tolerance)
    assert other.state.step == one.state.step
    for mine, theirs in zip(other.state.history, one.state.history, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance)


def graphs(training: Trainer) -> int:
    assert training.backend._cuda_graph_step is not None
    return len(training.backend._cuda_graph_step._recorded)


@on_gpu
@pytest.mark.parametrize("precision", [32, 64, "bf16", 16])
def test_equals_the_plain_loop(precision: Any) -> None:
    """Running statistics, what dropout draws, a last batch of another size; with 16 scaled gradients."""
    plain, replayed = (made(each, settings={"precision": precision}) for each in ("none", "cudagraphs"))
    plain.fit()
    replayed.fit()
    assert graphs(replayed) == 2
    equal(plain, replayed, 2e-2 if precision in ("bf16", 16) else 1e-4)


@on_gpu
@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "Rprop"])
def test_every_optimizer_equals_its_own_plain_step(name: str, caplog: pytest.LogCaptureFixture) -> None:
    plain, replayed = (made(each, optimizer=name) for each in ("none", "cudagraphs"))
    plain.fit()
    replayed.fit()
    equal(plain, replayed)
    told = [each.message for each in caplog.records if "can't be recorded" in each.message]
    assert len(told) == (graphs(replayed) == 0)
    assert (name == "Adagrad") == (graphs(replayed) == 0)


@on_gpu
def test_layers_that_thaw_are_trained_from_then_on() -> None:
    trainings = []
    for compile in ("none", "cudagraphs"):
        net = normalised()
        training = made(compile, net, freezing=FrozenParameters(dict.fromkeys(net[0].parameters(), 4)))
        training.fit()
        trainings.append(training)
    equal(*trainings)


@on_gpu
def test_a_restored_run_goes_on_as_if_it_had_not_been_left() -> None:
    straight, first, second = (made("cudagraphs") for _ in range(3))
    straight.fit()
    first.settings = first.settings.model_copy(update={"epochs": 3})
    first.fit()
    snapshot = first.snapshot()
    assert snapshot is not None
    second.restore(snapshot)
    second.fit()
    equal(straight, second)
    # The same trainer goes back within a run: what it recorded reads tensors that it has no more.
    first.settings = straight.settings
    first.restore(snapshot)
    first.state.epochs = 6
    first.fit()
    equal(straight, first)


class Waiting(CrossEntropy):
    def forward(self, output: Tensor, targets: Any) -> Tensor:
        return super().forward(output, targets) if output.sum().item() > -1e9 else output.sum()


class Drawing(CrossEntropy):
    def forward(self, output: Tensor, targets: Any) -> Tensor:
        return super().forward(output, targets) * (0.5 + random.random())


@on_gpu
@pytest.mark.parametrize(("criterion", "why"), [(Waiting, ""), (Drawing, "it draws random numbers on the host")])
def test_what_can_not_be_replayed_runs_as_it_is(criterion: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    plain, replayed = (made(each, criterion=criterion()) for each in ("none", "cudagraphs"))
    plain.fit()
    replayed.fit()
    told = [each.message for each in caplog.records if each.name == "dlspec" and each.levelname == "WARNING"]
    assert len(told) == 1
    assert told[0].startswith(f"trainer.compile: the step can't be recorded and runs eagerly: {why}")
    equal(plain, replayed)


class Spoiled(CrossEntropy):
    """Nan from the seventh step on, whether replayed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.zeros((), device="cuda")

    def forward(self, output: Tensor, targets: Any) -> Tensor:
        self.count.add_(1 if self.training and output.requires_grad else 0)
        return super().forward(output, targets) + torch.where(self.count > 9, math.nan, 0.0)


@on_gpu
def test_a_loss_of_nan_is_told() -> None:
    with pytest.raises(TrainingFailed, match="train/loss"):
        made("cudagraphs", criterion=Spoiled(), settings={"epochs": 20}).fit()


@on_gpu
def test_metrics_see_each_batchs_own_output() -> None:
    """What a graph leaves is overwritten by its next batch."""
    data = make_dataset(train=320)
    found = []
    for compile in ("none", "cudagraphs"):
        torch.manual_seed(0)
        settings = {"device": "cuda", "compile": compile, "epochs": 3}
        metrics = [{"accuracy": MulticlassAccuracy(3, average="micro")}]
        training = make_trainer(make_network().cuda(), data, settings=settings, metrics=metrics)
        training.fit()
        found.append(training.state.history)
    for one, other in zip(*found, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
