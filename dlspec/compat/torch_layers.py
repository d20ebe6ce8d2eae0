"""Private parts of PyTorch's modules: base classes of normalisation layers, dicts of tensors, conversions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules import batchnorm

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# A user's normalisation may derive from the private base class; the public classes are the fallback.
BATCH_NORM: Any = getattr(batchnorm, "_BatchNorm", _BATCH_NORMS)
RUNNING_NORM: Any = getattr(batchnorm, "_NormBase", (*_BATCH_NORMS, *_INSTANCE_NORMS))

# A module's dict of parameters or buffers, and a name in it. The tensor there may be replaced at any time.
TensorSlot = tuple[dict[str, Any], str]


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation."""
    return isinstance(module, BATCH_NORM)


def can_have_running_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch or instance normalisation, the kinds that can have running statistics."""
    return isinstance(module, RUNNING_NORM)


def list_layers(network: nn.Module) -> list[nn.Module]:
    """List a module and all modules in it, as `modules()` does in six times the time; shared ones more than once."""
    found = [network]
    for each in found:
        found.extend(child for child in each._modules.values() if child is not None)
    return found


def set_training_mode(network: nn.Module, is_training: bool) -> None:
    """Do what `network.train(is_training)` does, without looking for parameters in each flag."""
    layers = list_layers(network)
    if all(map(_has_plain_mode, layers)):
        for each in layers:
            vars(each)["training"] = is_training
    else:
        network.train(is_training)


def _has_plain_mode(layer: nn.Module) -> bool:
    kind = type(layer)
    is_plain = kind.train is nn.Module.train and kind.__setattr__ is nn.Module.__setattr__
    return is_plain and "training" in vars(layer)


def iterate_tensor_slots(network: nn.Module) -> Iterator[tuple[TensorSlot, Tensor]]:
    """Iterate over all slots of parameters and buffers in a network, each with the tensor that is in it now.

    `getattr(module, name)` would work too, but a look-up in the dict takes a tenth of its time.
    """
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            yield from (((tensors, name), each) for name, each in tensors.items() if each is not None)


class ModuleWithExactBuffers(nn.Module):
    """A module that can compute its buffers again after `to`, `double` and the like have converted them."""

    def restore_buffers(self) -> None:
        """Compute the buffers for their new data type and device."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.restore_buffers()
        return self


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its `forward`, or its weights are computed from others."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, None) for name in names) or hasattr(module, "parametrizations")
