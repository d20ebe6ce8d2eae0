"""Masks of dropout as arguments of a compiled step: each member draws what its own run would draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dlspec.training.stacking.stacked_layers import StackedDropout, draw_mask
from dlspec.training.stacking.stacked_network import StackedNetwork

MASK = "mask"  # a dropout layer's attribute with its mask, in a compiled step


class DropoutMasks:
    """The masks of all layers of dropout of a stack.

    Args:
        network: the networks of the members. It must have computed a batch of this size.
        places: the number of members for which the step is compiled.
        batch_size: the number of samples in each member's batch.
    """

    def __init__(self, network: StackedNetwork, places: int, batch_size: int) -> None:
        self._layers = {name: each for name, each in network.layers.items() if isinstance(each, StackedDropout)}
        self._generators = network.generators
        inputs = {name: each.inputs.get(batch_size) for name, each in self._layers.items()}
        self._masks = {
            name: torch.ones(places, *known[0], dtype=known[1]) for name, known in inputs.items() if known is not None
        }

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The masks (places, samples, ...), by the name of the layer's attribute."""
        return {f"{name}.{MASK}": each for name, each in self._masks.items()}

    @property
    def is_complete(self) -> bool:
        """Whether there is a mask for all layers; not before they have computed a batch."""
        return len(self._masks) == len(self._layers)

    def draw(self) -> Sequence[Tensor]:
        """Draw the masks of the next step; return the states of the members' generators before."""
        states = self._generators.get_states() if self._masks else []
        for name, masks in self._masks.items():
            for index, rate in enumerate(self._layers[name].get_rates()):
                draw_mask(masks[index], rate, self._generators[index])
        return states

    def restore(self, states: Sequence[Tensor], members: Sequence[int]) -> None:
        """Restore the states that `draw` returned, for these members."""
        for index in members if states else ():
            self._generators[index].set_state(states[index])


@contextmanager
def use_masks(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let layers of dropout multiply by the tensor in their attribute inside the context.

    Args:
        network: the network.
        names: the names of masks, as in `DropoutMasks.by_name`.
    """
    layers = [network.get_submodule(name.rpartition(".")[0]) for name in names if name.endswith(f".{MASK}")]
    for each in layers:
        each.forward = partial(_multiply, each)
    try:
        yield
    finally:
        for each in layers:
            del each.forward


def _multiply(layer: nn.Module, values: Tensor) -> Tensor:
    mask = getattr(layer, MASK)
    assert isinstance(mask, Tensor)  # given to `functional_call`
    return values * mask
