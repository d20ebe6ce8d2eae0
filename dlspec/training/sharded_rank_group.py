"""Processes that each keep a part of every parameter: `trainer.parallel: fsdp`, by PyTorch's `fully_shard`.

`fully_shard` gathers the parameters of a block before it is computed, and adds up its gradients in the backward pass.
All processes must therefore compute forward and backward passes together, or none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from dlspec.compat.torch_dtensor import get_local_part
from dlspec.training.distributed import ProcessGroup
from dlspec.training.rank_group import RankGroup


@dataclass
class ShardedRankGroup(RankGroup):
    """This process's connection to the others, where each has a part of the parameters."""

    @property
    def undivided(self) -> RankGroup:
        return RankGroup(self.rank, self.world_size, store=self.store)

    def is_true_on_any_part(self, flag: bool) -> bool:
        return self._add_up([torch.tensor([float(flag)])])[0].item() > 0

    @contextmanager
    def disable_gradients(self) -> Iterator[None]:
        with torch.no_grad():  # tensors that are gathered in inference mode could not be used in training later
            yield

    def compute_gradients(
        self, backward: Callable[[], None], parameters: Sequence[nn.Parameter], network: nn.Module, *, is_bad: bool
    ) -> bool:
        """Compute gradients, which are added up over all processes in the backward pass.

        The processes agree before it whether any loss is not finite: then none of them computes it.

        Args:
            backward: computes gradients.
            parameters: the parameters of the network; none between the batches of one update.
            network: the network, for its running statistics.
            is_bad: whether this process's loss is not finite.

        Returns:
            Whether the loss of any process is not finite.
        """
        any_is_bad = self._read_flags(self._add_up([torch.tensor(self._make_flags(is_bad))])[0].tolist())
        if not any_is_bad:
            backward()
            if parameters:  # after the backward pass, which uses the statistics of the forward pass
                self.average_statistics(network)
        return any_is_bad

    def find_failure_elsewhere(self, error: Exception) -> Exception | None:
        return self._find_failed_rank() if isinstance(error, RuntimeError) else None


def make_sharded_group(group: ProcessGroup, device: torch.device) -> ShardedRankGroup:
    """Make a group of the same processes that divide the parameters, on a device of this process."""
    assert isinstance(group, RankGroup)
    mesh = init_device_mesh(device.type, (group.world_size,))
    return ShardedRankGroup(group.rank, group.world_size, mesh=mesh, store=group.store)


def shard_network(network: nn.Module, blocks: Sequence[str], mesh: DeviceMesh, *, is_bfloat16: bool) -> None:
    """Divide a network's parameters among all processes. They become DTensors with the same names.

    Args:
        network: the network, which calls its blocks as modules.
        blocks: the names of the blocks that are gathered one at a time; everything else is gathered together.
        mesh: the processes.
        is_bfloat16: whether parameters are gathered in bfloat16. Gradients are added up in float32.
    """
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for module in [*(network.get_submodule(each) for each in blocks), network]:
        fully_shard(
            module,
            mesh=mesh,
            reshard_after_forward=True,
            mp_policy=policy if is_bfloat16 else MixedPrecisionPolicy(),
        )
    for module in network.modules():
        if isinstance(module, FSDPModule):  # each process has weighed its loss: gradients are added up, not averaged
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            if mesh.device_type == "cpu":  # Gloo gathers while nothing is computed: earlier, it only costs memory
                module.set_modules_to_backward_prefetch([module])


@torch.no_grad()
def fill_network(network: nn.Module, parts: dict[str, Tensor], device: torch.device) -> None:
    """Give a divided network on the meta device memory and values, layer by layer.

    Args:
        network: the network.
        parts: this process's part of each parameter, and the buffers, by name. Each is removed once it is copied.
        device: the device of this process.
    """
    for path, module in network.named_modules():
        module.to_empty(device=device, recurse=False)
        for name, each in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            value = parts.pop(f"{path}.{name}" if path else name, None)
            if value is not None:
                get_local_part(each).copy_(value)
    network.to(device)  # makes `fully_shard` look at the new parameters
