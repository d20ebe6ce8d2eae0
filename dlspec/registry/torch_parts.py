"""PyTorch's own layers, losses, optimizers and schedulers, each under its own name, without a wrapper.

What is left out, and why, stands in the tables below.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import nn, optim
from torch.optim import lr_scheduler

from dlspec.layers.recurrent import RECURRENT
from dlspec.layers.transformer import TransformerEncoderLayer
from dlspec.registry.refinements import refine
from dlspec.registry.registry import Registry
from dlspec.registry.schema import Schema, derive

INFERRED = frozenset(
    "in_channels in_features in1_features in2_features input_size num_features num_channels normalized_shape "
    "embed_dim kdim vdim d_model num_embeddings".split()
)
BATCH_FIRST = frozenset(
    {"RNN", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer"}
)

# No layers: bases, what is deprecated, and the layers whose sizes are inferred, which dlspec's all are.
LEFT_OUT = frozenset("Module Container DataParallel RNNBase RNNCellBase NLLLoss2d CrossMapLRN2d".split())
_SEVERAL = "it takes several inputs, and 'from' is not there yet"
_LAYERS_NOT_YET: Mapping[str, str] = {
    "Transformer": "stack TransformerEncoderLayer",
    "TransformerEncoder": "stack TransformerEncoderLayer",
    "SyncBatchNorm": "take BatchNorm1d, BatchNorm2d or BatchNorm3d",
    **dict.fromkeys("Sequential ModuleList ModuleDict".split(), "write its layers in the list itself"),
    **dict.fromkeys("ParameterList ParameterDict".split(), "register a layer of your own: @dlspec.layer"),
    **dict.fromkeys(
        "Bilinear CosineSimilarity PairwiseDistance TransformerDecoder TransformerDecoderLayer MultiheadAttention "
        "MaxUnpool1d MaxUnpool2d MaxUnpool3d".split(),
        _SEVERAL,
    ),
    # Without the state of the step before, half of their weights would never be used.
    **{f"{name}Cell": f"it takes the state before as a second input; take {name}" for name in ("RNN", "LSTM", "GRU")},
    **dict.fromkeys(
        "Residual Parallel Add Multiply Concat Reshape Permute Select Mean Max Sum Formula Parameter "
        "Attention PositionalEmbedding RelativePositionBias TimeDistributed Scan".split(),
        "this version builds plain stacks of PyTorch's layers",
    ),
}
_LOSSES_NOT_YET: Mapping[str, str] = {
    **dict.fromkeys(
        "CTCLoss CosineEmbeddingLoss GaussianNLLLoss MarginRankingLoss TripletMarginLoss "
        "TripletMarginWithDistanceLoss".split(),
        "it takes several outputs of a network, and those are not there yet",
    ),
    "AdaptiveLogSoftmaxWithLoss": "it holds the network's last layer: take CrossEntropyLoss behind a Linear",
    "LinearCrossEntropyLoss": "it holds the network's last layer: take CrossEntropyLoss behind a Linear",
    "HingeEmbeddingLoss": "it compares distances between samples, and pairs of them are not there yet",
    "MultiLabelMarginLoss": "it wants several labels a sample, and those are not there yet",
}
_SCHEDULERS_NOT_YET: Mapping[str, str] = dict.fromkeys(
    "ChainedScheduler SequentialLR LambdaLR MultiplicativeLR".split(), "it takes schedulers or functions"
)

# dlspec's subclasses of PyTorch's own: the same settings and weights, and they know where a sample ends.
_WITH_LENGTHS: Mapping[str, type] = {**RECURRENT, "TransformerEncoderLayer": TransformerEncoderLayer}

# Keras's and common wrong spellings, answered with PyTorch's.
FOREIGN_LAYERS: Mapping[str, str] = {
    "Dense": "Linear",
    "Conv1D": "Conv1d",
    "Conv2D": "Conv2d",
    "Conv3D": "Conv3d",
    "Conv2DTranspose": "ConvTranspose2d",
    "DepthwiseConv2D": "Conv2d with groups",
    "MaxPooling1D": "MaxPool1d",
    "MaxPooling2D": "MaxPool2d",
    "AveragePooling2D": "AvgPool2d",
    "GlobalAveragePooling2D": "AdaptiveAvgPool2d: 1, then Flatten",
    "GlobalMaxPooling2D": "AdaptiveMaxPool2d: 1, then Flatten",
    "BatchNormalization": "BatchNorm1d, BatchNorm2d or BatchNorm3d",
    "LayerNormalization": "LayerNorm",
    "GroupNormalization": "GroupNorm",
    "SpatialDropout2D": "Dropout2d",
    "ZeroPadding2D": "ZeroPad2d",
    "UpSampling1D": "Upsample",
    "UpSampling2D": "Upsample",
    "Conv1DTranspose": "ConvTranspose1d",
    "SeparableConv2D": "Conv2d with groups, then a Conv2d with kernel_size 1",
    "MaxPooling3D": "MaxPool3d",
    "AveragePooling1D": "AvgPool1d",
    "GlobalAveragePooling1D": "AdaptiveAvgPool1d: 1, then Flatten",
    "Conv2dNormActivation": "Conv2d, BatchNorm2d and ReLU, one after the other",
    "FrozenBatchNorm2d": "BatchNorm2d",
    "SpatialDropout1D": "Dropout1d",
    "TextVectorization": "Embedding: the data make words to numbers",
    "InputLayer": "leave it out: the data tell their shape",
    "Input": "leave it out: the data tell their shape",
    "SimpleRNN": "RNN",
    "Bidirectional": "LSTM: {hidden_size: ..., bidirectional: true}",
    "MultiHeadAttention": "MultiheadAttention",
    "Activation": "the activation's own name: ReLU, Sigmoid, Tanh",
    "swish": "SiLU",
    "linear": "Identity, or Linear for a layer",
}
FOREIGN_LOSSES: Mapping[str, str] = {
    "categorical_crossentropy": "CrossEntropyLoss",
    "sparse_categorical_crossentropy": "CrossEntropyLoss",
    "SparseCategoricalCrossentropy": "CrossEntropyLoss",
    "CategoricalCrossentropy": "CrossEntropyLoss",
    "binary_crossentropy": "BCEWithLogitsLoss, or BCELoss behind a Sigmoid",
    "BinaryCrossentropy": "BCEWithLogitsLoss, or BCELoss behind a Sigmoid",
    "mse": "MSELoss",
    "mean_squared_error": "MSELoss",
    "mae": "L1Loss",
    "mean_absolute_error": "L1Loss",
    "huber": "HuberLoss",
}


def _classes(module: ModuleType, base: type, left_out: Mapping[str, str] | frozenset[str]) -> Iterator[type]:
    for name, cls in vars(module).items():
        is_part = inspect.isclass(cls) and issubclass(cls, base) and cls is not base
        if is_part and not name.startswith("_") and name not in left_out:
            yield cls


def _layer_classes() -> Iterator[type]:
    for cls in _classes(nn, nn.Module, LEFT_OUT | _LAYERS_NOT_YET.keys()):
        if not cls.__name__.startswith("Lazy") and not cls.__name__.endswith("Loss"):
            yield _WITH_LENGTHS.get(cls.__name__, cls)


def _derive_layer(cls: type) -> Schema:
    return derive(
        cls,
        "layer",
        inferred=INFERRED,
        fixed={"batch_first": True} if cls.__name__ in BATCH_FIRST else {},
        refine=refine,
        # Which of a layer's alternatives one value would mean can't be told.
        takes_value=not cls.__name__.startswith("Upsampl"),
    )


def _derive_loss(cls: type) -> Schema:
    # A target given by dlspec is never a logarithm.
    return derive(cls, "loss", dropped=frozenset({"log_target"}), refine=refine)


def _derive_optimizer(cls: type) -> Schema:
    return derive(cls, "optimizer", dropped=frozenset({"params"}), refine=refine)


def _derive_scheduler(cls: type) -> Schema:
    dropped = frozenset({"optimizer", "last_epoch", "scale_fn"})
    return derive(cls, "scheduler", dropped=dropped, refine=refine)


LAYERS = Registry("layer", _layer_classes(), _derive_layer, not_yet=_LAYERS_NOT_YET, foreign=FOREIGN_LAYERS)
LOSSES = Registry(
    "loss",
    (each for each in _classes(nn, nn.Module, LEFT_OUT | _LOSSES_NOT_YET.keys()) if each.__name__.endswith("Loss")),
    _derive_loss,
    not_yet=_LOSSES_NOT_YET,
    foreign=FOREIGN_LOSSES,
)
OPTIMIZERS = Registry("optimizer", _classes(optim, optim.Optimizer, frozenset()), _derive_optimizer)
SCHEDULERS = Registry(
    "scheduler",
    _classes(lr_scheduler, lr_scheduler.LRScheduler, _SCHEDULERS_NOT_YET),
    _derive_scheduler,
    not_yet=_SCHEDULERS_NOT_YET,
)


def settings_with_defaults(schema: Schema, written: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that a saved spec shows: what was written, else the class's default where YAML can hold it."""
    settings: dict[str, Any] = {}
    for name, setting in schema.settings.items():
        if name in written:
            settings[name] = written[name]
        elif isinstance(setting.default, bool | int | float | str | None):
            settings[name] = setting.default
        elif isinstance(setting.default, tuple | list):
            settings[name] = list(setting.default)
    return settings
