"""Several batches for one step of the optimizer: the same step as one large batch, counted as one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from dlspec.data.batches.batch_loader import make_permutation
from dlspec.data.dataset import Dataset, Split
from dlspec.errors import TrainingFailed
from dlspec.layouts import TensorInfo
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.evaluation.scores import Scores
from dlspec.training.state import TrainingState
from dlspec.training.step.step_functions import BatchWeight, compute_batch_weights
from helpers.loss_cases import make_outputs, read_valid_criterion
from helpers.toy_training import make_dataset, make_network, make_trainer


class Counts(Callback):
    """Writes down (batch, step, learning rate) after each batch of training."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, float]] = []

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase == "train":
            self.seen.append((state.batch, state.step, state.lr or 0.0))


def precise(data: Dataset) -> Dataset:
    """The toy data in float64."""
    train, validation, test = (
        Split({name: each.double() for name, each in part.tensors.items()}, part.targets)
        for part in (data.train, data.validation, data.test)
    )
    return Dataset(data.name, data.fields, data.targets, train, validation, test)


def weights(settings: dict[str, Any], optimizer_class: type[torch.optim.Optimizer], train: int) -> list[Tensor]:
    net = make_network().double()
    options = {"optimizer_class": optimizer_class, "lr": 0.1, "seed": 3}
    make_trainer(net, precise(make_dataset(train)), settings={"epochs": 3, **settings}, **options).fit()  # type: ignore[arg-type]
    return [each.detach() for each in net.parameters()]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("train", [64, 70, 45])  # whole steps; a rest of one whole batch; a rest of two unequal ones
@pytest.mark.parametrize("clipping", [{}, {"clip_grad_norm": 0.05, "clip_grad_value": 0.02}], ids=["", "clipped"])
def test_equals_one_large_batch(
    optimizer_class: type[torch.optim.Optimizer], train: int, clipping: dict[str, float]
) -> None:
    several = weights({"batch_size": 8, "accumulate": 4, **clipping}, optimizer_class, train)
    one = weights({"batch_size": 32, **clipping}, optimizer_class, train)
    plain = weights({"batch_size": 8, **clipping}, optimizer_class, train)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(several, one, strict=True))
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(several, plain, strict=True))


def test_a_batch_weighs_its_samples_and_the_rest_is_a_step() -> None:
    assert compute_batch_weights([4, 4, 4, 4, 2], 2) == [
        BatchWeight(0.5, True, False), BatchWeight(0.5, False, True), BatchWeight(0.5, True, False), BatchWeight(0.5,
        False, True),
        BatchWeight(1.0, True, True),
    ]  # fmt: skip
    assert [each.weight for each in compute_batch_weights([6, 6, 3], 9)] == [0.4, 0.4, 0.2]


def test_steps_schedules_and_batches_count_apart() -> None:
    net, counts = make_network(), Counts()
    optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 1.0})
    schedule = Schedule(StepLR(optimizer, step_size=1, gamma=0.5), "step")
    settings = {"epochs": 2, "batch_size": 16, "accumulate": 2}
    training = make_trainer(net, optimizer=optimizer, schedule=schedule, settings=settings, callbacks=[counts])
    assert training.fit().steps == training.state.planned_steps == 6
    first, second = counts.seen[:5], counts.seen[5:]
    assert first == [(1, 0, 1.0), (2, 1, 0.5), (3, 1, 0.5), (4, 2, 0.25), (5, 3, 0.125)]
    assert [each[:2] for each in second] == [(1, 3), (2, 4), (3, 4), (4, 5), (5, 6)]


@pytest.mark.parametrize(("most", "samples"), [(1, [32]), (3, [70]), (4, [70, 32]), (100, [70, 70])])
def test_max_steps_are_the_optimizers(most: int, samples: list[int]) -> None:
    settings = {"epochs": 2, "batch_size": 16, "accumulate": 2, "max_steps": most}
    training = make_trainer(settings=settings)
    result = training.fit()
    assert (result.steps, training.state.planned_steps) == (min(most, 6), min(most, 6))
    assert [row["samples"] for row in training.state.timing] == samples


@pytest.mark.parametrize(("place", "step"), [(10, 4), (20, 4), (40, 5), (69, 6)])
def test_a_bad_loss_is_told_at_its_step(place: int, step: int) -> None:
    data = make_dataset()
    row = make_permutation(70, 0, 2)[place]

    class Poison(Callback):
        def on_epoch_end(self, state: TrainingState) -> None:
            data.train.tensors["image"][row] = math.nan

    settings = {"batch_size": 16, "accumulate": 2}
    with pytest.raises(TrainingFailed, match=rf"^train/loss became nan in epoch 2 at step {step}, "):
        make_trainer(data=data, settings=settings, callbacks=[Poison()]).fit()


# ---- losses whose samples do not count equally -----------------------------------------------------------------------


def train_weighted(data: Dataset, settings: dict[str, Any]) -> tuple[list[Tensor], dict[str, float]]:
    """The weights after training with weighted classes, of which one is ignored, and the last epoch's results."""
    loss = {"CrossEntropyLoss": {"weight": [1.0, 5.0, 20.0], "ignore_index": 1}}
    criterion = read_valid_criterion(loss, make_outputs(output=TensorInfo((3,), "features")), data)
    net = make_network().double()
    options: dict[str, Any] = {"optimizer_class": torch.optim.SGD, "lr": 0.02, "seed": 3}
    trainer = make_trainer(
        net, precise(data), criterion=criterion.double(), settings={"epochs": 3, **settings}, **options
    )
    trainer.fit()
    return [each.detach() for each in net.parameters()], dict(trainer.state.results)


@pytest.mark.parametrize("train", [63, 70])  # whole updates; a rest of one batch
def test_weighted_classes_equal_one_large_batch(train: int) -> None:
    data = make_dataset(train)
    several, several_results = train_weighted(data, {"batch_size": 3, "accumulate": 7})
    one, one_results = train_weighted(data, {"batch_size": 21})
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(several, one, strict=True))
    assert several_results["val/loss"] == pytest.approx(one_results["val/loss"], rel=1e-12)


def test_the_loss_of_a_split_is_the_same_after_a_checkpoint_in_its_middle() -> None:
    data = make_dataset(50)
    loss = {"CrossEntropyLoss": {"weight": [1.0, 5.0, 20.0]}}
    criterion = read_valid_criterion(loss, make_outputs(output=TensorInfo((3,), "features")), data)
    output, label = torch.randn(50, 3), data.train.targets["label"]
    whole = nn.functional.cross_entropy(output, label, torch.tensor([1.0, 5.0, 20.0])).item()
    scores = Scores(criterion, [])
    for start in range(0, 50, 4):
        given, target = output[start : start + 4], label[start : start + 4]
        scores.add(given, criterion(given, (target,)), (target,), len(target))
        if start in (12, 20):
            resumed = Scores(criterion, [])
            resumed.load_state_dict(scores.state_dict(), torch.device("cpu"))
            scores = resumed
    assert scores.results() == {"loss": pytest.approx(whole, rel=1e-6)}
    older = {name: each for name, each in scores.state_dict().items() if name != "weights"}
    resumed.load_state_dict(older, torch.device("cpu"))
    assert math.isfinite(resumed.results()["loss"])  # the steps of an older version count by their samples
