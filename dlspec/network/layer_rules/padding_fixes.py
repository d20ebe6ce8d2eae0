"""What to write instead of a layer in which padding counts."""

from __future__ import annotations

from collections.abc import Mapping

_ZEROS_AT_BORDER = "pad with zeros: ZeroPad1d, or 'padding' in the convolution or pooling"
_FIXES: Mapping[str, str] = {
    "Formula": "mask the padding with is_step(x), or use Mean, Max, Sum, Softmax or Attention",
    **dict.fromkeys(("CircularPad1d", "ConstantPad1d", "ReflectionPad1d", "ReplicationPad1d"), _ZEROS_AT_BORDER),
    "Conv1d": "leave padding_mode out, so that it pads with zeros",
    "AvgPool1d": "leave ceil_mode and count_include_pad out",
    "MaxPool1d": "leave ceil_mode out",
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
        "use LayerNorm or GroupNorm, or BatchNorm1d on (C, T), outside of TimeDistributed",
    ),
    "LPPool1d": "leave ceil_mode out",
    "Upsample": "write mode: nearest and a whole number as scale_factor",
}
_OTHER_FIX = (
    "use layers that leave padding out, such as Conv1d, AdaptiveAvgPool1d, Mean, Max, LSTM or Attention; in a layer of "
    "your own take the lengths"
)


def suggest_padding_fix(layer: str) -> str:
    """Suggest what to write instead of a layer whose output depends on padding."""
    return _FIXES.get(layer, _OTHER_FIX)


def suggest_fix_for_lost_lengths(mixing_layer: str, layer: str) -> str:
    """Suggest a fix for a layer that needs lengths, and the layer before it that mixes steps and padding."""
    if mixing_layer in _FIXES:
        return f"{mixing_layer} counts padding: {_FIXES[mixing_layer]}"
    return (
        f"{mixing_layer} mixes steps and padding: put {layer} before it, or use one that mixes no steps; "
        f"if its steps are those of another output, write lengths_of: NAME in {mixing_layer}"
    )
