"""What PyTorch's type hints do not say: sizes are positive, probabilities lie in [0, 1], words come from a list.

A row is found by `Part.setting` first, then by `setting` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dlspec.parts.hints import Refinement

_POSITIVE = Refinement(at_least=1)
_NOT_NEGATIVE = Refinement(at_least=0)
_PROBABILITY = Refinement(at_least=0, at_most=1)
_FRACTION = Refinement(at_least=0, at_most=1)
_WORDS = Literal["valid", "same"]


def _one_of(*words: str) -> Refinement:
    return Refinement(hint=Literal[words])


def _hint(hint: Any, *, at_least: float | None = None) -> Refinement:
    return Refinement(hint=hint, at_least=at_least)


def _sizes(dims: int, *, at_least: float, item: Any = int) -> Refinement:
    """One whole number for all dimensions, or one for each."""
    return Refinement(hint=item | tuple[(item,) * dims], at_least=at_least)  # type: ignore[misc]  # made at run time


def _pooling_sizes() -> dict[str, Refinement]:
    """Poolings take a list of any length by their hints."""
    rows: dict[str, Refinement] = {}
    for dims in (1, 2, 3):
        for setting in ("kernel_size", "stride", "dilation"):
            rows[f"MaxPool{dims}d.{setting}"] = _sizes(dims, at_least=1)
            rows[f"LPPool{dims}d.{setting}"] = _sizes(dims, at_least=1) if dims > 1 else _hint(int, at_least=1)
        rows[f"MaxPool{dims}d.padding"] = _sizes(dims, at_least=0)
        for kind in ("Avg", "Max"):
            rows[f"Adaptive{kind}Pool{dims}d.output_size"] = _sizes(dims, at_least=1, item=int | None)
    for name in ("Fold", "Unfold"):
        for setting in ("output_size", "kernel_size", "stride", "dilation"):
            rows[f"{name}.{setting}"] = _sizes(2, at_least=1)
        rows[f"{name}.padding"] = _sizes(2, at_least=0)
    return rows


_POSITIVE_NAMES = (
    "in_channels out_channels in_features out_features in1_features in2_features num_features num_channels "
    "num_groups num_heads num_kv_heads head_dim num_buckets max_distance nhead d_model "
    "embed_dim kdim vdim input_size hidden_size embedding_dim divisor_override size "
    "num_embeddings dim_feedforward kernel_size stride dilation groups normalized_shape upscale_factor "
    "downscale_factor num_parameters output_size step_size T_max T_0 T_mult total_steps step_size_up step_size_down "
    "history_size max_iter max_eval ns_steps num_classes epochs steps_per_epoch top_k n_bins"
)
_NOT_NEGATIVE_NAMES = (
    "padding output_padding proj_size weight_decay lr_decay lr eps layer_norm_eps momentum dampening total_iters "
    "patience cooldown warmup_steps eta_min min_lr max_lr base_lr gamma"
)

REFINEMENTS: Mapping[str, Refinement] = {
    **dict.fromkeys(_POSITIVE_NAMES.split(), _POSITIVE),
    **dict.fromkeys(_NOT_NEGATIVE_NAMES.split(), _NOT_NEGATIVE),
    **dict.fromkeys("norm_type scale_factor max_norm output_ratio beta".split(), Refinement(above=0)),
    **_pooling_sizes(),
    # Each layer of it is built: a number without an end would never be done.
    "num_layers": Refinement(at_least=1, at_most=1000),
    "p": _PROBABILITY,
    "dropout": _PROBABILITY,
    "label_smoothing": _FRACTION,
    # A sum grows with the batch, and the last batch of an epoch is smaller.
    "reduction": Refinement(hint=Literal["mean"], not_yet=("sum",)),
    "activation": Refinement(hint=Literal["relu", "gelu"], default="relu"),
    "approximate": _one_of("none", "tanh"),
    "nonlinearity": _one_of("tanh", "relu"),
    **{
        f"kaiming_{kind}_.{setting}": row
        for kind in ("uniform", "normal")
        for setting, row in (
            ("nonlinearity", _one_of("relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear")),
            ("mode", _one_of("fan_in", "fan_out")),
        )
    },
    "std": _NOT_NEGATIVE,
    "sparsity": _PROBABILITY,
    "LocalResponseNorm.beta": Refinement(),
    "SmoothL1Loss.beta": Refinement(at_least=0),
    "HuberLoss.delta": Refinement(above=0),
    "max_fpr": Refinement(above=0, at_most=1),
    "threshold": Refinement(),
    # Padding that is negative crops.
    **{
        f"{kind}Pad{n}d.padding": Refinement()
        for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
        for n in (1, 2, 3)
    },
    "normalized_shape": _hint(int | list[int], at_least=1),
    "unflattened_size": _hint(list[int], at_least=-1),
    "Reshape.shape": _hint(list[int], at_least=-1),
    "Parameter.shape": _hint(list[int], at_least=1),
    "Parameter.init": _hint(str | dict[str, Any]),
    "Permute.dims": _hint(list[int], at_least=0),
    "Attention.rotary": _hint(bool | float, at_least=1),
    # Left out it is the channels', wherever those stand.
    "CosineSimilarity.dim": Refinement(hint=int | None, default=None),
    # Metrics: one number comes out.
    "average": _one_of("micro", "macro", "weighted"),
    **{f"{name}.average": _one_of("macro", "weighted") for name in ("AUROC", "AveragePrecision")},
    "multioutput": _one_of("uniform_average", "variance_weighted"),
    "weights": Refinement(hint=Literal["linear", "quadratic"] | None),
    "data_range": Refinement(hint=float, above=0),
    "base": Refinement(above=1),
    "thresholds": _hint(int | list[float] | None),
    "KLDivLoss.reduction": Refinement(hint=Literal["batchmean", "mean"], not_yet=("sum",)),
    # Their p is a norm's degree, not a probability.
    "PairwiseDistance.p": Refinement(above=0),
    "TripletMarginLoss.p": Refinement(above=0),
    "MultiMarginLoss.p": Refinement(hint=Literal[1, 2]),
    "Conv1d.padding": _hint(_WORDS | int | tuple[int], at_least=0),
    "Conv2d.padding": _hint(_WORDS | int | tuple[int, int], at_least=0),
    "Conv3d.padding": _hint(_WORDS | int | tuple[int, int, int], at_least=0),
    "EmbeddingBag.mode": _one_of("sum", "mean", "max"),
    "Upsample.mode": _one_of("nearest", "linear", "bilinear", "bicubic", "trilinear", "nearest-exact"),
    **{f"ConvTranspose{n}d.padding_mode": Refinement(hint=Literal["zeros"]) for n in (1, 2, 3)},
    "MultiheadAttention.embed_dim": _hint(int, at_least=1),
    "MultiheadAttention.num_heads": _hint(int, at_least=1),
    "MultiheadAttention.kdim": _hint(int | None, at_least=1),
    "MultiheadAttention.vdim": _hint(int | None, at_least=1),
    "LBFGS.line_search_fn": Refinement(hint=Literal["strong_wolfe"] | None),
    "Muon.adjust_lr_fn": Refinement(hint=Literal["original", "match_rms_adamw"] | None),
    "CyclicLR.base_lr": _hint(float | list[float], at_least=0),
    "CyclicLR.max_lr": _hint(float | list[float], at_least=0),
    "CyclicLR.mode": _one_of("triangular", "triangular2", "exp_range"),
    "CyclicLR.scale_mode": _one_of("cycle", "iterations"),
    "CyclicLR.step_size_down": _hint(int | None, at_least=1),
    "MultiStepLR.milestones": _hint(list[int], at_least=1),
    # The trainer knows how long a run is.
    "CosineAnnealingLR.T_max": Refinement(hint=int | None, at_least=1, default=None),
}


def refine(part: str, setting: str) -> Refinement:
    """The row for a part's setting, or an empty one."""
    return REFINEMENTS.get(f"{part}.{setting}") or REFINEMENTS.get(setting) or Refinement()
