"""What version 1 of the spec language did with padding: find the layers that now give other results."""

from __future__ import annotations

from collections.abc import Collection

from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import is_elementwise
from dlspec.network.layer import LayerCall

# Layers that now leave padding out or pass lengths on, and did not before.
_LAYERS = frozenset(
    "BatchNorm1d InstanceNorm1d GroupNorm AdaptiveAvgPool1d AdaptiveMaxPool1d ConvTranspose1d ZeroPad1d ConstantPad1d "
    "Upsample".split()
)
_OPTIONAL = frozenset(("Softmax", "LogSoftmax", "Softmin", "MaxPool1d"))  # only with some settings
_JOINING = frozenset(("Add", "Multiply", "Concat", "Formula"))
_WINDOWED = frozenset(("Conv1d", "AvgPool1d", "MaxPool1d", "LPPool1d"))


def counted_padding_before(call: LayerCall, earlier_types: Collection[str]) -> bool:
    """Whether version 1 may have counted padding in this call, or dropped the lengths of its output.

    Args:
        call: The call of the layer.
        earlier_types: The types of the layers that were built before.
    """
    if not any(each.lengths for each in call.values):
        return False
    type = call.layer.type
    if type in _LAYERS or (type in _OPTIONAL and call.module.needs_lengths):
        return True
    if type == "Formula" and not is_elementwise(parse_formula(call.settings["formula"])):
        return True
    return type in _JOINING and not _WINDOWED.isdisjoint(earlier_types)
