"""The loop: what it computes, in which order, and how it ends."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils._python_dispatch import TorchDispatchMode

import dlspec
from dlspec.data.batches.batch_loader import make_permutation
from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.errors import TrainingFailed, UserError
from dlspec.language.sections.trainer_section import EMA
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.metric_monitor import MetricMonitor, choose_monitor_mode
from dlspec.training.state import TrainingState
from helpers.toy_training import (
    Accuracy,
    CrossEntropy,
    SquaredError,
    Targets,
    make_dataset,
    make_network,
    make_split,
    make_trainer,
)


class Recorder(Callback):
    """Writes down which moments came, and what the learning rate was in each step."""

    def __init__(self) -> None:
        self.moments: list[str] = []
        self.rates: list[float] = []

    def on_train_start(self, state: TrainingState) -> None:
        self.moments.append("train start")

    def on_epoch_start(self, state: TrainingState) -> None:
        self.moments.append(f"epoch {state.epoch}")

    def on_step_end(self, state: TrainingState) -> None:
        self.moments.append(f"{state.phase} {state.batch}/{state.batches}")
        self.rates += [state.lr or 0.0] if state.phase == "train" else []

    def on_epoch_end(self, state: TrainingState) -> None:
        self.moments.append("epoch end")

    def on_train_end(self, state: TrainingState) -> None:
        self.moments.append("train end")

    def on_test_start(self, state: TrainingState) -> None:
        self.moments.append("test start")

    def on_test_end(self, state: TrainingState) -> None:
        self.moments.append("test end")

    def close(self, state: TrainingState) -> None:
        self.moments.append(f"close {state.status}")


class Scripted(Callback):
    """Puts `values` in the place of val/loss, so that a test decides which epoch is best."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.weights: list[Tensor] = []

    def on_epoch_start(self, state: TrainingState) -> None:
        values, monitor = self.values, state.monitor
        monitor.update = lambda _, epoch: MetricMonitor.update(monitor, values[epoch - 1], epoch)  # type: ignore[method-assign]

    def on_epoch_end(self, state: TrainingState) -> None:
        self.weights.append(state.network[0].weight.detach().clone())  # type: ignore[index]


