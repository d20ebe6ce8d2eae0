"""Runs trained as a stack, and each by itself, to compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from dlspec.data.dataset import Dataset
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.source_map import SourceMap
from dlspec.training.callbacks.callback import Callback
from dlspec.training.stacking.stack import Stack
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.trainer import Trainer

Spec = Mapping[str, Any]


def make_trainer(spec: Spec, data: Dataset | None = None, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Make the trainer of a spec, without progress and without files."""
    trainer = make_job(Preparation(spec, SourceMap, data=data), shows_progress=False).trainer
    trainer.set_callbacks(callbacks)
    return trainer


def train_alone(spec: Spec, data: Dataset | None = None) -> Trainer:
    """Train one spec."""
    trainer = make_trainer(spec, data)
    trainer.run()
    return trainer


def train_stacked(
    specs: Sequence[Spec],
    data: Dataset | None = None,
    make_callbacks: Callable[[int], Sequence[Callback]] = lambda _: (),
) -> list[Trainer | BaseException]:
    """Train specs as a stack; return the trainer of each, or its error."""

    def make_member(index: int, spec: Spec) -> StackMember:
        def train(member: StackMember) -> Trainer | BaseException:
            try:
                trainer = make_trainer(spec, data, make_callbacks(index))
                trainer.stack = member
                trainer.run()
            except BaseException as error:
                return error
            return trainer

        return StackMember(train)

    results = dict(Stack([make_member(index, spec) for index, spec in enumerate(specs)]).run())
    return [results[index] for index in range(len(specs))]


def get_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Return copies of the weights and buffers."""
    return {name: each.detach().clone() for name, each in trainer.model.network.state_dict().items()}
