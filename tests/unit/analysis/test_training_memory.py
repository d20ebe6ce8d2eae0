"""The memory of one of several processes: counted by hand, and compared with what FSDP2 gives to a process of eight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed, nn, optim

from dlspec.analysis.costs import LayerCost
from dlspec.analysis.training_memory import TrainingStep


def make_network() -> nn.Module:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6)) for _ in range(3)))
    return nn.Sequential(OrderedDict(stem=nn.Linear(4, 6), blocks=blocks, head=nn.Linear(6, 3, bias=False)))


def make_step(network: nn.Module, optimizer: Any = optim.Adam, **changes: Any) -> TrainingStep:
    settings = {"cost": LayerCost(saved_bytes=100), "batch_size": 8, "keeps_average": False,
                "blocks": ["blocks.0", "blocks.1", "blocks.2"], **changes}  # fmt: skip
    return TrainingStep(network, optimizer(network.parameters(), lr=0.1), **settings)


BLOCK, REST = 4 * (6 * 10 + 10 + 10 * 6 + 6), 4 * (4 * 6 + 6 + 6 * 3)
WEIGHTS = 3 * BLOCK + REST


def test_one_process_holds_everything() -> None:
    step = make_step(make_network(), keeps_average=True)
    assert step.estimate_memory().parts == {
        "weights": WEIGHTS, "gradients": WEIGHTS, "Adam's state": 2 * WEIGHTS, "averaged weights": WEIGHTS,
        "activations": 800,
    }  # fmt: skip
    assert step.estimate_memory("ddp", 1).parts == step.estimate_memory("fsdp", 1).parts == step.estimate_memory().parts


def test_ddp_divides_only_the_batch() -> None:
    parts = make_step(make_network(), optim.SGD, cost=LayerCost(saved_bytes=1000)).estimate_memory("ddp", 3).parts
    assert parts == {"weights": WEIGHTS, "gradients": WEIGHTS, "SGD's state": 0, "activations": 3000}
    parts = make_step(make_network(), optim.SGD).estimate_memory("ddp", 2).parts
    assert parts["activations, then gradients to send"] == WEIGHTS


def test_what_is_frozen_has_no_gradients() -> None:
    network = make_network()
    network.get_submodule("blocks").requires_grad_(False)
    parts = make_step(network).estimate_memory("fsdp", 2).parts
    assert parts["gradients"] == 4 * (3 * 4 + 3 + 2 * 6)  # the head's three rows can't be halved
    assert parts["gathered weights and gradients"] == 2 * REST + max(BLOCK, REST)


@pytest.fixture
def eight_processes() -> Iterator[None]:
    """This process is the first of eight; the others are not there."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    yield
    distributed.destroy_process_group()


def test_fsdp_divides_weights_as_pytorch_does(eight_processes: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh  # importing it takes a second
    from torch.distributed.fsdp import fully_shard

    parts = make_step(make_network(), keeps_best=True).estimate_memory("fsdp", 8).parts
    network = make_network()
    for block in network.get_submodule("blocks"):
        fully_shard(block, mesh=init_device_mesh("cpu", (8,)))
    fully_shard(network, mesh=init_device_mesh("cpu", (8,)))
    local = sum(each.to_local().numel() * 4 for each in network.parameters())
    names = ("weights", "gradients", "Adam's state", "best weights")
    assert [parts[each] for each in names] == [local, local, 2 * local, local]
    assert parts["gathered weights and gradients"] == 2 * REST + 3 * BLOCK


@pytest.mark.parametrize(("spare", "wanted"), [(0, 5), (-1, 6), (10**9, 1), (-(10**9), None)])
def test_the_smallest_number_of_processes(spare: int, wanted: int | None) -> None:
    with torch.device("meta"):
        network = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(20)))
    step = make_step(network, blocks=[str(each) for each in range(20)])
    memory_bytes = step.estimate_memory("fsdp", 5).total + spare
    assert step.find_smallest_world("fsdp", memory_bytes) == wanted
    assert step.find_smallest_world("none", memory_bytes) == (1 if wanted == 1 else None)
