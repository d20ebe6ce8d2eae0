"""The registries as tables: what each part is given, and what it then gives. A part without a row fails a test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Field
from dlspec.language.expand.containers import RESIDUAL_ADD
from dlspec.language.expand.expander import expand_model
from dlspec.language.expand.graph import Graph
from dlspec.language.parse.block import read_model
from dlspec.language.parse.part import parse_part
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.network.builder import Network, build_network
from dlspec.network.layer import Layer
from dlspec.network.layer_rules.layout_rules import check_layer_rule, find_rule, infer_missing_settings, infer_setting
from dlspec.network.random_state import preserve_random_state
from dlspec.parts.layers.rule import Settings
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_parts import LAYERS


def features(size: int) -> TensorInfo:
    return TensorInfo((size,), "features")


def sequence(*shape: int) -> TensorInfo:
    return TensorInfo(shape, "sequence")


def tokens(length: int, vocab_size: int = 7) -> TensorInfo:
    return TensorInfo((length,), "tokens", vocab_size=vocab_size)


def channels_first(*shape: int) -> TensorInfo:
    return TensorInfo(shape, "channels-first")


def channels_last(*shape: int) -> TensorInfo:
    return TensorInfo(shape, "channels-last")


def parameter(*shape: int) -> TensorInfo:
    """What a `Parameter` gives: no batch."""
    return TensorInfo(shape, "sequence" if len(shape) == 2 else "features", has_batch=False)


def indices(*shape: int) -> TensorInfo:
    """Where a maximum stood."""
    return TensorInfo(shape, "channels-first", vocab_size=6)


@dataclass(frozen=True)
class LayerRow:
    """A layer's settings, its input or inputs, its output, and what it infers.

    A `random` one draws in eval mode, too. `many` are the rows that the first input and the output have for a sample.
    """

    settings: Mapping[str, Any]
    given: TensorInfo | tuple[TensorInfo, ...]
    gives: TensorInfo
    inferred: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False
    many: tuple[int, int] = (1, 1)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.given if isinstance(self.given, tuple) else (self.given,)


def make_same_shape_row(given: TensorInfo, **settings: Any) -> LayerRow:
    return LayerRow(settings, given, given)


def make_inferring_row(given: TensorInfo, name: str, size: int, **settings: Any) -> LayerRow:
    return LayerRow(settings, given, given, {name: size})


def _make_rows_by_dims() -> dict[str, LayerRow]:
    """The layers that exist for one, two and three dimensions beside the channels; every dimension is 6 long."""
    rows: dict[str, LayerRow] = {}
    for n in (1, 2, 3):
        given, half, third = channels_first(4, *[6] * n), channels_first(4, *[3] * n), channels_first(4, *[2] * n)
        channels = {"in_channels": 4}
        rows |= {
            f"Conv{n}d": LayerRow({"out_channels": 5, "kernel_size": 3}, given, channels_first(5, *[4] * n), channels),
            f"ConvTranspose{n}d": LayerRow(
                {"out_channels": 5, "kernel_size": 2, "stride": 2}, given, channels_first(5, *[12] * n), channels
            ),
            f"BatchNorm{n}d": make_inferring_row(given, "num_features", 4),
            f"InstanceNorm{n}d": make_inferring_row(given, "num_features", 4, affine=True),
            f"Dropout{n}d": make_same_shape_row(given, p=0.4),
            f"MaxPool{n}d": LayerRow({"kernel_size": [2] * n}, given, half),
            f"AvgPool{n}d": LayerRow({"kernel_size": 2}, given, half),
            f"LPPool{n}d": LayerRow({"norm_type": 2, "kernel_size": 2}, given, half),
            f"AdaptiveAvgPool{n}d": LayerRow({"output_size": [2] * n}, given, third),
            f"AdaptiveMaxPool{n}d": LayerRow({"output_size": 2}, given, third),
            f"MaxUnpool{n}d": LayerRow({"kernel_size": 2}, (half, indices(4, *[3] * n)), given),
            f"ConstantPad{n}d": LayerRow({"padding": 1, "value": 0.5}, given, channels_first(4, *[8] * n)),
        }
        for kind in ("Circular", "Reflection", "Replication", "Zero"):
            rows[f"{kind}Pad{n}d"] = LayerRow({"padding": [1] * 2 * n}, given, channels_first(4, *[8] * n))
        if n > 1:
            rows[f"FractionalMaxPool{n}d"] = LayerRow({"kernel_size": 2, "output_size": 3}, given, half, random=True)
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

LAYER_ROWS: dict[str, LayerRow] = {
    **_make_rows_by_dims(),
    **{name: make_same_shape_row(sequence(5, 8), **settings) for name, settings in _ELEMENTWISE.items()},
    "Add": LayerRow({}, (sequence(5, 4), sequence(5, 1), parameter(4)), sequence(5, 4)),
    "Attention": LayerRow(
        {"num_heads": 4, "num_kv_heads": 2, "head_dim": 2, "rotary": True},
        (sequence(5, 4), sequence(6, 3), channels_first(4, 5, 6)),
        sequence(5, 4),
        {"embed_dim": 4, "kdim": 3},
    ),
    "Bilinear": LayerRow(
        {"out_features": 3}, (features(4), features(2)), features(3), {"in1_features": 4, "in2_features": 2}
    ),
    "ChannelShuffle": make_same_shape_row(channels_first(4, 3, 3), groups=2),
    "Concat": LayerRow({}, (channels_first(4, 3, 3), channels_first(2, 3, 3)), channels_first(6, 3, 3), {"dim": 1}),
    "CosineSimilarity": LayerRow({}, (sequence(5, 4), sequence(5, 4)), features(5), {"dim": 2}),
    "Embedding": LayerRow({"embedding_dim": 3}, tokens(5), sequence(5, 3), {"num_embeddings": 7}),
    "EmbeddingBag": LayerRow({"embedding_dim": 3, "mode": "max"}, tokens(5), features(3), {"num_embeddings": 7}),
    "Flatten": LayerRow({}, channels_first(2, 3, 4), features(24)),
    "Formula": LayerRow({"formula": "a * 2 + b"}, (sequence(5, 4), parameter(4)), sequence(5, 4)),
    "FoldTime": LayerRow({}, sequence(5, 4), features(4), many=(1, 5)),
    "FoldTimeLike": LayerRow({}, (sequence(5, 3), sequence(5, 4)), features(3), many=(1, 5)),
    "Fold": LayerRow({"output_size": [4, 5], "kernel_size": 2}, channels_first(12, 12), channels_first(3, 4, 5)),
    "GLU": LayerRow({}, features(8), features(4)),
    "GRU": LayerRow({"hidden_size": 3}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "GroupNorm": make_inferring_row(channels_first(4, 3, 3), "num_channels", 4, num_groups=2),
    "LSTM": LayerRow({"hidden_size": 3, "num_layers": 2}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "LayerNorm": make_inferring_row(sequence(5, 4), "normalized_shape", 4),
    "Linear": LayerRow({"out_features": 3}, sequence(5, 4), sequence(5, 3), {"in_features": 4}),
    "LocalResponseNorm": make_same_shape_row(channels_first(4, 3, 3), size=2),
    "LogSoftmax": LayerRow({}, sequence(5, 4), sequence(5, 4), {"dim": -1}),
    "Max": LayerRow({"keepdim": True}, sequence(5, 4), sequence(1, 4), {"dim": 1}),
    "Mean": LayerRow({}, channels_first(4, 3, 3), features(4), {"dim": [2, 3]}),
    "MultiheadAttention": LayerRow(
        {"num_heads": 2, "add_bias_kv": True},
        (sequence(5, 4), sequence(6, 3), sequence(6, 2)),
        sequence(5, 4),
        {"embed_dim": 4, "kdim": 3, "vdim": 2},
    ),
    "Multiply": LayerRow({}, (channels_first(4, 3, 3), channels_first(4, 1, 1)), channels_first(4, 3, 3)),
    "PairwiseDistance": LayerRow({"p": 1.0}, (features(4), features(4)), TensorInfo((), "features")),
    "Permute": LayerRow({"dims": [0, 2, 1]}, sequence(5, 4), channels_first(4, 5)),
    "Parameter": LayerRow({"shape": [3, 4], "init": {"normal_": {"std": 0.1}}}, (), parameter(3, 4)),
    "PixelShuffle": LayerRow({"upscale_factor": 2}, channels_first(8, 3, 3), channels_first(2, 6, 6)),
    "PixelUnshuffle": LayerRow({"downscale_factor": 3}, channels_first(2, 6, 6), channels_first(18, 2, 2)),
    "RMSNorm": make_inferring_row(channels_last(3, 3, 4), "normalized_shape", 4),
    "PositionalEmbedding": LayerRow(
        {"kind": "learned"}, sequence(5, 4), sequence(5, 4), {"num_embeddings": 5, "embed_dim": 4}
    ),
    "RelativePositionBias": LayerRow({"num_heads": 2, "num_buckets": 4}, sequence(9, 4), channels_first(2, 9, 9)),
    "Reshape": LayerRow({"shape": [2, -1, 4]}, features(24), channels_first(2, 3, 4)),
    "RNN": LayerRow({"hidden_size": 3, "nonlinearity": "relu"}, sequence(5, 4), sequence(5, 3), {"input_size": 4}),
    "Select": LayerRow({"index": -1}, sequence(5, 4), features(4), {"dim": 1}),
    "StochasticDepth": make_same_shape_row(sequence(5, 4), p=0.3),
    "Sum": LayerRow({"dim": -1}, features(4), TensorInfo((), "features")),
    "Softmax": LayerRow({}, channels_first(4, 3), channels_first(4, 3), {"dim": 1}),
    "Softmax2d": make_same_shape_row(channels_first(4, 3, 3)),
    "Softmin": LayerRow({}, features(4), features(4), {"dim": 1}),
    "TransformerDecoderLayer": LayerRow(
        {"nhead": 2, "dim_feedforward": 6, "tgt_is_causal": True},
        (sequence(5, 4), sequence(3, 4)),
        sequence(5, 4),
        {"d_model": 4},
    ),
    "TransformerEncoderLayer": make_inferring_row(sequence(5, 4), "d_model", 4, nhead=2, dim_feedforward=6),
    "Unflatten": LayerRow({"dim": 1, "unflattened_size": [2, 3, 4]}, features(24), channels_first(2, 3, 4)),
    "UnfoldTime": LayerRow({}, (features(3), sequence(5, 4)), sequence(5, 3), many=(5, 1)),
    "Unfold": LayerRow({"kernel_size": 2}, channels_first(3, 4, 5), channels_first(12, 12)),
    "Upsample": LayerRow({"scale_factor": 2.0, "mode": "bilinear"}, channels_first(2, 3, 3), channels_first(2, 6, 6)),
    "UpsamplingBilinear2d": LayerRow({"size": [4, 5]}, channels_first(2, 3, 3), channels_first(2, 4, 5)),
    "UpsamplingNearest2d": LayerRow({"size": 6}, channels_first(2, 3, 3), channels_first(2, 6, 6)),
}


# ---- from a table to a network -------------------------------------------------------------------------------------


def make_batch(given: TensorInfo, rows: int, seed: int = 1) -> Tensor:
    """Made-up input: positive and negative numbers, or tokens of the whole vocabulary but 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, *given.shape) if given.has_batch else given.shape
    if given.layout == "tokens" or given.vocab_size is not None:
        return torch.randint(1, given.vocab_size or 7, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def make_batches(row: LayerRow, rows: int) -> list[Tensor]:
    """Made-up inputs of a row, so many samples each."""
    many = (row.many[0], *[1] * len(row.inputs))
    return [make_batch(each, rows * many[at], at + 1) for at, each in enumerate(row.inputs)]


@dataclass(frozen=True)
class LayerUnderTest:
    """One layer, built by its schema and its rule, what it was built with, and its output for a batch of 2."""

    schema: Schema
    settings: Settings
    module: nn.Module
    output: TensorInfo

    def __call__(self, *inputs: Tensor, **lengths: Tensor | None) -> Tensor:
        """The first output."""
        output = self.module(*inputs, **lengths)
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found


def build_layer(name: str, settings: Settings, *given: TensorInfo, many: tuple[int, int] = (1, 1)) -> LayerUnderTest:
    """The layer with these settings for these inputs, where nothing may be wrong."""
    schema, read = read_layer(name, settings)
    assert check_layer_rule(schema, given, read) is None, check_layer_rule(schema, given, read)
    read |= infer_missing_settings(schema, given, read)
    unknown = [key for key, each in schema.settings.items() if each.is_inferred and read.get(key) is None]
    read |= {key: infer_setting(key, given) for key in unknown if infer_setting(key, given) is not None}
    module = schema.build(**read, **schema.fixed)
    row = LayerRow(settings, given, given[0], many=many)
    with torch.no_grad(), preserve_random_state(), warnings.catch_warnings(action="ignore"):
        shape = LayerUnderTest(schema, read, module.eval(), given[0])(*make_batches(row, 2)).shape[1:]
    module.train()
    return LayerUnderTest(
        schema, read, module, TensorInfo(tuple(shape), find_rule(schema).gives(given, tuple(shape), read))
    )


def read_layer(name: str, settings: Settings) -> tuple[Schema, dict[str, Any]]:
    problems = Problems()
    part = parse_part({name: dict(settings)}, ("model", "layers", 0), problems, kind="layer")
    read = None if part is None else LAYERS.read(part, problems)
    assert read is not None and not problems.found, problems.found
    return read


def make_field(given: TensorInfo, name: str = "x") -> Field:
    return Field(name, given.shape, given.layout, given.vocab_size, given.lengths is not None)


def make_graph(model: Any, problems: Problems) -> Graph:
    """The graph of a model, or of its layers alone, as YAML has them."""
    raw = model if isinstance(model, dict) and "layers" in model else {"layers": model}
    block = read_model(raw, ("model",), problems)
    return expand_model(block, problems) if block else Graph()


def build_layers(layers: Any, given: TensorInfo, problems: Problems, name: str = "x") -> Network | None:
    """The network of `layers` as YAML has them, for this input; None where something is wrong."""
    graph = make_graph(layers, problems)
    built = [
        Layer(node, LAYERS["Add"], node.part.settings)
        if node.part.type == RESIDUAL_ADD
        else Layer(node, *(LAYERS.read(node.part, problems) or (LAYERS["Identity"], {})))
        for node in graph.nodes
    ]
    if problems:
        return None
    return build_network(graph, built, {name: (make_field(given, name), make_batch(given, 2))}, problems)


def build_valid_layers(layers: Any, given: TensorInfo, name: str = "x") -> Network:
    """As `build_layers`, where nothing may be wrong."""
    problems = Problems()
    network = build_layers(layers, given, problems, name)
    assert network is not None, problems.found
    return network


def list_problems(problems: Problems) -> list[tuple[str, str]]:
    """Every mistake as what was found and the fix."""
    return [(each.found, each.fix) for each in problems.found]


def get_refusal(layers: Any, given: TensorInfo) -> tuple[str, str]:
    """The one mistake that building these layers makes."""
    problems = Problems()
    assert build_layers(layers, given, problems) is None
    (only,) = list_problems(problems)
    return only


def get_rule_refusal(name: str, settings: Settings, *given: TensorInfo) -> tuple[str, str] | None:
    """What the layer's rule says against these inputs."""
    schema, read = read_layer(name, settings)
    refused = check_layer_rule(schema, given, read)
    return None if refused is None else (refused.found, refused.fix)
