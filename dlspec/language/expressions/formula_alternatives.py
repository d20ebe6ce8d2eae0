"""What to write instead of functions that a `Formula` does not have, by their names in PyTorch, NumPy and Keras."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dlspec.errors import suggest
from dlspec.language.expressions.formula_functions import FORMULA_FUNCTIONS

MAX_ARGUMENT_LENGTH = 20  # characters; a longer one hides what the message says
_NO_CASTS = "a formula has no types: round(x) makes whole numbers, and 1 * (x > 0) numbers of a condition"
_OPERATORS = {
    "a + b": "add",
    "a - b": "sub subtract",
    "a * b": "mul multiply",
    "a / b": "div divide true_divide truediv",
    "a ** b": "power float_power",
    "-x": "neg negative",
    "a > b": "gt greater",
    "a >= b": "ge greater_equal",
    "a < b": "lt less",
    "a <= b": "le less_equal",
    "a == b": "eq equal",
}
_FORMULAS = {
    "clamp(x, min=0, max=1)": "clip clip_by_value hardtanh",
    "clamp(x, min=0, max=6)": "relu6",
    "clamp(x, min=0)": "clamp_min",
    "abs(x)": "absolute fabs",
    "square(x)": "sqr",
    "log(x)": "ln",
    "log(x / (1 - x))": "logit",
    "silu(x)": "swish",
    "x * tanh(softplus(x))": "mish",
    "x / (1 + abs(x))": "softsign",
    "amax(x, dim=1), or maximum(a, b) for two tensors": "max reduce_max",
    "amin(x, dim=1), or minimum(a, b) for two tensors": "min reduce_min",
    "sum(x, dim=1)": "reduce_sum nansum",
    "mean(x, dim=1)": "reduce_mean average nanmean",
    "argmax(-x, dim=1)": "argmin",
    "logsumexp(x, dim=1)": "reduce_logsumexp",
    "sum(a * b, dim=-1)": "dot inner vdot vecdot",
    "sum(a * b, dim=-1) / (norm(a, dim=-1) * norm(b, dim=-1))": "cosine_similarity",
    "matmul(a, b), or a @ b": "mm bmm",
    "c + matmul(a, b)": "addmm baddbmm",
    "unsqueeze(a, 2) * unsqueeze(b, 1)": "outer ger",
    "cat([a, b], dim=1)": "concat concatenate hstack",
    "reshape(x, (-1, 2, 3)), with the sizes of a sample": "view view_as reshape_as",
    "expand(x, (-1, 4, -1)), or cat([x, x], dim=1)": "repeat tile broadcast_to expand_as",
    "permute(x, (0, 2, 1))": "swapaxes swapdims movedim moveaxis",
    "transpose(x, 1, 2)": "t mT",
    "unsqueeze(x, 1)": "expand_dims newaxis",
    "where(condition, a, b)": "select cond",
    "where(mask, -1e9, x)": "masked_fill",
    "zeros_like(x)": "zeros",
    "ones_like(x)": "ones full full_like",
    "rand_like(x)": "rand uniform",
    "randn_like(x)": "randn normal",
    "arange(4) / 3": "linspace",
    "norm(a - b, dim=-1)": "cdist dist pairwise_distance",
    "one_hot(x, 4), and sum(one_hot * b, dim=1) to take a value of b": "gather take index_select",
    "x[:, :3]": "narrow slice",
}
_LAYERS = {
    "Linear": "linear dense",
    "Embedding": "embedding",
    "Dropout": "dropout",
    "LayerNorm": "layer_norm",
    "RMSNorm": "rms_norm",
    "BatchNorm1d": "batch_norm",
    "Conv1d": "conv1d",
    "Conv2d": "conv2d",
    "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d",
    "Upsample": "interpolate",
    "Attention": "scaled_dot_product_attention attention",
    "ZeroPad1d": "pad",
}


def _make_alternatives() -> dict[str, str]:
    found = dict.fromkeys("long int float double half bool to type cast astype item".split(), _NO_CASTS)
    for text, names in {**_OPERATORS, **_FORMULAS}.items():
        found |= dict.fromkeys(names.split(), f"write {text}")
    for layer, names in _LAYERS.items():
        found |= dict.fromkeys(names.split(), f"use the layer {layer}, as an entry of its own")
    return found


FUNCTION_ALTERNATIVES: Mapping[str, str] = _make_alternatives()


def suggest_function(name: str, argument: str = "x") -> str:
    """Suggest what to write instead of an unknown function.

    Args:
        name: The function.
        argument: Its first argument as written, for which the table says `x`.

    Returns:
        What computes the same, else a similar name, else all functions that there are.
    """
    known = FUNCTION_ALTERNATIVES.get(name, "")
    if known.startswith("write ") and len(argument) <= MAX_ARGUMENT_LENGTH:
        known = re.sub(r"(?<![\w.])x(?![\w.])", lambda _: argument, known)
    return known or suggest(name, FORMULA_FUNCTIONS, max_names=len(FORMULA_FUNCTIONS))
