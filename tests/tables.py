"""The registries as tables: what each part is given, and what it then gives. A part without a row fails a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlspec.building.network import Layer, Network, build
from dlspec.building.values import Value
from dlspec.data.dataset import Field
from dlspec.registry.torch_parts import LAYERS
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.model import Node, expand, read_model


def features(size: int) -> Value:
    return Value((size,), "features")


def sequence(*shape: int) -> Value:
    return Value(shape, "sequence")


def tokens(length: int, vocab_size: int = 7) -> Value:
    return Value((length,), "tokens", vocab_size=vocab_size)


def first(*shape: int) -> Value:
    return Value(shape, "channels-first")


def last(*shape: int) -> Value:
    return Value(shape, "channels-last")


@dataclass(frozen=True)
class Row:
    """A layer's settings, its input, its output, and what it infers. A `random` one draws in eval mode, too."""

    settings: Mapping[str, Any]
    given: Value
    gives: Value
    inferred: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False


def same(given: Value, **settings: Any) -> Row:
    return Row(settings, given, given)


def inferring(given: Value, name: str, size: int, **settings: Any) -> Row:
    return Row(settings, given, given, {name: size})


def _by_dims() -> dict[str, Row]:
    """The layers that exist for one, two and three dimensions beside the channels; every dimension is 6 long."""
    rows: dict[str, Row] = {}
    for n in (1, 2, 3):
        given, half, third = first(4, *[6] * n), first(4, *[3] * n), first(4, *[2] * n)
        channels = {"in_channels": 4}
        rows |= {
            f"Conv{n}d": Row({"out_channels": 5, "kernel_size": 3}, given, first(5, *[4] * n), channels),
            f"ConvTranspose{n}d": Row(
                {"out_channels": 5, "kernel_size": 2, "stride": 2}, given, first(5, *[12] * n), channels
            ),
            f"BatchNorm{n}d": inferring(given, "num_features", 4),
            f"InstanceNorm{n}d": inferring(given, "num_features", 4, affine=True),
            f"Dropout{n}d": same(given, p=0.4),
            f"MaxPool{n}d": Row({"kernel_size": [2] * n}, given, half),
            f"AvgPool{n}d": Row({"kernel_size": 2}, given, half),
            f"LPPool{n}d": Row({"norm_type": 2, "kernel_size": 2}, given, half),
            f"AdaptiveAvgPool{n}d": Row({"output_size": [2] * n}, given, third),
            f"AdaptiveMaxPool{n}d": Row({"output_size": 2}, given, third),
            f"ConstantPad{n}d": Row({"padding": 1, "value": 0.5}, given, first(4, *[8] * n)),
        }
        for kind in ("Circular", "Reflection", "Replication", "Zero"):
            rows[f"{kind}Pad{n}d"] = Row({"padding": [1] * 2 * n}, given, first(4, *[8] * n))
        if n > 1:
            rows[f"FractionalMaxPool{n}d"] = Row({"kernel_size": 2, "output_size": 3}, given, half, random=True)
    return rows


_ELEMENTWISE: dict[str, dict[str, Any]] = {
    "AlphaDropout": {"p": 0.2},
    "CELU": {"alpha": 0.7},
    "Dropout": {"p": 0.5},
    "ELU": {"alpha": 0.7},
    "FeatureAlphaDropout": {"p": 0.2},
    "GELU": {"approximate": "tanh"},
    "Hardshrink": {"lambd": 0.2},
    "Hardsigmoid": {},
    "Hardswish": {},
    "Hardtanh": {"min_val": -0.5, "max_val": 0.5},
    "Identity": {},
    "LeakyReLU": {"negative_slope": 0.2},
    "LogSigmoid": {},
    "Mish": {},
    "PReLU": {"init": 0.1},
    "RReLU": {"lower": 0.1, "upper": 0.2},
    "ReLU": {},
    "ReLU6": {},
    "SELU": {},
    "SiLU": {},
    "Sigmoid": {},
    "Softplus": {"beta": 2.0},
    "Softshrink": {"lambd": 0.2},
    "Softsign": {},
    "Tanh": {},
    "Tanhshrink": {},
    "Threshold": {"threshold": 0.1, "value": 0.3},
}