class WaitCounter(TorchDispatchMode):
    """Counts what makes the host wait for the device: operations, and the methods that read a tensor without one."""

    WAITS = ("aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.nonzero", "aten.equal")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.waits: list[str] = []
        for name in ("tolist", "numpy", "cpu"):
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def _counted(self, name: str, method: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.waits.append(name)
            return method(*args, **kwargs)

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(self.WAITS):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


def test_overfits_eight_rows() -> None:
    data = Dataset("eight", make_dataset().fields, make_dataset().targets, make_split(8), make_split(8), make_split(8))
    result = make_trainer(data=data, lr=0.05, settings={"epochs": 150}).run()
    assert result.results["train/loss"] < 0.01
    assert result.results["train/accuracy"] == result.test["test/accuracy"] == 1.0
    assert result.status == "finished"
    assert (result.epochs, result.steps, result.parameters) == (150, 150, 4 * 16 + 16 + 16 * 3 + 3)


def test_moments_come_in_order() -> None:
    recorder = Recorder()
    make_trainer(settings={"epochs": 1, "batch_size": 32}, callbacks=[recorder]).run()
    training = ["train start", "epoch 1", "train 1/3", "train 2/3", "train 3/3", "val 1/1", "epoch end", "train end"]
    assert recorder.moments == [*training, "close finished", "test start", "test 1/1", "test end", "close finished"]


def test_epoch_means_are_over_samples_with_a_partial_last_batch() -> None:
    """A frozen network: the epoch's loss must be the whole split's, though its batches hold 32, 32 and 6."""
    net, data = make_network(), make_dataset()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    result = make_trainer(net, data, settings={"epochs": 1, "eval_batch_size": 7}).fit()
    for phase, part in (("train", data.train), ("val", data.validation)):
        output = net(part.tensors["image"])
        expected = nn.functional.cross_entropy(output, part.target).item()
        assert result.results[f"{phase}/loss"] == pytest.approx(expected, rel=1e-6)
        right = (output.argmax(1) == part.target).float().mean().item()
        assert result.results[f"{phase}/accuracy"] == pytest.approx(right)
    assert result.steps == 0


def test_equals_the_loop_that_one_would_write_by_hand() -> None:
    ours, theirs, data = make_network(), make_network(), make_dataset()
    make_trainer(ours, data, lr=0.03, settings={"epochs": 3}, seed=5).fit()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.03, fused=True)
    for epoch in (1, 2, 3):
        for rows in make_permutation(70, 5, epoch).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs(data.train.tensors["image"][rows]), data.train.target[rows]).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_modes_are_right_in_each_phase() -> None:
    seen: set[tuple[str, bool, bool]] = set()

    class Watch(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            seen.add((state.phase, state.network.training, torch.is_inference_mode_enabled()))

    make_trainer(callbacks=[Watch()]).run()
    assert seen == {("train", True, False), ("val", False, True), ("test", False, True)}


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"average": EMA()}], ids=str)
def test_no_step_waits_for_the_device(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 1, "clip_grad_norm": 1.0, "clip_grad_value": 0.5, "eval_batch_size": 8, **more}
    waits: dict[str, list[int]] = {}

    class Watch(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            waits.setdefault(state.phase, []).append(len(counter.waits))

    training = make_trainer(settings=settings, callbacks=[Watch()])
    training.guard.always_checks_before_update = False  # as where waiting costs something
    with WaitCounter(monkeypatch) as counter:
        assert (torch.ones(()).item(), torch.ones(1).tolist()) == (1.0, [1.0])
        assert len(counter.waits) == 2, "it sees a wait when there is one"
        training.run()
    assert {phase: (len(each), len(set(each))) for phase, each in waits.items()} == {
        "train": (3, 1),
        "val": (4, 1),
        "test": (3, 1),
    }
    assert waits["train"][-1] < waits["val"][0], "an epoch's end reads its results"


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert torch.equal(make_permutation(50, 3, 2), make_permutation(50, 3, 2))
    orders = [tuple(make_permutation(50, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert sorted(orders[0]) == list(range(50))


@pytest.mark.parametrize(
    ("settings", "epochs", "steps"),
    [
        ({"limit_batches": 2, "epochs": 2}, 2, 4),
        ({"max_steps": 4, "epochs": 5}, 2, 4),
        ({"max_steps": 2, "epochs": 5}, 1, 2),
        ({"max_steps": 100, "epochs": 2}, 2, 6),
        ({"max_steps": 6, "epochs": 9}, 2, 6),
    ],
)
def test_limits(settings: dict[str, int], epochs: int, steps: int) -> None:
    result = make_trainer(settings=settings).fit()
    assert (result.epochs, result.steps) == (epochs, steps)


def test_samples_count_what_was_trained_on() -> None:
    training = make_trainer(settings={"epochs": 5, "max_steps": 4})
    training.fit()
    assert [row["samples"] for row in training.state.timing] == [70, 32]


def test_clipping() -> None:
    def largest(settings: dict[str, float]) -> tuple[float, float]:
        training = make_trainer(settings={"epochs": 1, "max_steps": 1, **settings})
        training.fit()
        gradients = torch.cat(
            [each.grad.flatten() for each in training.state.network.parameters() if each.grad is not None]
        )
        return gradients.norm().item(), gradients.abs().max().item()

    norm, value = largest({})
    assert largest({"clip_grad_norm": norm / 2})[0] == pytest.approx(norm / 2, rel=1e-4)
    assert largest({"clip_grad_value": value / 2})[1] == pytest.approx(value / 2, rel=1e-6)
    assert largest({"clip_grad_norm": norm * 2}) == (norm, value)


def test_stops_early_and_tests_the_best_weights() -> None:
    script = Scripted([0.5, 0.3, 0.4, 0.3, 0.35, 0.1])
    training = make_trainer(settings={"epochs": 6, "patience": 3}, callbacks=[script])
    result = training.run()
    assert (result.epochs, result.best_epoch, result.monitored) == (5, 2, 0.3)
    assert result.stop_reason == "val/loss has not improved for 3 epochs; the best epoch is 2"
    weight = training.state.network[0].weight  # type: ignore[index]
    assert torch.equal(weight, script.weights[1])
    assert not torch.equal(weight, script.weights[4])


def test_last_weights_are_tested_where_that_is_asked() -> None:
    script = Scripted([0.1, 0.2, 0.3])
    training = make_trainer(settings={"epochs": 3, "test": "last"}, callbacks=[script])
    assert training.run().best_epoch == 1
    assert torch.equal(training.state.network[0].weight, script.weights[2])  # type: ignore[index]


def test_schedules_step_when_they_should() -> None:
    def rates(interval: str) -> list[float]:
        net, recorder = make_network(), Recorder()
        optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 1.0})
        schedule = Schedule(StepLR(optimizer, step_size=1, gamma=0.5), interval)  # type: ignore[arg-type]
        make_trainer(net, optimizer=optimizer, schedule=schedule, callbacks=[recorder]).fit()
        return recorder.rates

    assert rates("epoch") == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert rates("step") == [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]


def test_plateau_gets_the_monitored_result() -> None:
    net = make_network()
    optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 1e-5})
    plateau = ReduceLROnPlateau(optimizer, mode="max", patience=0, factor=0.1)
    settings = {"epochs": 3, "monitor": "val/accuracy"}
    training = make_trainer(net, optimizer=optimizer, schedule=Schedule(plateau), settings=settings)
    training.fit()
    assert [row["lr"] for row in training.state.history] == pytest.approx([1e-5, 1e-5, 1e-6])
    assert plateau.best == training.state.history[0]["val/accuracy"]


