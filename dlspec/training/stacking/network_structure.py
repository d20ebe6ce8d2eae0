"""What the networks of a stack have in common, and what keeps a run from being stacked."""

from __future__ import annotations

from collections.abc import Hashable

from torch import fx, nn


def describe_structure(network: nn.Module) -> Hashable:
    """Describe the layers of a network and the shapes of its weights; equal for networks that can be stacked.

    Numbers such as a rate of dropout are left out: each member's own layer has them.
    """
    layers = tuple((name, _get_kind(each)) for name, each in network.named_modules())
    weights = tuple((name, each.shape, each.dtype, each.requires_grad) for name, each in network.named_parameters())
    code = network.code if isinstance(network, fx.GraphModule) else ""
    return layers, weights, code


def _get_kind(module: nn.Module) -> str | type[nn.Module]:
    """Return a module's class; each network with code of its own has one, so that its name stands for it."""
    return type(module).__name__ if isinstance(module, fx.GraphModule) else type(module)
