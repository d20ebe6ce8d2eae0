"""A checkpoint is made of parts by name, and knows nothing of whose they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from dlspec.errors import TrainingFailed
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import ImmutableState
from dlspec.training.checkpoint.stateful import ABSENT_PART, load_snapshot, take_snapshot
from dlspec.training.checkpoint_parts import NetworkState, OptimizerState
from dlspec.training.state import TrainingState
from helpers.toy_training import make_network, make_trainer


class Part:
    def __init__(self, own: Any = None) -> None:
        self.training_settings = own

    def state_dict(self) -> Any:
        return self.training_settings

    def load_state_dict(self, state: Any, /) -> None:
        self.training_settings = state


def test_parts_come_back() -> None:
    weights = torch.arange(3.0)
    snapshot = take_snapshot(7, {"count": Part({"steps": 7}), "weights": Part([weights]), "none": ABSENT_PART})
    weights += 1  # the snapshot has copies
    assert list(snapshot.to_state_dict()) == ["count", "weights", "none"]
    count, loaded = Part(), Part()
    load_snapshot(snapshot, {"weights": loaded, "count": count, "none": ABSENT_PART})
    assert (snapshot.step, count.training_settings, loaded.training_settings[0].tolist()) == (
        7,
        {"steps": 7},
        [0.0, 1.0, 2.0],
    )


def test_what_changes_no_more_is_not_copied() -> None:
    weights = torch.zeros(2)
    snapshot = take_snapshot(0, {"callbacks": Part([["best", ImmutableState({"w": weights}, "callback.best")]])})
    assert snapshot.tensors["callback.best.w"].data_ptr() == weights.data_ptr()


def test_a_part_may_have_been_added_later() -> None:
    snapshot, part = take_snapshot(3, {"a": Part(1)}), Part(2)
    load_snapshot(snapshot, {"a": Part(), "b": part}, optional=["b"])
    assert part.training_settings == 2
    with pytest.raises(TrainingFailed, match=r"^the checkpoint of step 3 does not fit this run: KeyError: 'b'$"):
        load_snapshot(snapshot, {"b": part})


def make_layers(width: int, first: str, count: int = 3) -> nn.Module:
    """Make copies of a block with two layers, as a user's own code may have them."""
    copies = [nn.ModuleDict({first: nn.Linear(4, width), "back": nn.Linear(width, 4)}) for _ in range(count)]
    return nn.ModuleDict({"blocks": nn.ModuleList(copies)})


@pytest.mark.parametrize(
    "module, said",
    [
        (make_layers(6, "a"),
         "9 tensors of the file have other shapes than the model's: blocks.*.a.weight (3): (8, 4) instead of (6, 4); "
         "blocks.*.a.bias (3): (8,) instead of (6,); blocks.*.back.weight (3): (4, 8) instead of (4, 6)"),
        (make_layers(8, "b"),
         "no name of the model matches 6 tensors of the file: blocks.*.a.* (6); "
         "the file has nothing for 6 tensors of the model: blocks.*.b.* (6)"),
        (make_layers(8, "a", 5), "the file has nothing for 8 tensors of the model: blocks.3.* (4), blocks.4.* (4)"),
        (make_layers(8, "a", 2),
         "no name of the model matches 4 tensors of the file: "
         "blocks.2.a.weight, blocks.2.a.bias, blocks.2.back.weight, blocks.2.back.bias"),
    ],
)  # fmt: skip
def test_all_that_differs_in_a_network_is_said_at_once(module: nn.Module, said: str) -> None:
    snapshot = take_snapshot(3, {"network": NetworkState(make_layers(8, "a"))})
    weights = {name: each.clone() for name, each in module.state_dict().items()}
    with pytest.raises(TrainingFailed) as caught:
        load_snapshot(snapshot, {"network": NetworkState(module)})
    start = "the checkpoint of step 3 does not fit this run: "
    assert str(caught.value).startswith(f"{start}{said}. Put back the code of your own layers")
    assert all(torch.equal(each, weights[name]) for name, each in module.state_dict().items())


def test_parameters_that_the_optimizer_no_longer_updates_are_named() -> None:
    module = make_layers(8, "a")
    snapshot = take_snapshot(3, {"optimizer": OptimizerState(SGD(module.parameters()), module)})
    frozen = make_layers(8, "a").requires_grad_(False)
    trained = [each.requires_grad_() for name, each in frozen.named_parameters() if ".a." not in name]
    with pytest.raises(TrainingFailed, match=r"the optimizer no longer updates blocks\.\*\.a\.\* \(6\)\. Put back"):
        load_snapshot(snapshot, {"optimizer": OptimizerState(SGD(trained), frozen)})


def test_a_run_that_goes_on_can_be_kept_before_its_first_step() -> None:
    class Keep(Callback):
        """A snapshot after two batches, or where the training begins."""

        def __init__(self, *, at_start: bool) -> None:
            self.at_start = at_start
            self.kept: Snapshot | None = None

        def on_train_start(self, state: TrainingState) -> None:
            if self.at_start:
                self.kept = state.snapshot()

        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 2 and state.phase == "train" and not self.at_start:
                self.kept = state.snapshot()

    first, second = Keep(at_start=False), Keep(at_start=True)
    straight = make_trainer(make_network(), settings={"batch_size": 10}, callbacks=[first])
    straight.fit()
    assert first.kept is not None
    resumed = make_trainer(make_network(), settings={"batch_size": 10}, callbacks=[second])
    resumed.restore(first.kept)
    resumed.fit()
    assert second.kept is not None
    again = make_trainer(make_network(), settings={"batch_size": 10})
    again.restore(second.kept)
    again.fit()
    assert straight.state.history == resumed.state.history == again.state.history
