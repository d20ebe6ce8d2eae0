"""PyTorch's attention and Transformer layers, with masks for padding and for `is_causal`.

Weights, their names and their initialization are PyTorch's. Padding is never attended to: it comes after a sample's
real steps, where a causal layer does not attend anyway; other layers get a key padding mask.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.errors import Code, Finding
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.kept_steps import KeptSteps, make_step_causal_mask
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings, constant_layout, lengths_of_input

Activation = Literal["relu", "gelu"]


def _make_causal_mask(steps: int, device: torch.device) -> Tensor:
    """Make a mask of shape (T, T) that is true where attention is not allowed: for later steps."""
    return torch.ones(steps, steps, dtype=torch.bool, device=device).triu(1)


def _make_padding_mask(value: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Make a mask of shape (N, T) that is true for padding; None if the samples have no lengths."""
    return None if lengths is None else ~make_step_mask(lengths, value.shape[1], value.device)


def _repeat_query_for_batch(query: Tensor, batched_input: Tensor) -> Tensor:
    """Repeat a query without a batch (a `Parameter`) for every sample."""
    return query.expand(batched_input.shape[0], -1, -1) if query.dim() == 2 else query


def _attend_next_steps(
    attention: nn.MultiheadAttention, state: tuple[KeptSteps, KeptSteps] | None, query: Tensor
) -> tuple[Tensor, tuple[KeptSteps, KeptSteps]]:
    """Attend from the next steps of a sequence to all of its steps so far.

    Args:
        attention: causal self-attention
        state: the keys and values of the steps before; None at the beginning
        query: the next steps, (N, S, C)

    Returns:
        The output for these steps (N, S, C), and the keys and values of all steps so far.
    """
    keys, values = state or (KeptSteps(2), KeptSteps(2))
    projected = functional.linear(query, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (each.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for each in projected.chunk(3, dim=2))  # type: ignore[no-untyped-call]
    k, v = keys.append(k), values.append(v)
    mask = make_step_causal_mask(q.shape[2], k.shape[2], q.device)
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.out_proj(attended.transpose(1, 2).flatten(2)), (keys, values)


def _check_sequences(inputs: Inputs) -> Finding | None:
    bad = next((each for each in inputs if each.layout != "sequence" or len(each.shape) != 2), None)
    if bad is not None:
        return Finding(
            Code.WRONG_LAYOUT,
            f"attention expects a sequence (T, C), got {bad}",
            "use a sequence of shape (T, C)",
        )
    if inputs[-1].has_batch:
        return None
    return Finding(
        Code.WRONG_LAYOUT,
        "the last input must be computed from the data, got a Parameter",
        "use the Parameter as the query",
    )


def _check_channels(inputs: Inputs) -> Finding | None:
    bad = next((each for each in inputs if each.channels != inputs[0].channels), None)
    if bad is None:
        return None
    return Finding(
        Code.SHAPE_MISMATCH,
        f"{inputs[0]} and {bad} have different numbers of channels",
        f"put a 'Linear: {inputs[0].channels}' after the second",
    )


def _check_heads(channels: int, name: str, settings: Settings) -> Finding | None:
    heads = settings[name]
    if channels % heads == 0:
        return None
    return Finding(
        Code.SHAPE_MISMATCH, f"{channels} channels are not divisible by {heads} heads", f"use another {name}"
    )


# ---- MultiheadAttention --------------------------------------------------------------------------------------------


def _check_multihead(inputs: Inputs, settings: Settings) -> Finding | None:
    keys: TensorInfo = inputs[1] if len(inputs) > 1 else inputs[0]
    if settings.get("is_causal") and keys.shape[:1] != inputs[0].shape[:1]:
        found = f"is_causal needs as many queries as keys, got {inputs[0].shape[0]} and {keys.shape[0]}"
        return Finding(Code.SHAPE_MISMATCH, found, "remove is_causal: it is for self-attention")
    refused = _check_sequences(inputs) or _check_heads(inputs[0].channels, "num_heads", settings)
    if refused is None and len(inputs) > 2 and inputs[2].shape[0] != keys.shape[0]:
        return Finding(
            Code.SHAPE_MISMATCH,
            f"got {keys.shape[0]} keys and {inputs[2].shape[0]} values",
            "use as many values as keys",
        )
    return refused


class MultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, batch first: (N, T, C) to (N, T, C).

    With one input it is self-attention; with two, the second is both key and value. With `need_weights`, the second
    output are the attention weights, (N, T, S), or (N, heads, T, S) if `average_attn_weights` is false.
    """

    rule = Rule(
        takes=("sequence",),
        gives=constant_layout("sequence"),
        keeps_lengths=True,
        lengths=lengths_of_input(0),
        hides_steps=lambda inputs, shape, settings: (
            settings.get("output") == "1" and any(each.lengths for each in inputs)
        ),
        check=_check_multihead,
        takes_parameter=True,
    )
    lengths_of = {"lengths": 0, "key_lengths": 1}

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        is_causal: bool = False,
        need_weights: bool = False,
        average_attn_weights: bool = True,
    ) -> None:
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first=batch_first
        )
        self.is_causal, self.need_weights, self.average_attn_weights = is_causal, need_weights, average_attn_weights

    @property
    def needs_lengths(self) -> bool:
        """Whether padding has to be masked. Causal attention never attends to it."""
        return not self.is_causal

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        lengths: Tensor | None = None,
        key_lengths: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend from the query to the keys.

        Args:
            query: (N, T, C), or (T, C) for a `Parameter`.
            key: (N, S, kdim); by default the query.
            value: (N, S, vdim); by default the key.
            lengths: Real steps of each query sample, int64 of shape (N,).
            key_lengths: Real steps of each key sample, int64 of shape (N,).

        Returns:
            (N, T, C); with `need_weights` a tuple of that and the attention weights.
        """
        if key is None:
            key, key_lengths = query, None if self.is_causal else lengths
        query = _repeat_query_for_batch(query, key)
        output, weights = super().forward(
            query,
            key,
            key if value is None else value,
            key_padding_mask=_make_padding_mask(key, key_lengths),
            need_weights=self.need_weights,
            attn_mask=_make_causal_mask(key.shape[1], key.device) if self.is_causal else None,
            average_attn_weights=self.average_attn_weights,
            is_causal=self.is_causal,
        )
        return output if weights is None else (output, weights)

    def step(self, state: Any, query: Tensor) -> tuple[Tensor, Any]:
        """Attend from the next steps (N, S, C) to all steps so far, for causal self-attention."""
        return _attend_next_steps(self, state, query)


# ---- Transformer layers --------------------------------------------------------------------------------------------


def _check_layer(inputs: Inputs, settings: Settings) -> Finding | None:
    return _check_sequences(inputs) or _check_channels(inputs) or _check_heads(inputs[0].channels, "nhead", settings)


_LAYER_RULE = Rule(
    takes=("sequence",),
    gives=constant_layout("sequence"),
    keeps_lengths=True,
    lengths=lengths_of_input(0),
    check=_check_layer,
    takes_parameter=True,
)


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer`, batch first: (N, T, C) to (N, T, C). Padding is masked."""

    rule = _LAYER_RULE
    lengths_of = {"lengths": 0}

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = False,
        bias: bool = True,
        is_causal: bool = False,
    ) -> None:
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias
        )
        self.is_causal = is_causal

    @property
    def needs_lengths(self) -> bool:
        """Whether padding has to be masked. Causal attention never attends to it."""
        return not self.is_causal

    def forward(self, src: Tensor, lengths: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if self.is_causal:
            return super().forward(src, src_mask=_make_causal_mask(src.shape[1], src.device), is_causal=True)
        return super().forward(src, src_key_padding_mask=_make_padding_mask(src, lengths))

    def step(self, state: Any, src: Tensor) -> tuple[Tensor, Any]:
        """Compute the next steps (N, S, C) of a causal layer in eval mode."""
        attended, state = _attend_next_steps(self.self_attn, state, self.norm1(src) if self.norm_first else src)
        value = src + attended if self.norm_first else self.norm1(src + attended)
        return _add_feedforward(self, value, self.norm2), state


def _add_feedforward(
    layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, value: Tensor, norm: nn.Module
) -> Tensor:
    """Add the feed-forward part of a Transformer layer in eval mode, with its norm."""

    def compute(input: Tensor) -> Tensor:
        activation: Any = layer.activation
        return layer.linear2(activation(layer.linear1(input)))  # type: ignore[no-any-return]

    return value + compute(norm(value)) if layer.norm_first else norm(value + compute(value))


class TransformerDecoderLayer(nn.TransformerDecoderLayer):
    """`torch.nn.TransformerDecoderLayer`, batch first: takes (N, T, C) and a memory (N, S, C), returns (N, T, C)."""

    rule = _LAYER_RULE
    lengths_of = {"lengths": 0, "memory_lengths": 1}

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = False,
        bias: bool = True,
        tgt_is_causal: bool = False,
    ) -> None:
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias
        )
        self.tgt_is_causal = tgt_is_causal

    def forward(  # type: ignore[override]
        self,
        tgt: Tensor,
        memory: Tensor,
        lengths: Tensor | None = None,
        memory_lengths: Tensor | None = None,
    ) -> Tensor:
        """Decode a sequence while attending to a memory.

        Args:
            tgt: The sequence to decode, (N, T, C), or (T, C) for a `Parameter`.
            memory: The encoder's output, (N, S, C).
            lengths: Real steps of each sample of `tgt`, int64 of shape (N,).
            memory_lengths: Real steps of each sample of `memory`, int64 of shape (N,).

        Returns:
            (N, T, C).
        """
        tgt = _repeat_query_for_batch(tgt, memory)
        causal = self.tgt_is_causal
        return super().forward(
            tgt,
            memory,
            tgt_mask=_make_causal_mask(tgt.shape[1], tgt.device) if causal else None,
            tgt_key_padding_mask=None if causal else _make_padding_mask(tgt, lengths),
            memory_key_padding_mask=_make_padding_mask(memory, memory_lengths),
            tgt_is_causal=causal,
        )

    def step(self, state: Any, tgt: Tensor, memory: Tensor, memory_lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Compute the next steps (N, S, C) of a causal layer in eval mode.

        Args:
            state: the keys and values of the steps before; None at the beginning
            tgt: the next steps
            memory: the encoder's output, (N, M, C)
            memory_lengths: real steps of each sample of `memory`, (N,)
        """
        attended, state = _attend_next_steps(self.self_attn, state, self.norm1(tgt) if self.norm_first else tgt)
        value = tgt + attended if self.norm_first else self.norm1(tgt + attended)
        query, mask = self.norm2(value) if self.norm_first else value, _make_padding_mask(memory, memory_lengths)
        found, _ = self.multihead_attn(query, memory, memory, key_padding_mask=mask, need_weights=False)
        value = value + found if self.norm_first else self.norm2(value + found)
        return _add_feedforward(self, value, self.norm3), state
