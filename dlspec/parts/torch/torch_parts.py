"""Registries of layers, losses, optimizers and schedulers: PyTorch's classes under their own names.

dlspec's own layers are added. The tables below list what is left out, with the reason or a replacement.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import nn, optim
from torch.optim import lr_scheduler

from dlspec.parts.layers.attention import Attention
from dlspec.parts.layers.fold_time import FoldTime, FoldTimeLike, UnfoldTime
from dlspec.parts.layers.formula_layer import Formula
from dlspec.parts.layers.merge import Add, Concat, Multiply
from dlspec.parts.layers.normalization import BatchNorm1d, GroupNorm, InstanceNorm1d
from dlspec.parts.layers.parameter import Parameter
from dlspec.parts.layers.pooling import AdaptiveAvgPool1d, AdaptiveMaxPool1d, MaxPool1d
from dlspec.parts.layers.positions import PositionalEmbedding, RelativePositionBias
from dlspec.parts.layers.recurrent import GRU, LSTM, RNN
from dlspec.parts.layers.reduction import Max, Mean, Sum
from dlspec.parts.layers.reshape import Permute, Reshape, Select
from dlspec.parts.layers.softmax import LogSoftmax, Softmax, Softmin
from dlspec.parts.layers.stochastic_depth import StochasticDepth
from dlspec.parts.layers.transformer import MultiheadAttention, TransformerDecoderLayer, TransformerEncoderLayer
from dlspec.parts.name_suggestions import LAYER_SUGGESTIONS, LOSS_SUGGESTIONS
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.schema_derivation import SchemaOptions, derive_schema
from dlspec.parts.setting_constraints import find_constraint

INFERRED_SETTINGS = frozenset(
    "in_channels in_features in1_features in2_features input_size num_features num_channels normalized_shape "
    "embed_dim kdim vdim d_model num_embeddings".split()
)
BATCH_FIRST_LAYERS = frozenset(
    {"RNN", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer"}
)

# Not layers of a spec: base classes, deprecated classes, and what the language itself does (Sequential). The Lazy
# classes are left out as well, as all sizes are inferred.
EXCLUDED_CLASSES = frozenset(
    "Module Container DataParallel RNNBase RNNCellBase NLLLoss2d CrossMapLRN2d Sequential".split()
)
_UNSUPPORTED_LAYERS: Mapping[str, str] = {
    "Transformer": "use its layers: TransformerEncoderLayer and TransformerDecoderLayer, each with repeat",
    "TransformerEncoder": "write TransformerEncoderLayer: {nhead: ..., repeat: 6}",
    "TransformerDecoder": "write TransformerDecoderLayer: {nhead: ..., from: [_, memory], repeat: 6}",
    "SyncBatchNorm": "use BatchNorm1d, BatchNorm2d or BatchNorm3d",
    **dict.fromkeys(("ModuleList", "ModuleDict"), "write its layers in the list, or in a Parallel"),
    **dict.fromkeys(("ParameterList", "ParameterDict"), "write a Parameter for each, with a name"),
    **{f"{name}Cell": f"it needs a loop over time; use {name}" for name in ("RNN", "LSTM", "GRU")},
    "Scan": "use RNN, LSTM or GRU",
    **dict.fromkeys(("RNNBase", "RNNCellBase"), "it is a base class; use RNN, LSTM or GRU"),
    **dict.fromkeys(("Module", "Container"), "it is a base class; write a layer of your own with @dlspec.layer"),
    **dict.fromkeys(("DataParallel", "DistributedDataParallel"), "a run uses one device; leave it out"),
    "CrossMapLRN2d": "use LocalResponseNorm",
    **dict.fromkeys(
        ("MoE", "MixtureOfExperts", "SparseMoE"), "use a dense mixture, Parallel: {branches: [...], merge: Add}"
    ),
}
_UNSUPPORTED_LOSSES: Mapping[str, str] = {
    "TripletMarginWithDistanceLoss": "its distance is a function; use TripletMarginLoss",
    "AdaptiveLogSoftmaxWithLoss": "it contains the network's last layer; use CrossEntropyLoss after a Linear",
    "LinearCrossEntropyLoss": "it contains the network's last layer; use CrossEntropyLoss after a Linear",
    "MultiLabelMarginLoss": "its targets list class numbers; use MultiLabelSoftMarginLoss, with targets from 0 to 1",
}
_UNSUPPORTED_SCHEDULERS: Mapping[str, str] = dict.fromkeys(
    "ChainedScheduler SequentialLR LambdaLR MultiplicativeLR".split(),
    "its arguments are schedulers or functions, which a spec can't contain",
)

# dlspec's subclasses of PyTorch's layers: the same settings and weights, but they respect the samples' lengths.
_REPLACEMENTS: Mapping[str, type] = {
    each.__name__: each
    for each in (
        RNN,
        LSTM,
        GRU,
        MultiheadAttention,
        TransformerEncoderLayer,
        TransformerDecoderLayer,
        BatchNorm1d,
        InstanceNorm1d,
        GroupNorm,
        MaxPool1d,
        AdaptiveAvgPool1d,
        AdaptiveMaxPool1d,
        Softmax,
        LogSoftmax,
        Softmin,
    )
}

# dlspec's own layers. A new one needs a file in `layers/`, its class here, and a row in the table of the layer tests.
_DLSPEC_LAYERS: tuple[type, ...] = (
    Add,
    Multiply,
    Concat,
    Reshape,
    Permute,
    Select,
    Mean,
    Max,
    Sum,
    Attention,
    PositionalEmbedding,
    RelativePositionBias,
    StochasticDepth,
    FoldTime,
    FoldTimeLike,
    UnfoldTime,
    Formula,
    Parameter,
)


def _list_classes(module: ModuleType, base: type, excluded: Mapping[str, str] | frozenset[str]) -> Iterator[type]:
    """Yield the public subclasses of `base` in a module, without the excluded names."""
    for name, cls in vars(module).items():
        is_part = inspect.isclass(cls) and issubclass(cls, base) and cls is not base
        if is_part and not name.startswith("_") and name not in excluded:
            yield cls


def _list_layer_classes() -> Iterator[type]:
    for cls in _list_classes(nn, nn.Module, EXCLUDED_CLASSES | _UNSUPPORTED_LAYERS.keys()):
        if not cls.__name__.startswith("Lazy") and not cls.__name__.endswith("Loss"):
            yield _REPLACEMENTS.get(cls.__name__, cls)
    yield from _DLSPEC_LAYERS


def _derive_layer(cls: type) -> Schema:
    options = SchemaOptions(
        find_constraint,
        inferred=INFERRED_SETTINGS,
        fixed={"batch_first": True} if cls.__name__ in BATCH_FIRST_LAYERS else {},
        # A single value could mean either `size` or `scale_factor`.
        takes_value=not cls.__name__.startswith("Upsampl"),
    )
    return derive_schema(cls, "layer", options)


def _derive_loss(cls: type) -> Schema:
    # dlspec's targets are never log-probabilities.
    return derive_schema(cls, "loss", SchemaOptions(find_constraint, ignored_of_torch=frozenset({"log_target"})))


def _derive_optimizer(cls: type) -> Schema:
    return derive_schema(cls, "optimizer", SchemaOptions(find_constraint, frozenset({"params"})))


def _derive_scheduler(cls: type) -> Schema:
    options = SchemaOptions(
        find_constraint, frozenset({"optimizer", "last_epoch"}), ignored_of_torch=frozenset({"scale_fn"})
    )
    return derive_schema(cls, "scheduler", options)


LAYERS = Registry(
    "layer", _list_layer_classes(), _derive_layer, unsupported=_UNSUPPORTED_LAYERS, suggestions=LAYER_SUGGESTIONS
)
LOSSES = Registry(
    "loss",
    (
        each
        for each in _list_classes(nn, nn.Module, EXCLUDED_CLASSES | _UNSUPPORTED_LOSSES.keys())
        if each.__name__.endswith("Loss")
    ),
    _derive_loss,
    unsupported=_UNSUPPORTED_LOSSES,
    suggestions=LOSS_SUGGESTIONS,
)
OPTIMIZERS = Registry("optimizer", _list_classes(optim, optim.Optimizer, frozenset()), _derive_optimizer)
SCHEDULERS = Registry(
    "scheduler",
    _list_classes(lr_scheduler, lr_scheduler.LRScheduler, _UNSUPPORTED_SCHEDULERS),
    _derive_scheduler,
    unsupported=_UNSUPPORTED_SCHEDULERS,
)
LAYERS.set_other_kinds(LOSSES, OPTIMIZERS, SCHEDULERS)
LOSSES.set_other_kinds(LAYERS, OPTIMIZERS, SCHEDULERS)
OPTIMIZERS.set_other_kinds(SCHEDULERS, LAYERS, LOSSES)
SCHEDULERS.set_other_kinds(OPTIMIZERS, LAYERS, LOSSES)


def settings_with_defaults(schema: Schema, written: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings of a part for a saved spec.

    Args:
        schema: The part's schema.
        written: The settings that were written.

    Returns:
        The written settings, and the defaults of all others that YAML can express.
    """
    settings: dict[str, Any] = {}
    for name, setting in schema.settings.items():
        if name in written:
            settings[name] = written[name]
        elif isinstance(setting.default, bool | int | float | str | tuple | list | None):
            # Read like a written value, so that resuming writes the same spec again (50 becomes 50.0 here, not later).
            settings[name] = setting.read(setting.default) if setting.accepts(setting.default) else setting.default
    return settings
