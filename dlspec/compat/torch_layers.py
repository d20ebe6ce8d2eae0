"""What PyTorch's modules keep to themselves: the base classes of normalisations, and where a module holds tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# A user's normalisation may derive from the private base; without that, only the public classes are known.
BATCH_NORM: Any = getattr(batchnorm, "_BatchNorm", _BATCH_NORMS)
RUNNING_NORM: Any = getattr(batchnorm, "_NormBase", (*_BATCH_NORMS, *_INSTANCE_NORMS))

TensorSlot = tuple[dict[str, Any], str]
"""A module's mapping of parameters or buffers, and a name in it. The tensor there may be replaced at any time."""


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation."""
    return isinstance(module, BATCH_NORM)


def is_running_norm(module: nn.Module) -> bool:
    """Whether a module is a batch or instance normalisation: of the kinds that can keep running statistics."""
    return isinstance(module, RUNNING_NORM)


def iterate_tensor_slots(network: nn.Module) -> Iterator[tuple[TensorSlot, Tensor]]:
    """Every place of a network at which a parameter or buffer is held, and the tensor that is there now.

    `getattr(module, name)` would find them too; a look-up in the mapping takes a tenth of its time.
    """
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            yield from (((tensors, name), each) for name, each in tensors.items() if each is not None)