def test_nan_stops_the_run_with_one_line() -> None:
    data = make_dataset()
    training = make_trainer(data=data, optimizer_class=torch.optim.SGD, lr=0.5, settings={"test": "none"})
    row = make_permutation(70, 0, 2)[40]  # trained on in the second batch of the second epoch
    poison = Recorder()
    poison.on_epoch_end = lambda state: data.train.tensors["image"][row].fill_(math.nan)  # type: ignore[method-assign]
    training.callbacks.append(poison)
    with pytest.raises(TrainingFailed) as failure:
        training.fit()
    assert str(failure.value) == (
        "train/loss became nan in epoch 2 at step 5, learning rate 0.5: "
        f"input 'image' has nan in sample {row} of the training split (the first is 0); fix that sample, "
        "or leave such batches out: trainer.on_nan=skip"
    )
    assert training.state.status == "failed"
    assert training.state.error == str(failure.value)
    assert len(training.state.history) == 1


def test_nan_in_validation_alone_stops_it_too() -> None:
    data = make_dataset()
    data.validation.tensors["image"][17] = math.nan
    where = r"in epoch 1 at step 3, learning rate 0\.01"
    text = r"input 'image' has nan in sample 17 of the validation split \(the first is 0\); fix that sample$"
    with pytest.raises(TrainingFailed, match=rf"^val/loss became nan {where}: {text}"):
        make_trainer(data=data, settings={"eval_batch_size": 8}).fit()


def test_an_interrupt_goes_up_after_everything_is_closed() -> None:
    class Interrupt(Recorder):
        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 4:
                raise KeyboardInterrupt

    class Careless(Callback):
        def close(self, state: TrainingState) -> None:
            raise ValueError("does not close")

    recorder = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(callbacks=[Careless(), recorder]).fit()
    assert recorder.moments[-1] == "close interrupted"


def test_unknown_monitor_is_refused_before_training() -> None:
    with pytest.raises(UserError) as failure:
        make_trainer(settings={"monitor": "val/acuracy"})
    text = "trainer.monitor: epochs have no result 'val/acuracy'; did you mean 'val/accuracy'?"
    assert str(failure.value) == text


def test_without_validation_training_is_monitored(caplog: pytest.LogCaptureFixture) -> None:
    result = make_trainer(data=make_dataset(validation=0, test=0)).run()
    assert result.monitor == "train/loss"
    assert "val/loss" not in result.results
    assert result.test == {}
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        "no validation split: monitoring train/loss instead of val/loss"
    ]


def test_an_empty_training_split_fails_clearly() -> None:
    with pytest.raises(TrainingFailed, match=r"^the training split of 'toy' is empty$"):
        make_trainer(data=make_dataset(train=0)).fit()


def test_unknown_device_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"^trainer.device: no device 'tpu' on this machine; available: auto, cpu"):
        make_trainer(settings={"device": "tpu"})


def test_a_network_without_parameters_is_evaluated() -> None:
    result = make_trainer(nn.Identity(), data=_three_numbers(), optimizer=None, settings={"epochs": 1}).run()
    assert result.steps == result.parameters == 0
    assert "lr" not in result.results
    assert result.test["test/loss"] > 0


def _three_numbers() -> Dataset:
    part = Split({"image": torch.randn(10, 3)}, {"label": torch.zeros(10, dtype=torch.int64)})
    return Dataset("numbers", (Field("image", (3,), "features"),), make_dataset().targets, part, part, part)


