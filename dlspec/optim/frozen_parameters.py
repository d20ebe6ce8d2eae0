"""Parameters that do not learn: for good, or until an epoch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dlspec.compat.torch_layers import is_running_norm


class FrozenParameters:
    """Holds parameters as they are; `until` maps each to the epoch from which on it learns, None for never."""

    def __init__(self, unfreeze_epochs: Mapping[nn.Parameter, int | None]) -> None:
        self.unfreeze_epochs = dict(unfreeze_epochs)
        self.set_epoch(1)

    def is_ever_trained(self, parameter: nn.Parameter) -> bool:
        """Whether it learns at some time."""
        return self.unfreeze_epochs.get(parameter, 1) is not None

    def set_epoch(self, epoch: int) -> None:
        """From `epoch` on those learn whose time has come."""
        for parameter, unfreeze_epoch in self.unfreeze_epochs.items():
            parameter.requires_grad_(unfreeze_epoch is not None and epoch >= unfreeze_epoch)

    def freeze_running_statistics(self, network: nn.Module) -> None:
        """In training too, a normalisation whose weights are frozen keeps its running statistics."""
        for module in network.modules():
            parameters = list(module.parameters(recurse=False)) if is_running_norm(module) else []
            if parameters and not any(each.requires_grad for each in parameters):
                module.eval()
