"""`trainer.on_nan`: batches that are left out, weights that go back, and both in a run that is resumed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from dlspec.data.batches.batch_loader import make_permutation
from dlspec.data.dataset import Dataset
from dlspec.language.sections.trainer_section import EMA
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.state import TrainingState
from dlspec.training.trainer import Trainer
from helpers.failing_networks import (
    FunctionLayer,
    RareDivisionByZero,
    get_failure_message,
    make_stack,
    sqrt_of_positive,
)
from helpers.toy_training import make_dataset, make_trainer

SKIP, RESTORE = {"on_nan": "skip", "batch_size": 10}, {"on_nan": "restore", "batch_size": 10}


def spoiled(*places: tuple[int, int]) -> Dataset:
    """Data in which the sample at a place in an epoch's order is nan."""
    data = make_dataset()
    for epoch, place in places:
        data.train.tensors["image"][make_permutation(70, 0, epoch)[place]] = math.nan
    return data


class Noted(Callback):
    """The weights after each batch of training."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase == "train":
            self.weights.append(torch.cat([each.detach().flatten().clone() for each in state.network.parameters()]))


def ran(training: Trainer) -> tuple[Trainer, list[Tensor]]:
    noted = Noted()
    training.set_callbacks([noted])
    training.fit()
    return training, noted.weights


def test_a_batch_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    data = spoiled((1, 35))
    net = make_stack(nn.BatchNorm1d(16), nn.ReLU())
    training, weights = ran(make_trainer(net, data, settings={**SKIP, "epochs": 1}))
    assert [torch.equal(*pair) for pair in pairwise(weights)] == [False, False, True, False, False, False]
    assert training.state.step == 6
    assert training.state.history[0]["train/skipped"] == 1
    assert all(math.isfinite(each) for each in training.state.history[0].values())
    first, count = (each.message for each in caplog.records if each.levelname == "WARNING")
    row = int(make_permutation(70, 0, 1)[35])
    assert first == (
        "train/loss became nan in epoch 1 at step 4, learning rate 0.01: input 'image' has nan in sample "
        f"{row} of the training split (the first is 0); the batch is skipped"
    )
    assert count == "skipped 1 of 7 batches of epoch 1"


def test_its_updates_are_those_without_the_batch() -> None:
    """The samples of other batches are the same, in the same order."""
    rows = make_permutation(70, 0, 1)
    data, net = make_dataset(), make_stack(nn.ReLU())
    good = [index for index in range(70) if index // 10 != 3]
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for batch in rows[good].split(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.train.tensors["image"][batch]), data.train.target[batch]).backward()
        optimizer.step()
    skipping = make_stack(nn.ReLU())
    settings = {**SKIP, "epochs": 1}
    make_trainer(skipping, spoiled((1, 30)), lr=0.1, optimizer_class=torch.optim.SGD, settings=settings).fit()
    assert all(map(torch.equal, net.parameters(), skipping.parameters()))


def test_a_gradient_alone_is_enough() -> None:
    net = make_stack(FunctionLayer(sqrt_of_positive))
    said = get_failure_message(make_trainer(net, settings=SKIP))
    assert said.startswith("train/loss is finite, but a gradient is not, in epoch 1 at step 1, learning rate 0.01: ")
    assert said.endswith(
        "layer '1' (FunctionLayer) is the first to give a gradient of nan; 7 batches in a row were skipped"
    )
    assert all(each.isfinite().all() for each in net.parameters())


@pytest.mark.parametrize(
    ("place", "same"),
    [(25, [False, True, True, True, False, False]), (5, [True, True, False, True, False, False])],
)
def test_an_update_of_several_batches_is_whole_or_not(place: int, same: list[bool]) -> None:
    settings = {**SKIP, "epochs": 1, "accumulate": 2}
    training, weights = ran(make_trainer(make_stack(), spoiled((1, place)), settings=settings))
    assert [torch.equal(*pair) for pair in pairwise(weights)] == same
    assert training.state.step == 3


def test_to_tell_the_cause_changes_nothing() -> None:
    def run(told: int) -> Trainer:
        net = make_stack(nn.BatchNorm1d(16), nn.Dropout(0.3), RareDivisionByZero())
        training = make_trainer(net, settings={**SKIP, "epochs": 20})
        training.guard.policy._num_reported = told  # type: ignore[attr-defined]
        training.fit()
        return training

    told, silent = run(0), run(1000)
    assert sum(row["train/skipped"] for row in told.state.history) > 1
    assert told.state.history == silent.state.history


def test_too_many_in_a_row_end_the_run() -> None:
    said = get_failure_message(make_trainer(data=spoiled(*((1, place) for place in range(0, 70, 10))), settings=SKIP))
    assert said.endswith("; 7 batches in a row were skipped")
    data = spoiled(*((1, place) for place in range(60)))
    assert make_trainer(data=data, settings={**SKIP, "batch_size": 10, "epochs": 1}).fit().results["train/skipped"] == 6


def test_steps_that_were_not_made_are_made_up_for() -> None:
    training = make_trainer(data=spoiled((1, 5), (2, 5)), settings={**SKIP, "max_steps": 9, "epochs": 9})
    assert training.fit().steps == 9


# ---- going back ------------------------------------------------------------------------------------------------------


def test_the_weights_go_back(caplog: pytest.LogCaptureFixture) -> None:
    net = make_stack(nn.BatchNorm1d(16))
    optimizer = make_optimizer(torch.optim.Adam, net.parameters(), {"lr": 0.1})
    schedule = Schedule(ExponentialLR(optimizer, 0.5), "step")
    settings = {**RESTORE, "epochs": 1, "average": EMA(decay=0.5)}
    training = make_trainer(net, spoiled((1, 35)), optimizer=optimizer, schedule=schedule, settings=settings)
    start = torch.cat([each.detach().flatten().clone() for each in net.parameters()])
    moments: list[float] = []

    class Watch(Noted):
        def on_step_end(self, state: TrainingState) -> None:
            super().on_step_end(state)
            moments.append(len(optimizer.state))

    watch = Watch()
    training.set_callbacks([watch])
    training.fit()
    assert torch.equal(watch.weights[3], start)
    assert not torch.equal(watch.weights[4], start)
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**6
    assert training.state.step == 6
    assert moments[2:5] == [6, 0, 6]
    assert "; the weights are restored from the start of the epoch" in caplog.text


def test_the_optimizer_goes_back_each_time() -> None:
    moments: list[Tensor] = []

    class Watch(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            if state.phase == "train" and state.epoch == 2:
                own = state.optimizer.state_dict()["state"]  # type: ignore[union-attr]
                moments.append(torch.cat([each["exp_avg"].flatten() for each in own.values()]))

    data = make_dataset()
    training = make_trainer(make_stack(), data, settings={**RESTORE, "epochs": 2}, callbacks=[Watch()])
    training.callbacks[-1].on_epoch_end = lambda state: [  # type: ignore[method-assign, misc]
        data.train.tensors["image"][make_permutation(70, 0, 2)[place]].fill_(math.nan) for place in (35, 55)
    ]
    training.fit()
    assert torch.equal(moments[3], moments[5])
    assert not torch.equal(moments[3], moments[4])


def test_after_three_times_it_fails() -> None:
    data = spoiled((1, 5), (1, 25), (1, 45))
    assert make_trainer(data=data, settings={**RESTORE, "epochs": 1}).fit().steps == 4
    data = spoiled((1, 5), (1, 25), (1, 45), (1, 65))
    said = get_failure_message(make_trainer(data=data, settings={**RESTORE, "epochs": 1}))
    assert said.endswith("; the weights were restored 3 times from the start of an epoch")


def test_a_learning_rate_that_falls_gets_by(caplog: pytest.LogCaptureFixture) -> None:
    """Divergence, truly: the loss overflows at the first rates."""
    net = make_stack(FunctionLayer(lambda x: x.exp()))
    optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 1e4})
    schedule = Schedule(ExponentialLR(optimizer, 1e-3), "step")
    training = make_trainer(net, optimizer=optimizer, schedule=schedule, settings={**RESTORE, "epochs": 2})
    training.fit()
    assert 1 <= caplog.text.count("the weights are restored") <= 3
    assert math.isfinite(training.state.results["train/loss"])


# ---- resumed ---------------------------------------------------------------------------------------------------------


class Keep(Callback):
    """A snapshot after a number of batches of training."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.kept: Snapshot | None = None

    def on_step_end(self, state: TrainingState) -> None:
        self.left -= state.phase == "train"
        if not self.left and self.kept is None:
            self.kept = state.snapshot()


@pytest.mark.parametrize("on_nan", ["skip", "restore"])
@pytest.mark.parametrize("batches", [2, 4, 5, 7, 9, 12])
def test_resumed_it_is_the_same(on_nan: str, batches: int) -> None:
    def made(callbacks: list[Callback]) -> Trainer:
        net = make_stack(nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU())
        settings = {"on_nan": on_nan, "batch_size": 10, "epochs": 3, "average": EMA(decay=0.9), "max_steps": 14}
        return make_trainer(net, spoiled((1, 35)), settings=settings, callbacks=callbacks)

    keep = Keep(batches)
    straight = made([keep])
    straight.run()
    assert keep.kept is not None
    resumed = made([])
    resumed.restore(keep.kept)
    resumed.run()
    assert resumed.state.history == straight.state.history
    assert resumed.state.test_results == straight.state.test_results
    pairs = zip(resumed.state.network.state_dict().values(), straight.state.network.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_another_policy_may_go_on() -> None:
    keep = Keep(3)
    make_trainer(settings=RESTORE, callbacks=[keep]).fit()
    assert keep.kept is not None
    resumed = make_trainer(settings=SKIP)
    resumed.restore(keep.kept)
    assert resumed.fit().results["train/skipped"] == 0
