"""Attention with PyTorch's `scaled_dot_product_attention`, padding masks, grouped queries and rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.errors import Code, Finding
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.kept_steps import KeptSteps, make_step_causal_mask
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings, constant_layout, lengths_of_input

DEFAULT_ROTARY_BASE = 10000.0


def _check_attention(inputs: Inputs, settings: Settings) -> Finding | None:
    return _check_inputs(inputs, settings) or _check_heads(inputs, settings)


def _check_inputs(inputs: Inputs, settings: Settings) -> Finding | None:
    query, memory = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    for each in (query, memory):
        if each.layout != "sequence" or len(each.shape) != 2:
            fix = "reshape it to (T, C)" if each.layout == "sequence" else "use a sequence of shape (T, C)"
            return Finding(Code.WRONG_LAYOUT, f"attention expects a sequence (T, C), got {each}", fix)
    if not memory.has_batch:
        return Finding(
            Code.WRONG_LAYOUT,
            "the memory must be computed from the data, got a Parameter",
            "use the Parameter as the query",
        )
    if settings.get("is_causal") and query.shape[0] != memory.shape[0]:
        found = f"is_causal needs as many queries as keys, got {query.shape[0]} and {memory.shape[0]}"
        return Finding(Code.SHAPE_MISMATCH, found, "remove is_causal: it is for self-attention")
    return _check_mask(inputs[2], query, memory, settings) if len(inputs) > 2 else None


def _check_mask(mask: TensorInfo, query: TensorInfo, memory: TensorInfo, settings: Settings) -> Finding | None:
    steps = (query.shape[0], memory.shape[0])
    scores_shape = (settings["num_heads"], *steps)
    shape = (1,) * (3 - len(mask.shape)) + mask.shape
    pairs = zip(shape, scores_shape, strict=False)
    if len(shape) == 3 and len(mask.shape) > 1 and all(one in (1, two) for one, two in pairs):
        return None
    found = f"the mask is {mask}, but the scores of {settings['num_heads']} heads are {scores_shape}"
    return Finding(
        Code.SHAPE_MISMATCH, found, f"use a mask of shape {steps} or {scores_shape}, such as RelativePositionBias"
    )


def _check_heads(inputs: Inputs, settings: Settings) -> Finding | None:
    heads, kv_heads, size = settings["num_heads"], settings.get("num_kv_heads"), settings.get("head_dim")
    channels = settings.get("embed_dim") or inputs[0].channels
    if size is None and channels % heads:
        return Finding(
            Code.SHAPE_MISMATCH,
            f"{channels} channels are not divisible by {heads} heads",
            "use another num_heads, or set head_dim",
        )
    if kv_heads is not None and heads % kv_heads:
        return Finding(
            Code.CONFLICT,
            f"num_heads ({heads}) is not divisible by num_kv_heads ({kv_heads})",
            "use a num_kv_heads that divides num_heads",
        )
    if settings.get("rotary") and (size or channels // heads) % 2:
        found = f"rotary requires an even head_dim, got {size or channels // heads}"
        return Finding(Code.CONFLICT, found, "set an even head_dim")
    return None


def _allows_shorter_batches(inputs: Inputs) -> bool:
    """Whether shorter batches are possible: a mask that is a `Parameter` has a fixed number of steps."""
    return len(inputs) < 3 or inputs[2].has_batch or set(inputs[2].shape[-2:]) == {1}


def _fill_settings(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    return {"_mask_by_sample": inputs[2].has_batch} if len(inputs) > 2 else {}


class Attention(nn.Module):
    """Multi-head attention of a sequence (N, T, C) to itself or to a memory (N, S, D). Returns (N, T, C).

    With `num_kv_heads` less than `num_heads`, groups of queries share a key and value head (arXiv:2305.13245). With
    `rotary`, true or a base, queries and keys are rotated by an angle that depends on their position
    (arXiv:2104.09864), so that scores depend only on relative positions. Padding is masked.
    """

    rule = Rule(
        takes=("sequence",),
        gives=constant_layout("sequence"),
        keeps_lengths=lambda inputs, settings: _allows_shorter_batches(inputs),
        lengths=lengths_of_input(0),
        mask_input=2,
        check=_check_attention,
        fill=_fill_settings,
        takes_parameter=True,
    )
    lengths_of = {"lengths": 0, "memory_lengths": 1}

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        is_causal: bool = False,
        rotary: bool | float = False,
        rotary_halves: bool = False,
        kdim: int | None = None,
        _mask_by_sample: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads or num_heads
        self.head_dim = head_dim or embed_dim // num_heads
        self.dropout, self.is_causal, self._mask_by_sample = dropout, is_causal, _mask_by_sample
        self.q_proj = nn.Linear(embed_dim, self.num_heads * self.head_dim, bias)
        self.k_proj = nn.Linear(kdim or embed_dim, self.num_kv_heads * self.head_dim, bias)
        self.v_proj = nn.Linear(kdim or embed_dim, self.num_kv_heads * self.head_dim, bias)
        self.out_proj = nn.Linear(self.num_heads * self.head_dim, embed_dim, bias)
        base = DEFAULT_ROTARY_BASE if rotary is True else float(rotary)
        self.rotary = RotaryEmbedding(self.head_dim, base, rotary_halves) if rotary else None

    @property
    def needs_lengths(self) -> bool:
        """Whether padding has to be masked. Causal attention never attends to it."""
        return not self.is_causal

    def forward(
        self,
        query: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        memory_lengths: Tensor | None = None,
    ) -> Tensor:
        """Attend from the queries to the memory.

        Args:
            query: (N, T, C), or (T, C) for a `Parameter`.
            memory: The sequence for keys and values, (N, S, D); by default the query.
            mask: (T, S) or (heads, T, S), with or without a batch before it. Numbers are added to the scores; booleans
                are false where attention is not allowed.
            lengths: Real steps of each query sample, int64 of shape (N,).
            memory_lengths: Real steps of each memory sample, int64 of shape (N,).

        Returns:
            (N, T, C).
        """
        if memory is None:
            # Padding comes after a sample's real steps, which causal attention does not attend to anyway.
            memory, memory_lengths = query, None if self.is_causal else lengths
        if query.dim() == 2:  # a Parameter
            query = query.expand(memory.shape[0], -1, -1)
        q = self._split_heads(self.q_proj(query))
        k, v = self._split_heads(self.k_proj(memory)), self._split_heads(self.v_proj(memory))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        return self.out_proj(self._attend(q, k, v, mask, memory_lengths).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def step(self, state: tuple[KeptSteps, KeptSteps] | None, query: Tensor) -> tuple[Tensor, Any]:
        """Attend from the next steps (N, S, C) of a sequence to all of its steps so far, for causal self-attention.

        Args:
            state: the keys and values of the steps before; None at the beginning
            query: the next steps

        Returns:
            The output for these steps (N, S, C), and the keys and values of all steps so far.
        """
        keys, values = state or (KeptSteps(2), KeptSteps(2))
        q, new_keys = self._split_heads(self.q_proj(query)), self._split_heads(self.k_proj(query))
        if self.rotary is not None:
            q, new_keys = self.rotary(q, keys.steps), self.rotary(new_keys, keys.steps)
        k, v = keys.append(new_keys), values.append(self._split_heads(self.v_proj(query)))
        mask = make_step_causal_mask(q.shape[2], k.shape[2], q.device)
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=self.num_kv_heads != self.num_heads
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2)), (keys, values)

    def _split_heads(self, value: Tensor) -> Tensor:
        """Reshape (N, T, heads * head_dim) to (N, heads, T, head_dim)."""
        heads: Tensor = value.unflatten(2, (-1, self.head_dim))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Tensor:
        is_causal = self.is_causal and mask is None and lengths is None  # is_causal without a mask uses faster kernels
        attention_mask = None if is_causal else self._make_mask(q, k, mask, lengths)
        return functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=attention_mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )

    def _make_mask(self, q: Tensor, k: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        """Combine the mask, padding and causality into one mask that broadcasts to (N, heads, T, S)."""
        if mask is not None and mask.dim() == 3 and self._mask_by_sample:
            mask = mask.unsqueeze(1)
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        if lengths is not None:
            mask = _combine_masks(mask, make_step_mask(lengths, k.shape[2], k.device)[:, None, None])
        if self.is_causal:
            mask = _combine_masks(mask, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril())
        return mask

    def extra_repr(self) -> str:
        groups = f", num_kv_heads={self.num_kv_heads}" if self.num_kv_heads != self.num_heads else ""
        return f"num_heads={self.num_heads}{groups}, head_dim={self.head_dim}, is_causal={self.is_causal}"


def _combine_masks(mask: Tensor | None, allowed: Tensor) -> Tensor:
    """Restrict a mask, boolean or additive, to where attention is allowed."""
    if mask is None:
        return allowed
    return mask & allowed if mask.dtype == torch.bool else torch.where(allowed, mask, float("-inf"))


class RotaryEmbedding(nn.Module):
    """Rotate each pair of channels by an angle proportional to the position (RoFormer, arXiv:2104.09864, equation 34).

    A pair consists of two neighbouring channels, as in the paper. With `halves`, it consists of a channel of the first
    half and the channel at the same index in the second half, as in Hugging Face's weights of LLaMA.
    """

    speeds: Tensor

    def __init__(self, size: int, base: float = DEFAULT_ROTARY_BASE, halves: bool = False) -> None:
        super().__init__()
        self.halves = halves
        self.register_buffer("speeds", base ** (-torch.arange(0, size, 2) / size), persistent=False)

    def forward(self, value: Tensor, start: int = 0) -> Tensor:
        """Rotate a value of shape (..., T, size), of which `start` is the first position; the shape stays the same."""
        steps = torch.arange(start, start + value.shape[-2], device=value.device)
        angles = steps.unsqueeze(1) * self.speeds.float()
        cos, sin = angles.cos().to(value.dtype), angles.sin().to(value.dtype)
        if self.halves:
            first, second = value.chunk(2, dim=-1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        even, odd = value[..., 0::2], value[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
