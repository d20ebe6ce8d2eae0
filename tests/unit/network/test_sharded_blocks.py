"""Blocks that are sharded each by itself: which ones, and a network that calls them as modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlspec.config.composition import start_hydra
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.network.sharded_blocks import find_repeated_blocks, group_blocks

SMALL = {
    "vit": ["model.params.patch=2", "model.params.width=16", "model.params.depth=3", "model.params.heads=2"],
    "resnet18": ["model.params.width=4", "model.params.small=true"],
    "mlp_mixer": ["model.params.patch=2", "model.params.width=8", "model.params.depth=2"],
    "unet": ["model.params.width=4"],
    "mlp": [],
}
BLOCKS = {
    "vit": ["blocks.0", "blocks.1", "blocks.2"],
    "resnet18": [f"stages.{stage}.blocks.{block}" for stage in range(4) for block in range(2)],
    "mlp_mixer": ["3.0", "3.1"],
    "mlp": [],
}


def build(name: str) -> Any:
    words = [f"model={name}", "data=digits", *SMALL[name]]
    return make_preparation(compose_or_raise(words, start_hydra(None))).build()


@pytest.mark.parametrize("name", BLOCKS)
def test_a_network_of_blocks_computes_the_same(name: str) -> None:
    built = build(name)
    blocks = find_repeated_blocks(built.spec.graph.container_types)
    assert blocks == BLOCKS[name]
    network = built.network.module.eval()
    grouped, separate = group_blocks(network, blocks)
    assert separate == blocks
    assert [(key, id(each)) for key, each in grouped.named_parameters()] == [
        (key, id(each)) for key, each in network.named_parameters()
    ]
    assert list(grouped.state_dict()) == list(network.state_dict())
    inputs = [built.data.sample(each, 3) for each in built.network.field_inputs]
    assert torch.equal(grouped.eval()(*inputs), network(*inputs))
