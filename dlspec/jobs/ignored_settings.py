"""Name settings of layers that have no effect, as PyTorch accepts them without an error."""

from __future__ import annotations

from torch import nn


def describe_ignored_dropout(module: nn.Module) -> tuple[str, ...]:
    """Return a note for each recurrent layer whose dropout does nothing: PyTorch applies it between its layers."""
    return tuple(
        f"dropout of {type(each).__name__} '{name}' has no effect: it acts between its layers, and num_layers is 1"
        for name, each in module.named_modules()
        if isinstance(each, nn.RNNBase) and each.dropout > 0 and each.num_layers == 1
    )
