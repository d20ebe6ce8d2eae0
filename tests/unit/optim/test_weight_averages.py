"""Averaged weights: PyTorch's own averages, judged and kept in place of the weights that are trained."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import dlspec
from dlspec.data.batches.batch_loader import make_permutation
from dlspec.data.dataset import Dataset
from dlspec.errors import UserError
from dlspec.language.sections.trainer_section import EMA, SWA
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.weight_averages import WeightAverage, make_average
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.checkpoints import CheckpointSaver
from dlspec.training.state import TrainingState
from helpers.toy_training import CrossEntropy, make_dataset, make_network, make_trainer

BATCH = 16


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


class Reference(Callback):
    """PyTorch's average of the same training, and the validation loss that it has after each epoch."""

    def __init__(self, net: nn.Module, data: Dataset, wanted: EMA | SWA) -> None:
        self.data, self.wanted = data, wanted
        average = get_ema_multi_avg_fn(wanted.decay) if isinstance(wanted, EMA) else None
        self.average = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
        self.losses: list[float] = []

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase == "train" and isinstance(self.wanted, EMA):
            self.average.update_parameters(state.network)

    def on_epoch_end(self, state: TrainingState) -> None:
        wanted = self.wanted
        if isinstance(wanted, SWA) and state.epoch >= (wanted.start_epoch or 0):
            self.average.update_parameters(state.network)
            rows = make_permutation(len(self.data.train), 0, state.epoch).split(BATCH)
            update_bn([self.data.train.tensors["image"][each] for each in rows], self.average)
        judged = self.average if self.average.n_averaged else state.network
        judged.eval()
        with torch.no_grad():
            output = judged(self.data.validation.tensors["image"])
            self.losses.append(nn.functional.cross_entropy(output, self.data.validation.target).item())

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.average.module.state_dict()


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name in theirs:
        if "num_batches" not in name:  # a counter, of which PyTorch takes a mean too
            assert torch.allclose(ours[name], theirs[name], atol=1e-6), name


@pytest.mark.parametrize("wanted", [EMA(decay=0.9), SWA(start_epoch=2)], ids=lambda each: each.type)
def test_equals_pytorchs_and_is_what_is_judged_kept_and_given(wanted: EMA | SWA, tmp_path: Path) -> None:
    net, data = normalised(), make_dataset(train=64)
    reference = Reference(net, data, wanted)
    settings = {"epochs": 4, "batch_size": BATCH, "average": wanted, "test": "last"}
    callbacks = [reference, CheckpointSaver(tmp_path, seconds=0)]
    training = make_trainer(net, data, lr=0.05, settings=settings, callbacks=callbacks)
    training.run()
    assert [row["val/loss"] for row in training.state.history] == pytest.approx(reference.losses, abs=1e-6)
    assert_equal(net.state_dict(), reference.weights)
    assert_equal(load_file(tmp_path / "last.safetensors"), reference.weights)
    best = normalised().eval()
    best.load_state_dict(load_file(tmp_path / "best.safetensors"))
    loss = nn.functional.cross_entropy(best(data.validation.tensors["image"]), data.validation.target).item()
    assert loss == pytest.approx(min(reference.losses), abs=1e-6)


def test_the_best_averaged_weights_are_tested() -> None:
    data, net = make_dataset(), make_network()
    settings = {"epochs": 3, "average": EMA(decay=0.5), "mode": "max"}  # the worst epoch, so surely not the last
    training = make_trainer(net, data, lr=0.05, settings=settings)
    result = training.run()
    assert result.best_epoch == 1
    with torch.no_grad():
        loss = nn.functional.cross_entropy(net(data.validation.tensors["image"]), data.validation.target).item()
    assert loss == pytest.approx(result.best["val/loss"], abs=1e-6)


@pytest.mark.parametrize("wanted", [EMA(decay=0.9), SWA(start_epoch=1)], ids=lambda each: each.type)
def test_training_goes_on_with_its_own_weights(wanted: EMA | SWA) -> None:
    def losses(average: EMA | SWA | None) -> list[float]:
        net = nn.Sequential(*normalised(), nn.Dropout(0.5))
        training = make_trainer(net, settings={"epochs": 3, "average": average}, lr=0.05)
        training.fit()
        return [row["train/loss"] for row in training.state.history]

    assert losses(wanted) == losses(None)


