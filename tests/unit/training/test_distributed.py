"""One process: it takes whole batches, decides alone and writes."""

from __future__ import annotations

from dlspec.training.distributed import ProcessGroup, find_process_group
from dlspec.training.runtime.interruption import Interruption


def test_one_process_does_everything() -> None:
    group = find_process_group()
    assert (group.rank, group.world_size, group.is_writer) == (0, 1, True)
    assert (group.is_true_on_any_rank(True), group.is_true_on_any_rank(False)) == (True, False)


def test_it_costs_a_step_nothing() -> None:
    """The loop is given its own iterator and its own flag."""
    group, batches, interruption = find_process_group(), iter(()), Interruption()
    assert group.select_rank_samples(batches) is batches
    assert group.share_interruption(interruption) is interruption


def test_the_first_process_writes() -> None:
    assert [ProcessGroup(rank, 2).is_writer for rank in range(2)] == [True, False]
