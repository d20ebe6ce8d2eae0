"""One process, and which samples of a batch each of several processes takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlspec.data.batches.batch_loader import compute_batch_sizes
from dlspec.data.batches.batch_share import BatchShare, select_rows
from dlspec.training.distributed import ProcessGroup, count_started_processes, find_process_group
from dlspec.training.runtime.interruption import Interruption
from dlspec.training.step.step_functions import compute_batch_weights


def test_one_process_does_everything() -> None:
    group = find_process_group()
    assert (group.rank, group.world_size, group.is_writer, group.is_parallel) == (0, 1, True, False)
    assert (group.is_true_on_any_rank(True), group.is_true_on_any_rank(False)) == (True, False)
    assert (group.broadcast(3), group.gather(3)) == (3, [3])


def test_it_costs_a_step_nothing() -> None:
    """The loop is given its own flag."""
    group, interruption = find_process_group(), Interruption()
    assert group.share_interruption(interruption) is interruption


def test_the_first_process_writes() -> None:
    assert [ProcessGroup(rank, 2).is_writer for rank in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("variables", "processes"),
    [({}, 1), ({"WORLD_SIZE": "4"}, 1), ({"WORLD_SIZE": "4", "MASTER_ADDR": "localhost"}, 4)],
)  # other launchers set WORLD_SIZE too
def test_processes_of_torchrun(variables: dict[str, str], processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert count_started_processes() == processes


@given(samples=st.integers(1, 60), batch_size=st.integers(1, 12), world_size=st.integers(1, 5), is_even=st.booleans())
def test_every_sample_has_one_process(samples: int, batch_size: int, world_size: int, is_even: bool) -> None:
    sizes = compute_batch_sizes(samples, batch_size, 2)
    order, found = torch.randperm(samples), []
    for rank in range(world_size):
        share = BatchShare(rank, world_size, is_even)
        rows = share.find_rows(sizes, batch_size)
        own = [share.divide(size, batch_size)[rank] for size in sizes]
        selected, counts = select_rows(order, rows)
        assert counts == [max(each, 1) for each in own]
        parts = torch.split(selected, counts)
        found += [each for part, size in zip(parts, own, strict=True) for each in part[:size].tolist()]
    assert sorted(found) == list(range(samples))


def test_a_small_last_batch_is_cut_like_small_batches() -> None:
    share = BatchShare(0, 3)
    assert [share.divide(size, 9) for size in (9, 7, 2, 10)] == [[3, 3, 3], [3, 3, 1], [2, 0, 0], [4, 4, 2]]
    assert BatchShare(0, 3, is_even=True).divide(7, 9) == [3, 2, 2]


def test_weights_of_two_processes_are_those_of_accumulated_batches() -> None:
    weights = compute_batch_weights([4, 4, 4, 1], 1, None, 2)
    accumulated = compute_batch_weights([4, 4, 4, 1], 2)
    assert [each.weight for each in weights] == [each.weight for each in accumulated] == [0.5, 0.5, 0.8, 0.2]
    assert all(each.is_first and each.is_last for each in weights)
    both = compute_batch_weights([2, 2, 2, 1, 2, 0], 2, None, 2)
    assert [(each.is_first, each.is_last) for each in both] == [
        (True, False), (True, False), (False, True), (False, True), (True, True), (True, True)
    ]  # fmt: skip