def test_swa_begins_with_the_last_quarter_and_keeps_frozen_statistics() -> None:
    net = normalised()
    until = dict.fromkeys(net[1].parameters())  # type: ignore[index]
    training = make_trainer(net, settings={"epochs": 8, "average": SWA()}, freezing=FrozenParameters(until))
    seen: list[bool] = []

    class Watch(Callback):
        def on_epoch_end(self, state: TrainingState) -> None:
            seen.append(state.evaluated_network is not state.network)

    training.callbacks.append(Watch())
    training.fit()
    assert seen == [False] * 6 + [True] * 2
    assert torch.equal(net[1].running_mean, torch.zeros(8))  # type: ignore[index,arg-type]


def test_what_is_never_averaged_stays_as_it_was_trained() -> None:
    plain, averaged = make_network(), make_network()
    make_trainer(plain, settings={"max_steps": 3, "epochs": 8}).fit()
    training = make_trainer(averaged, settings={"max_steps": 3, "epochs": 8, "average": SWA(start_epoch=5)})
    training.fit()
    assert all(torch.equal(a, b) for a, b in zip(averaged.parameters(), plain.parameters(), strict=True))


class Odd(nn.Module):
    """Tied weights, a mask, a buffer that is replaced, whole numbers, two precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3).to(torch.bfloat16)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.one.weight
        self.whole = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("mask", torch.full((3,), -torch.inf))
        self.register_buffer("seen", torch.zeros(()))


def _average(net: nn.Module) -> WeightAverage:
    made = make_average(net, EMA(decay=0.5), 1)
    assert made is not None
    return made


def _moved(net: Odd) -> None:
    with torch.no_grad():
        for each in net.parameters():
            each.add_(1)
        net.seen = net.seen + 1


def test_odd_networks_are_averaged() -> None:
    net = Odd()
    average, start = _average(net), net.one.weight.detach().clone()
    assert average.network is net
    for _ in range(2):
        _moved(net)
        average.update()
    copy: Any = average.network
    assert copy.tied.weight is copy.one.weight is not net.one.weight
    assert torch.allclose(copy.one.weight, start + 1.5)
    assert (copy.other.weight.dtype, copy.whole.tolist(), copy.seen.item()) == (torch.bfloat16, [2, 3, 4], 2)
    assert torch.equal(copy.mask, net.mask)
    assert not any(each.requires_grad for each in copy.parameters())


def test_goes_on_from_its_state() -> None:
    def weights(stop: int) -> dict[str, Tensor]:
        net = Odd()
        torch.manual_seed(0)
        net.load_state_dict({name: torch.ones_like(each) for name, each in net.state_dict().items()})
        average = _average(net)
        for step in range(5):
            _moved(net)
            average.update()
            if step == stop:
                file = io.BytesIO()
                torch.save(average.state_dict(), file)
                file.seek(0)
                average = _average(net)
                average.load_state_dict(torch.load(file, weights_only=True))
        return average.network.state_dict()

    whole, resumed = weights(9), weights(2)
    assert all(torch.equal(each, resumed[name]) for name, each in whole.items())


def test_recurrent_layers_are_averaged() -> None:
    net = nn.LSTM(3, 4)
    average = _average(net)
    average.update()
    batch = torch.randn(5, 2, 3)
    assert torch.equal(average.network(batch)[0], net(batch)[0])
    with torch.no_grad():
        net.weight_ih_l0.add_(1)
    average.update()
    assert not torch.equal(average.network(batch)[0], net(batch)[0])


def test_a_network_without_parameters_has_no_average() -> None:
    assert make_average(nn.Identity(), SWA(), 3) is None


def test_what_cant_be_copied_is_told() -> None:
    net = make_network()
    net.lock = threading.Lock()
    with pytest.raises(UserError, match=r"^trainer\.average: the network can't be copied: TypeError: "):
        make_trainer(net, criterion=CrossEntropy(), settings={"average": EMA()})


@pytest.mark.parametrize("spelling", ["EMA", {"EMA": 0.999}, {"EMA": {"decay": 0.999}}, {"type": "EMA"}])
def test_a_part_in_a_spec_and_in_the_spec_that_is_saved(spelling: Any, tmp_path: Path) -> None:
    spec = {"model": "linear", "data": {"limit": 40}, "trainer": {"average": spelling, "epochs": 1, "progress": "none"}}
    result = dlspec.train(spec, "digits", folder=tmp_path)
    assert result.spec["trainer"]["average"] == {"type": "EMA", "decay": 0.999}
    assert result.folder is not None
    kept = load_file(result.folder / "checkpoints" / "last.safetensors")
    assert all(torch.equal(kept[name], each) for name, each in result.network.state_dict().items())
    again = dlspec.train({"run": str(result.folder)})
    assert (again.results, again.spec) == (result.results, result.spec)
