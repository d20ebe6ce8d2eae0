"""Frozen parameters: never trained, or only from a given epoch on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dlspec.compat.torch_layers import can_have_running_statistics, list_layers


class FrozenParameters:
    """Parameters whose `requires_grad` is off, always or until an epoch.

    `unfreeze_epochs` maps each one to the first epoch (from 1) that trains it, or to None to freeze it
    for the whole run.
    """

    def __init__(self, unfreeze_epochs: Mapping[nn.Parameter, int | None]) -> None:
        self.unfreeze_epochs = dict(unfreeze_epochs)
        self.set_epoch(1)

    def is_ever_trained(self, parameter: nn.Parameter) -> bool:
        """Return whether any epoch trains this parameter."""
        return self.unfreeze_epochs.get(parameter, 1) is not None

    def set_epoch(self, epoch: int) -> None:
        """Unfreeze the parameters that train in `epoch` (from 1), and freeze the others."""
        for parameter, unfreeze_epoch in self.unfreeze_epochs.items():
            parameter.requires_grad_(unfreeze_epoch is not None and epoch >= unfreeze_epoch)

    def freeze_running_statistics(self, network: nn.Module) -> None:
        """Put normalization layers with frozen weights into eval mode, which also freezes their running statistics."""
        for module in list_layers(network):
            parameters = list(module.parameters(recurse=False)) if can_have_running_statistics(module) else []
            if parameters and not any(each.requires_grad for each in parameters):
                module.eval()