def test_lbfgs_trains() -> None:
    torch.manual_seed(0)
    image = torch.randn(40, 3)
    part = Split({"image": image}, {"label": image @ torch.tensor([1.0, -2.0, 0.5])})
    data = Dataset("line", (Field("image", (3,), "features"),), (Target("label", "numbers"),), part, part, part)
    options = {"criterion": SquaredError(), "metrics": [], "optimizer_class": torch.optim.LBFGS, "lr": 1.0}
    result = make_trainer(nn.Linear(3, 1), data, settings={"batch_size": 40, "epochs": 3}, **options).fit()  # type: ignore[arg-type]
    assert result.results["train/loss"] < 1e-8
    assert result.steps == 3


def test_a_last_single_sample_does_not_break_batch_normalisation() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert make_trainer(net, make_dataset(train=65), settings={"epochs": 1}).fit().steps == 2


def test_metrics_may_be_made_late_and_are_moved() -> None:
    made: list[Accuracy] = []

    def make() -> list[dict[str, Accuracy]]:
        made.append(Accuracy())
        return [{"accuracy": made[-1]}]

    assert "val/accuracy" in make_trainer(metrics=make).fit().results
    assert len(made) == 1


def test_several_outputs_reach_the_criterion() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_network()

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(image), image

    class First(CrossEntropy):
        def forward(self, output: tuple[Tensor, Tensor], targets: Targets) -> Tensor:  # type: ignore[override]
            return super().forward(output[0], targets)

        def make_metric_pairs(self, output: tuple[Tensor, Tensor], targets: Targets) -> list[tuple[Tensor, Tensor]]:  # type: ignore[override]
            return super().make_metric_pairs(output[0], targets)

    several = make_trainer(Two(), criterion=First()).fit().results
    assert several == make_trainer(make_network()).fit().results


def test_best_is_the_first_of_equals_and_auto_knows_the_direction() -> None:
    monitor = MetricMonitor("val/accuracy", "max")
    for epoch, value in enumerate([math.nan, 0.5, 0.7, 0.7, 0.6], start=1):
        monitor.update(value, epoch)
    assert (monitor.mode, monitor.epoch, monitor.value) == ("max", 3, 0.7)
    names = ("val/loss", "val/MeanSquaredError", "val/perplexity", "val/f1")
    modes = [choose_monitor_mode("auto", name, {}) for name in names]
    assert modes == ["min", "min", "min", "max"]


def test_seconds_and_speed_are_reported() -> None:
    training = make_trainer()
    result = training.fit()
    assert all(row["seconds"] >= row["train_seconds"] > 0 for row in training.state.timing)
    assert result.timing["samples_per_second"] > 0
    assert all(a["epoch"] < b["epoch"] for a, b in pairwise(training.state.timing))


def test_a_metric_says_itself_whether_more_of_it_is_better() -> None:
    distance = SimpleNamespace(higher_is_better=False)
    assert choose_monitor_mode("auto", "val/hamming_distance", {"hamming_distance": distance}) == "min"
    assert choose_monitor_mode("max", "val/hamming_distance", {"hamming_distance": distance}) == "max"
    assert choose_monitor_mode("auto", "val/unheard_of", {}) == "max"


def test_a_network_that_is_frozen_whole_learns_from_the_epoch_on_that_it_thaws_in() -> None:
    net = make_network()
    training = make_trainer(net, settings={"epochs": 3}, freezing=FrozenParameters(dict.fromkeys(net.parameters(), 3)))
    training.fit()
    assert [row["step"] for row in training.state.timing] == [0, 0, 3]


def test_a_metric_that_is_not_defined_for_a_split_is_nan_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    generator = torch.Generator().manual_seed(0)
    data = {"x": torch.randn(12, 3, generator=generator), "target": torch.randn(12, generator=generator)}
    spec = {
        "layers": [{"Linear": 1}],
        "metrics": ["R2Score", "MeanSquaredError"],
        "trainer": {"epochs": 2, "progress": "none"},
    }
    found = dlspec.train(spec, data)
    assert len(found.history) == 2
    assert all(math.isnan(each["val/r2_score"]) for each in found.history)
    assert all(each["val/mean_squared_error"] == pytest.approx(each["val/loss"]) for each in found.history)
    warnings = [each.message for each in caplog.records if "r2_score" in each.message]
    assert len(warnings) == 1
    assert "needs at least two samples" in warnings[0].lower()
