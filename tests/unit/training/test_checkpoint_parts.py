"""A checkpoint is made of parts by name, and knows nothing of whose they are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from dlspec.errors import TrainingFailed
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import ImmutableState
from dlspec.training.checkpoint.stateful import ABSENT_PART, load_snapshot, take_snapshot
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


def test_it_imports_no_trainer() -> None:
    program = (
        "import sys, dlspec.training.checkpoint.stateful;"
        "sys.exit(any(name.startswith('dlspec.training.') and not name.startswith('dlspec.training.checkpoint')"
        " for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


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
