"""The memory that a process needs in a training step, alone or as one of several that train a network together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.analysis.costs import LayerCost
from dlspec.optim.optimizer_memory import count_bytes, estimate_state_bytes

Parallel = Literal["none", "ddp", "fsdp"]
MAX_PROCESSES = 4096  # that are tried to find out how many are enough


@dataclass(frozen=True)
class TrainingMemory:
    """What a process holds in a training step: bytes by name, None where they are unknown."""

    parts: Mapping[str, int | None]

    @property
    def total(self) -> int:
        """The sum of all parts that are known."""
        return sum(each or 0 for each in self.parts.values())


@dataclass(frozen=True)
class TrainingStep:
    """A training step, from which the memory of one process of any number follows."""

    network: nn.Module
    optimizer: Optimizer | None
    cost: LayerCost  # of all layers and the loss
    batch_size: int  # of all processes together
    keeps_average: bool  # whether averaged weights are kept
    keeps_best: bool = False  # whether the weights of the best epoch are kept
    blocks: Sequence[str] = ()  # with fsdp, the start of the parameters' names of each block that is sharded by itself

    def estimate_memory(self, parallel: Parallel = "none", world_size: int = 1) -> TrainingMemory:
        """Estimate what one of `world_size` processes holds, the one that has the most.

        With ddp, a process holds everything but a part of the batch, and a copy of all gradients while they are added
        up, when activations are already freed. With fsdp it holds a part of everything, also of the best weights, and
        while it computes a block, all of the block's weights, its gradients, and the copy of gradients that is sent.
        """
        is_sharded = parallel == "fsdp" and world_size > 1
        count: Callable[[Tensor], int] = (
            partial(_count_shard_bytes, world_size=world_size) if is_sharded else count_bytes
        )
        parameters = list(self.network.parameters())
        weights = sum(map(count, parameters))
        gradients = sum(count(each) for each in parameters if each.requires_grad)
        parts: dict[str, int | None] = {"weights": weights, "gradients": gradients}
        if self.optimizer is not None:
            parts[f"{type(self.optimizer).__name__}'s state"] = estimate_state_bytes(self.optimizer, count)
        if self.keeps_average:
            parts["averaged weights"] = weights
        if self.keeps_best and is_sharded:  # otherwise they are copied to the CPU
            parts["best weights"] = weights
        sent = gradients if parallel == "ddp" and world_size > 1 else 0
        parts |= self._count_activations(-(-self.batch_size // world_size), sent)
        if is_sharded:
            parts["gathered weights and gradients"] = self._count_gathered_bytes()
        return TrainingMemory(parts)

    def _count_activations(self, samples: int, sent: int) -> dict[str, int]:
        kept = self.cost.saved_bytes_per_batch + samples * self.cost.saved_bytes
        largest = samples * self.cost.largest_output_bytes
        parts = {"activations": kept}
        if sent > kept:
            parts = {"activations, then gradients to send": sent}
        if largest > max(kept, sent):  # nothing is saved of a layer without trained weights below it
            parts["the largest output"] = largest
        return parts

    def _count_gathered_bytes(self) -> int:
        """Count what is gathered at a time: one block, and what is in no block during the whole step."""
        rest, *blocks = ((_sum_bytes(each), _sum_trained_bytes(each)) for each in self._divide_parameters())
        block = max((weights + 2 * gradients for weights, gradients in blocks), default=0)
        return sum(rest) + max(block, rest[1])

    def _divide_parameters(self) -> list[list[nn.Parameter]]:
        """Divide the parameters into those of no block, and those of each block."""
        parts: dict[str, list[nn.Parameter]] = {"": [], **{each: [] for each in self.blocks}}
        for name, parameter in self.network.named_parameters():
            block = next((each for each in self.blocks if name.startswith(f"{each}.")), "")
            parts[block].append(parameter)
        return list(parts.values())

    def find_smallest_world(self, parallel: Parallel, memory_bytes: int) -> int | None:
        """Find with how many processes each needs no more than `memory_bytes`; None if no number is enough."""

        def fits(world_size: int) -> bool:
            return self.estimate_memory(parallel, world_size).total <= memory_bytes

        if fits(1) or parallel == "none":
            return 1 if fits(1) else None
        several = range(2, MAX_PROCESSES + 1)  # the more, the less memory; two may need more than one
        found = bisect_left(several, True, key=fits)
        return several[found] if found < len(several) else None


def _count_shard_bytes(tensor: Tensor, world_size: int) -> int:
    """Count the bytes of the largest part of a tensor that is divided along its first dimension."""
    if not tensor.dim():
        return count_bytes(tensor)
    return -(-tensor.shape[0] // world_size) * tensor[:1].numel() * tensor.element_size()


def _sum_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(map(count_bytes, tensors))


def _sum_trained_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(count_bytes(each) for each in parameters if each.requires_grad)
