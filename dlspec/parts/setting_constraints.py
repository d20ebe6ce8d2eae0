"""Constraints that PyTorch's type hints do not express: positive sizes, probabilities in [0, 1], lists of choices.

`CONSTRAINTS` is searched for `Part.setting` first, then for `setting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dlspec.parts.type_hints import Constraint

_POSITIVE = Constraint(at_least=1)
_NON_NEGATIVE = Constraint(at_least=0)
_PROBABILITY = Constraint(at_least=0, at_most=1)
_FRACTION = Constraint(at_least=0, at_most=1)
_PADDING_MODES = Literal["valid", "same"]


def _allow_choices(*choices: str) -> Constraint:
    return Constraint(hint=Literal[choices])


def _constrain_to_hint(hint: Any, *, at_least: float | None = None, is_finite: bool = False) -> Constraint:
    return Constraint(hint=hint, at_least=at_least, is_finite=is_finite)


def _allow_size_per_dim(dims: int, *, at_least: float, item: Any = int) -> Constraint:
    """Allow one whole number for all dimensions, or a list with one for each."""
    return Constraint(hint=item | tuple[(item,) * dims], at_least=at_least)  # type: ignore[misc]  # built at run time


def _pooling_constraints() -> dict[str, Constraint]:
    """Constrain the settings of pooling layers, whose hints allow lists of any length, to one number per dimension."""
    rows: dict[str, Constraint] = {}
    for dims in (1, 2, 3):
        for setting in ("kernel_size", "stride", "dilation"):
            rows[f"MaxPool{dims}d.{setting}"] = _allow_size_per_dim(dims, at_least=1)
            rows[f"LPPool{dims}d.{setting}"] = (
                _allow_size_per_dim(dims, at_least=1) if dims > 1 else _constrain_to_hint(int, at_least=1)
            )
        rows[f"MaxPool{dims}d.padding"] = _allow_size_per_dim(dims, at_least=0)
        for kind in ("Avg", "Max"):
            rows[f"Adaptive{kind}Pool{dims}d.output_size"] = _allow_size_per_dim(dims, at_least=1, item=int | None)
    for name in ("Fold", "Unfold"):
        for setting in ("output_size", "kernel_size", "stride", "dilation"):
            rows[f"{name}.{setting}"] = _allow_size_per_dim(2, at_least=1)
        rows[f"{name}.padding"] = _allow_size_per_dim(2, at_least=0)
    return rows


_POSITIVE_NAMES = (
    "in_channels out_channels in_features out_features in1_features in2_features num_features num_channels "
    "num_groups num_heads num_kv_heads head_dim num_buckets max_distance nhead d_model "
    "embed_dim kdim vdim input_size hidden_size embedding_dim divisor_override size "
    "num_embeddings dim_feedforward kernel_size stride dilation groups normalized_shape upscale_factor "
    "downscale_factor num_parameters output_size step_size T_max T_0 T_mult total_steps step_size_up step_size_down "
    "history_size max_iter max_eval ns_steps num_classes epochs steps_per_epoch top_k n_bins"
)
_NON_NEGATIVE_NAMES = "padding output_padding proj_size eps layer_norm_eps total_iters patience cooldown warmup_steps"
_RATES = "weight_decay lr_decay lr momentum dampening eta_min min_lr max_lr base_lr gamma"

CONSTRAINTS: Mapping[str, Constraint] = {
    **dict.fromkeys(_POSITIVE_NAMES.split(), _POSITIVE),
    **dict.fromkeys(_NON_NEGATIVE_NAMES.split(), _NON_NEGATIVE),
    **dict.fromkeys(_RATES.split(), Constraint(at_least=0, is_finite=True)),
    **dict.fromkeys("norm_type scale_factor max_norm output_ratio beta".split(), Constraint(above=0)),
    **_pooling_constraints(),
    # All `num_layers` layers are built: with a typo such as 1000000 this would take hours.
    "num_layers": Constraint(at_least=1, at_most=1000),
    "p": _PROBABILITY,
    "dropout": _PROBABILITY,
    "label_smoothing": _FRACTION,
    # "sum" is not allowed: a sum depends on the batch size, and the last batch of an epoch is smaller.
    "reduction": Constraint(hint=Literal["mean"], unsupported_values=("sum",)),
    "activation": Constraint(hint=Literal["relu", "gelu"], default="relu"),
    "approximate": _allow_choices("none", "tanh"),
    "nonlinearity": _allow_choices("tanh", "relu"),
    **{
        f"kaiming_{kind}_.{setting}": row
        for kind in ("uniform", "normal")
        for setting, row in (
            ("nonlinearity", _allow_choices("relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear")),
            ("mode", _allow_choices("fan_in", "fan_out")),
        )
    },
    "std": _NON_NEGATIVE,
    "sparsity": _PROBABILITY,
    "LocalResponseNorm.beta": Constraint(),
    "SmoothL1Loss.beta": Constraint(at_least=0),
    "HuberLoss.delta": Constraint(above=0),
    "max_fpr": Constraint(above=0, at_most=1),
    "threshold": Constraint(),
    # No lower bound: negative padding crops.
    **{
        f"{kind}Pad{n}d.padding": Constraint()
        for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
        for n in (1, 2, 3)
    },
    "normalized_shape": _constrain_to_hint(int | list[int], at_least=1),
    "unflattened_size": _constrain_to_hint(list[int], at_least=-1),
    "Reshape.shape": _constrain_to_hint(list[int], at_least=-1),
    "Parameter.shape": _constrain_to_hint(list[int], at_least=1),
    "Parameter.init": _constrain_to_hint(str | dict[str, Any]),
    "Permute.dims": _constrain_to_hint(list[int], at_least=0),
    "Attention.rotary": _constrain_to_hint(bool | float, at_least=1),
    # The default is the channel dimension, which is found when the layout is known.
    "CosineSimilarity.dim": Constraint(hint=int | None, default=None),
    # Metrics: only choices that return a single number.
    "average": _allow_choices("micro", "macro", "weighted"),
    **{f"{name}.average": _allow_choices("macro", "weighted") for name in ("AUROC", "AveragePrecision")},
    "multioutput": _allow_choices("uniform_average", "variance_weighted"),
    "weights": Constraint(hint=Literal["linear", "quadratic"] | None),
    "data_range": Constraint(hint=float, above=0),
    "base": Constraint(above=1),
    "thresholds": _constrain_to_hint(int | list[float] | None),
    "KLDivLoss.reduction": Constraint(hint=Literal["batchmean", "mean"], unsupported_values=("sum",)),
    # Here p is the degree of a norm, not a probability.
    "PairwiseDistance.p": Constraint(above=0),
    "TripletMarginLoss.p": Constraint(above=0),
    "MultiMarginLoss.p": Constraint(hint=Literal[1, 2]),
    "Conv1d.padding": _constrain_to_hint(_PADDING_MODES | int | tuple[int], at_least=0),
    "Conv2d.padding": _constrain_to_hint(_PADDING_MODES | int | tuple[int, int], at_least=0),
    "Conv3d.padding": _constrain_to_hint(_PADDING_MODES | int | tuple[int, int, int], at_least=0),
    "EmbeddingBag.mode": _allow_choices("sum", "mean", "max"),
    "Upsample.mode": _allow_choices("nearest", "linear", "bilinear", "bicubic", "trilinear", "nearest-exact"),
    **{f"ConvTranspose{n}d.padding_mode": Constraint(hint=Literal["zeros"]) for n in (1, 2, 3)},
    "MultiheadAttention.embed_dim": _constrain_to_hint(int, at_least=1),
    "MultiheadAttention.num_heads": _constrain_to_hint(int, at_least=1),
    "MultiheadAttention.kdim": _constrain_to_hint(int | None, at_least=1),
    "MultiheadAttention.vdim": _constrain_to_hint(int | None, at_least=1),
    "LBFGS.line_search_fn": Constraint(hint=Literal["strong_wolfe"] | None),
    "Muon.adjust_lr_fn": Constraint(hint=Literal["original", "match_rms_adamw"] | None),
    "CyclicLR.base_lr": _constrain_to_hint(float | list[float], at_least=0, is_finite=True),
    "CyclicLR.max_lr": _constrain_to_hint(float | list[float], at_least=0, is_finite=True),
    **{f"CyclicLR.{name}": _constrain_to_hint(float | list[float]) for name in ("base_momentum", "max_momentum")},
    "CyclicLR.mode": _allow_choices("triangular", "triangular2", "exp_range"),
    "CyclicLR.scale_mode": _allow_choices("cycle", "iterations"),
    "CyclicLR.step_size_down": _constrain_to_hint(int | None, at_least=1),
    "MultiStepLR.milestones": _constrain_to_hint(list[int], at_least=1),
    # If missing, it is set to the number of epochs or steps of the run.
    "CosineAnnealingLR.T_max": Constraint(hint=int | None, at_least=1, default=None),
}


def find_constraint(part: str, setting: str) -> Constraint:
    """Find the constraint of a part's setting; an empty one if there is none."""
    return CONSTRAINTS.get(f"{part}.{setting}") or CONSTRAINTS.get(setting) or Constraint()
