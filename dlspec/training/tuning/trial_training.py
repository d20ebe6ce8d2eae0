"""Training to try what it takes: the trainer is of no use afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from torch import Tensor

from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.trainer import Trainer


def make_trial_training(trainer: Trainer) -> Callable[[int], None]:
    """Trains on a batch of so many samples, the longest ones, and waits for it: to try what a size needs."""
    batches, step = trainer.batches.make_training_batches(), trainer.backend.make_trial_step(trainer.state.optimizer)
    _set_training_mode(trainer)

    def train(batch_size: int) -> None:
        step(*batches.make_longest_batch(batch_size))[1].sum().item()

    return train


def iterate_training_steps(trainer: Trainer, seed_offset: int = 0) -> Iterator[tuple[Tensor, int]]:
    """Trains as `fit` does, without results and callbacks, and never ends; gives each step's loss and samples.

    To try what settings cost. With other `draws` dropout and its like draw other numbers.
    """
    state, seed = trainer.state, trainer.data.seed
    seed_generators(seed + seed_offset)
    train = trainer.batches.make_training_batches()
    step = trainer.steps.make_training_step(train)
    _set_training_mode(trainer)
    if not len(train):
        return
    for epoch in count(1):
        state.epoch = epoch
        batches = zip(train.iterate_shuffled(seed, epoch), train.sizes, strict=True)
        for batch, ((inputs, targets), rows) in enumerate(batches):
            state.batch = batch
            yield step(inputs, targets)[1], rows


def _set_training_mode(trainer: Trainer) -> None:
    trainer.state.network.train()
    trainer.optimization.freezing.freeze_running_statistics(trainer.state.network)
