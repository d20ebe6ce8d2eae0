"""Training for measurements of time and memory. The trainer can't be used afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from torch import Tensor

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.step.block_step import RowBlock
from dlspec.training.trainer import Trainer


def make_trial_training(trainer: Trainer) -> Callable[[int], None]:
    """Make a function that trains on a batch of the longest samples and waits for the device.

    The function's argument is the batch size to try.
    """
    batches, step = trainer.batches.make_training_batches(), trainer.backend.make_trial_step(trainer.state.optimizer)
    _set_training_mode(trainer)

    def train(batch_size: int) -> None:
        step(*batches.make_longest_batch(batch_size))[1].sum().item()

    return train


def prepare_training(trainer: Trainer, seed_offset: int = 0) -> BatchLoader:
    """Seed the generators as `fit` does, and return the batches of the training split."""
    seed_generators(trainer.data.seed + seed_offset)
    train = trainer.batches.make_training_batches()
    _set_training_mode(trainer)
    return train


def iterate_training_steps(trainer: Trainer, seed_offset: int = 0) -> Iterator[tuple[Tensor, int]]:
    """Train without end as `fit` does, but without results and callbacks. Yield each step's loss and batch size.

    `seed_offset` is added to the seed of the generators, to get other dropout masks.
    """
    state = trainer.state
    train = prepare_training(trainer, seed_offset)
    if not len(train):
        return
    for epoch in count(1):
        state.epoch, state.batch = epoch, 0
        steps = trainer.steps.make_training_steps(train)
        for each in steps.iterate_batches():
            if isinstance(each, RowBlock):
                assert steps.block_step is not None
                loss, num_batches = steps.block_step(each)[1], each.batches
            else:
                loss, num_batches = steps.step(*each)[1], 1
            rows = sum(train.sizes[state.batch : state.batch + num_batches])
            state.batch += num_batches
            yield loss, rows


def _set_training_mode(trainer: Trainer) -> None:
    trainer.state.network.train()
    trainer.optimization.freezing.freeze_running_statistics(trainer.state.network)
