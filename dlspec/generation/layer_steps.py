"""How each layer computes the next steps of a sequence: rules for PyTorch's layers, and dlspec's own `step` methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.parts.layers.attention import Attention
from dlspec.parts.layers.recurrent import GRU, LSTM, RNN
from dlspec.parts.layers.transformer import MultiheadAttention, TransformerDecoderLayer, TransformerEncoderLayer

# The next steps of the output, and what to keep, from what was kept (None at the beginning) and the next inputs.
Step = Callable[..., tuple[Any, Any]]

# Layers that compute each step by itself. Others could look at the steps around it.
_SINGLE_STEP = (
    *(nn.Linear, nn.Embedding, nn.Identity, nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Dropout1d),
    *(nn.ReLU, nn.ReLU6, nn.RReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Tanhshrink, nn.Hardswish, nn.Hardshrink),
    *(nn.Softplus, nn.Softshrink, nn.Softsign, nn.Threshold),
)


def find_step(layer: nn.Module, dynamic_inputs: tuple[int, ...], num_inputs: int) -> Step | str:
    """Find how a layer computes the next steps.

    Args:
        layer: the layer
        dynamic_inputs: which of its inputs grow by these steps; others are whole from the beginning
        num_inputs: the number of its inputs

    Returns:
        The function, or the reason why there is none.
    """
    if dynamic_inputs != (0,):
        return "takes more than one input that grows step by step"
    if isinstance(layer, Attention | MultiheadAttention):
        return _find_attention_step(layer, num_inputs)
    if isinstance(layer, TransformerEncoderLayer):
        return layer.step if layer.is_causal else "is not causal"
    if isinstance(layer, TransformerDecoderLayer):
        return layer.step if layer.tgt_is_causal else "is not causal"
    if isinstance(layer, LSTM | GRU | RNN):
        is_forward = not layer.bidirectional and layer.wanted == ("sequence",)
        return layer.step if is_forward else "looks at all steps"
    step: Any = getattr(layer, "step", None)  # of PositionalEmbedding, and of layers of the user's own
    return step if callable(step) else _find_plain_step(layer)


def _find_attention_step(layer: Attention | MultiheadAttention, num_inputs: int) -> Step | str:
    """Find the step of self-attention, or of attention to a memory that is whole from the beginning."""
    if num_inputs > 1:
        return "is causal, but attends to another input" if layer.is_causal else _repeat_call(layer)
    if not layer.is_causal:
        return "is not causal"
    if isinstance(layer, MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn):
        return "adds a key of its own"
    return "returns its weights" if getattr(layer, "need_weights", False) else layer.step


def _find_plain_step(layer: nn.Module) -> Step | str:
    if isinstance(layer, nn.ConstantPad1d | nn.ZeroPad1d):
        left, right = layer.padding
        return _LeftPadding(left, float(layer.value)) if left >= 0 and right == 0 else "pads the end"
    if isinstance(layer, nn.Conv1d):
        is_valid = layer.padding in (0, (0,), "valid") and layer.stride == (1,)
        return _repeat_call(layer) if is_valid or layer.kernel_size == (1,) else "looks at the steps around each step"
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return _repeat_call(layer) if len(layer.normalized_shape) == 1 else "looks at all steps"
    if isinstance(layer, nn.BatchNorm1d) and layer.track_running_stats:
        return _repeat_call(layer)
    # `inline` layers consist of plain functions, as the generated code of other networks does.
    is_plain = type(layer) in _SINGLE_STEP or getattr(layer, "inline", False)
    return _repeat_call(layer) if is_plain else "has no rule for one more step"


def _repeat_call(layer: nn.Module) -> Step:
    """Call the layer with the next steps alone: it keeps nothing."""

    def step(state: None, *inputs: Tensor, **named: Any) -> tuple[Any, None]:
        return layer(*inputs, **named), None

    return step


class _LeftPadding:
    """Padding at the beginning, as before a causal convolution: it keeps the last steps (N, C, T) in its place."""

    def __init__(self, steps: int, value: float) -> None:
        self.steps, self.value = steps, value

    def __call__(self, state: Tensor | None, input: Tensor) -> tuple[Tensor, Tensor]:
        if state is None:
            padded = functional.pad(input, (self.steps, 0), value=self.value)
        else:
            padded = torch.cat([state, input], dim=-1)
        return padded, padded[..., padded.shape[-1] - self.steps :]
