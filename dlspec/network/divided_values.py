"""The values of a network that is built on the meta device, of which a process keeps only its part.

A layer is made with values, as always, and so with the same random numbers. Then this process's part of each parameter
is copied, and the layer moves to the meta device: a process never has more than its part and one layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


def find_own_rows(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Find the rows of a process's part of a tensor, as `fully_shard` divides it.

    Args:
        rows: the tensor's rows.
        rank: the process.
        world_size: the number of processes.

    Returns:
        The first row, and the one after the last.
    """
    part = math.ceil(rows / world_size)
    return min(rank * part, rows), min((rank + 1) * part, rows)


@dataclass
class DividedValues:
    """This process's part of every parameter along the first dimension, and all buffers.

    Attributes:
        rank: this process.
        world_size: the number of processes.
        tensors: the values, by the parameter or buffer on the meta device.
    """

    rank: int
    world_size: int
    tensors: dict[Tensor, Tensor] = field(default_factory=dict)

    def take(self, module: nn.Module) -> None:
        """Keep the values of a new module, and move it to the meta device."""
        parts = {name: self._copy_part(each) for name, each in module.named_parameters()}
        parts |= {name: each.clone() for name, each in module.named_buffers()}
        module.to("meta")
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.tensors |= {own[name]: each for name, each in parts.items()}

    def set(self, tensor: Tensor, value: Tensor) -> Tensor:
        """Replace the values of a parameter or buffer by a whole tensor of the same shape; return what is kept."""
        is_parameter = isinstance(tensor, nn.Parameter)
        self.tensors[tensor] = self._copy_part(value) if is_parameter else value.clone()
        return self.tensors[tensor]

    def initialize(self, parameter: nn.Parameter, initialize: Callable[[Tensor], object]) -> None:
        """Replace the values of a parameter by those that a function writes into a tensor."""
        whole = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
        initialize(whole)
        self.set(parameter, whole)

    def zero_row(self, parameter: Tensor, row: int) -> None:
        """Set a row of a parameter to zero, in the process that has it."""
        start, stop = find_own_rows(parameter.shape[0], self.rank, self.world_size)
        if start <= row < stop:
            self.tensors[parameter][row - start].zero_()

    @torch.no_grad()
    def _copy_part(self, whole: Tensor) -> Tensor:
        if not whole.dim():
            return whole.detach().clone()
        start, stop = find_own_rows(whole.shape[0], self.rank, self.world_size)
        return whole.detach()[start:stop].clone()
