"""Position information for attention: positional embeddings, and a bias by relative position."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.parts.layers.rule import Inputs, Rule, Settings, constant_layout

EMBEDDING_STD = 0.02
"""Standard deviation of newly initialized embeddings, as in BERT, GPT-2 and ViT."""


def _check_positions(inputs: Inputs, settings: Settings) -> Finding | None:
    steps, max_steps = inputs[0].shape[0], settings.get("num_embeddings")
    if len(inputs[0].shape) != 2:
        return Finding(
            Code.WRONG_LAYOUT,
            f"PositionalEmbedding expects a sequence (T, C), got {inputs[0]}",
            "put a 'Flatten: 2' before it",
        )
    if max_steps is None or max_steps >= steps:
        return None
    return Finding(
        Code.SHAPE_MISMATCH,
        f"num_embeddings is {max_steps}, but the input has {steps} steps",
        f"leave it out: it is inferred ({steps})",
    )


class PositionalEmbedding(nn.Module):
    """Add to each step of (N, T, C) a vector for its position: learned, or sines and cosines (arXiv:1706.03762).

    `num_embeddings` is the maximum number of steps, by default that of the input.
    """

    rule = Rule(
        takes=("sequence",),
        gives=constant_layout("sequence"),
        keeps_lengths=True,
        check=_check_positions,
        fill=lambda inputs, settings: {"num_embeddings": inputs[0].shape[0]},
    )
    weight: Tensor

    def __init__(self, num_embeddings: int, embed_dim: int, kind: Literal["learned", "sinusoidal"] = "learned") -> None:
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.weight = nn.Parameter(torch.empty(num_embeddings, embed_dim))
            nn.init.normal_(self.weight, std=EMBEDDING_STD)
        else:
            self.register_buffer("weight", _sinusoidal_table(num_embeddings, embed_dim), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[1] > len(self.weight):
            raise ValueError(f"the input has {input.shape[1]} steps, but there are only {len(self.weight)} positions")
        return input + self.weight[: input.shape[1]]

    def step(self, state: int | None, input: Tensor) -> tuple[Tensor, int]:
        """Add the vectors of the next steps (N, S, C), which begin at the position `state`."""
        start = state or 0
        return input + self.weight[start : start + input.shape[1]], start + input.shape[1]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, kind={self.kind}"


def _sinusoidal_table(steps: int, size: int) -> Tensor:
    """Compute the table of shape (steps, size): sines in even columns, cosines in odd ones."""
    frequencies = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(steps).unsqueeze(1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]


def _check_distance_buckets(inputs: Inputs, settings: Settings) -> Finding | None:
    count, max_distance = settings.get("num_buckets", 32), settings.get("max_distance", 128)
    min_buckets = 4 if settings.get("bidirectional", True) else 2
    if count < min_buckets:
        return Finding(
            Code.WRONG_VALUE,
            f"num_buckets is {count}, which is too few",
            f"use {min_buckets} or more: near and far distances need a bucket each",
        )
    near = count // min_buckets
    if max_distance > near:
        return None
    return Finding(
        Code.CONFLICT,
        f"max_distance is {max_distance}, but the first {near} distances already have a bucket each",
        f"use {near + 1} or more",
    )


class RelativePositionBias(nn.Module):
    """A learned bias per head for the distance between two steps (T5, arXiv:1910.10683), used as mask of `Attention`.

    Takes a sequence (N, T, C), of which only the number of steps matters, and returns (N, heads, T, T), the same for
    all samples. Small distances have a bucket each; larger ones share buckets, up to `max_distance`. With
    `bidirectional`, half of the buckets are for later steps; without it, later steps share the bucket of distance 0.
    """

    rule = Rule(
        takes=("sequence",),
        gives=constant_layout("channels-first"),
        keeps_lengths=True,
        lengths=lambda *_: None,
        hides_steps=lambda inputs, shape, settings: inputs[0].lengths is not None,
        check=_check_distance_buckets,
    )

    def __init__(
        self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
    ) -> None:
        super().__init__()
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        self.weight = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.normal_(self.weight, std=EMBEDDING_STD)

    def forward(self, input: Tensor) -> Tensor:
        steps = torch.arange(input.shape[1], device=input.device)
        buckets = self._find_buckets(steps.unsqueeze(0) - steps.unsqueeze(1))
        return self.weight[buckets].permute(2, 0, 1).expand(input.shape[0], -1, -1, -1)  # (N, heads, T, T)

    def _find_buckets(self, distances: Tensor) -> Tensor:
        """Find the bucket of each distance (key position minus query position), as in T5."""
        count, offset = self.num_buckets, torch.zeros_like(distances)
        if self.bidirectional:
            count //= 2
            offset = (distances > 0) * count
            distances = distances.abs()
        else:
            distances = (-distances).clamp(min=0)
        near = count // 2
        scale = (count - near) / math.log(self.max_distance / near)
        far = near + ((distances.clamp(min=1) / near).log() * scale).to(torch.int64)
        return offset + torch.where(distances < near, distances, far.clamp(max=count - 1))

    def extra_repr(self) -> str:
        return f"num_heads={self.weight.shape[1]}, num_buckets={self.num_buckets}"