LAYER_ROWS: dict[str, Row] = {
    **_by_dims(),
    **{name: same(sequence(5, 8), **settings) for name, settings in _ELEMENTWISE.items()},
    "ChannelShuffle": same(first(4, 3, 3), groups=2),
    "Embedding": Row({"embedding_dim": 3}, tokens(5), sequence(5, 3), {"num_embeddings": 7}),
    "EmbeddingBag": Row({"embedding_dim": 3, "mode": "max"}, tokens(5), features(3), {"num_embeddings": 7}),
    "Flatten": Row({}, first(2, 3, 4), features(24)),
    "Fold": Row({"output_size": [4, 5], "kernel_size": 2}, first(12, 12), first(3, 4, 5)),
    "GLU": Row({}, features(8), features(4)),
    "GRU": Row({"hidden_size": 3}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "GroupNorm": inferring(first(4, 3, 3), "num_channels", 4, num_groups=2),
    "LSTM": Row({"hidden_size": 3, "num_layers": 2}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "LayerNorm": inferring(sequence(5, 4), "normalized_shape", 4),
    "Linear": Row({"out_features": 3}, sequence(5, 4), sequence(5, 3), {"in_features": 4}),
    "LocalResponseNorm": same(first(4, 3, 3), size=2),
    "LogSoftmax": Row({}, sequence(5, 4), sequence(5, 4), {"dim": -1}),
    "PixelShuffle": Row({"upscale_factor": 2}, first(8, 3, 3), first(2, 6, 6)),
    "PixelUnshuffle": Row({"downscale_factor": 3}, first(2, 6, 6), first(18, 2, 2)),
    "RMSNorm": inferring(last(3, 3, 4), "normalized_shape", 4),
    "RNN": Row({"hidden_size": 3, "nonlinearity": "relu"}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "Softmax": Row({}, first(4, 3), first(4, 3), {"dim": 1}),
    "Softmax2d": same(first(4, 3, 3)),
    "Softmin": Row({}, features(4), features(4), {"dim": 1}),
    "TransformerEncoderLayer": inferring(sequence(5, 4), "d_model", 4, nhead=2, dim_feedforward=6),
    "Unflatten": Row({"dim": 1, "unflattened_size": [2, 3, 4]}, features(24), first(2, 3, 4)),
    "Unfold": Row({"kernel_size": 2}, first(3, 4, 5), first(12, 12)),
    "Upsample": Row({"scale_factor": 2.0, "mode": "bilinear"}, first(2, 3, 3), first(2, 6, 6)),
    "UpsamplingBilinear2d": Row({"size": [4, 5]}, first(2, 3, 3), first(2, 4, 5)),
    "UpsamplingNearest2d": Row({"size": 6}, first(2, 3, 3), first(2, 6, 6)),
}


# ---- from a table to a network -------------------------------------------------------------------------------------


def batch(given: Value, rows: int, seed: int = 1) -> Tensor:
    """Made-up input: positive and negative numbers, or tokens of the whole vocabulary but 0."""
    generator = torch.Generator().manual_seed(seed)
    if given.layout == "tokens":
        return torch.randint(1, given.vocab_size or 7, (rows, *given.shape), generator=generator)
    return torch.randn(rows, *given.shape, generator=generator)


def field_of(given: Value, name: str = "x") -> Field:
    return Field(name, given.shape, given.layout, given.vocab_size, given.lengths)


def nodes_of(layers: Any, mistakes: Mistakes) -> tuple[Node, ...]:
    block = read_model({"layers": layers}, ("model",), mistakes)
    return expand(block, mistakes) if block else ()


def build_layers(layers: Any, given: Value, mistakes: Mistakes, name: str = "x") -> Network | None:
    """The network of `layers` as YAML has them, for this input; None where something is wrong."""
    read = [(node, LAYERS.read(node.part, mistakes)) for node in nodes_of(layers, mistakes)]
    if mistakes:
        return None
    built = [Layer(node, *found) for node, found in read if found is not None]
    return build(built, field_of(given, name), batch(given, 2), mistakes)


def network_of(layers: Any, given: Value, name: str = "x") -> Network:
    """As `build_layers`, where nothing may be wrong."""
    mistakes = Mistakes()
    network = build_layers(layers, given, mistakes, name)
    assert network is not None, mistakes.found
    return network


def told(mistakes: Mistakes) -> list[tuple[str, str]]:
    """Every mistake as what was found and the fix."""
    return [(each.found, each.fix) for each in mistakes.found]


def refusal_of(layers: Any, given: Value) -> tuple[str, str]:
    """The one mistake that building these layers makes."""
    mistakes = Mistakes()
    assert build_layers(layers, given, mistakes) is None
    (only,) = told(mistakes)
    return only
