"""The functions of torch's that a `Formula` may call, and what each of their arguments may be."""

from __future__ import annotations

from collections.abc import Mapping

MATH_FUNCTIONS = (
    "exp log log1p expm1 log2 sqrt rsqrt square reciprocal abs sign sin cos tan asin acos atan sinh cosh tanh sigmoid "
    "logsigmoid relu gelu silu erf floor ceil round"
).split()
REDUCING_FUNCTIONS = "sum mean amax amin logsumexp prod argmax".split()

# Arguments in PyTorch's order: `?` marks those that may be left out, what follows `*` is given by name alone.
NUMBER_FUNCTIONS: Mapping[str, str] = {
    **dict.fromkeys(MATH_FUNCTIONS, "input"),
    "clamp": "input min? max?",
    "elu": "input alpha?",
    "leaky_relu": "input negative_slope?",
    "softplus": "input beta? threshold?",
}
ELEMENTWISE_ARGUMENTS: Mapping[str, str] = {
    **NUMBER_FUNCTIONS,
    **dict.fromkeys(["minimum", "maximum"], "input other"),
    **dict.fromkeys("detach ones_like zeros_like rand_like randn_like".split(), "input"),
    "pow": "input exponent",
    "where": "condition input other",
}
FUNCTION_ARGUMENTS: Mapping[str, str] = {
    **ELEMENTWISE_ARGUMENTS,
    **dict.fromkeys(REDUCING_FUNCTIONS, "input dim keepdim?"),
    **dict.fromkeys(["var", "std"], "input dim * correction? keepdim?"),
    **dict.fromkeys("softmax log_softmax cumsum cumprod unbind squeeze unsqueeze".split(), "input dim"),
    **dict.fromkeys(["cat", "stack"], "tensors dim"),
    **dict.fromkeys(["tril", "triu"], "input diagonal?"),
    "arange": "end",
    "chunk": "input chunks dim",
    "einsum": "equation operands",
    "expand": "input size",
    "eye": "n m?",
    "flatten": "input start_dim end_dim?",
    "flip": "input dims",
    "matmul": "input other",
    "norm": "input p? dim keepdim?",
    "normalize": "input p? dim?",
    "one_hot": "tensor num_classes",
    "permute": "input dims",
    "reshape": "input shape",
    "roll": "input shifts dims",
    "split": "tensor split_size_or_sections dim",
    "transpose": "input dim0 dim1",
    "unflatten": "input dim sizes",
}
FORMULA_FUNCTIONS: frozenset[str] = frozenset(FUNCTION_ARGUMENTS)
"""The functions of torch's that a formula may call."""

ELEMENTWISE_FUNCTIONS: frozenset[str] = frozenset(ELEMENTWISE_ARGUMENTS)
"""Those that treat each number by itself."""

MOVING_FUNCTIONS: frozenset[str] = frozenset(
    "cat chunk detach expand flatten flip permute reshape roll split squeeze stack transpose unbind unflatten "
    "unsqueeze zeros_like".split()
)
"""Those that give the numbers that they are given, elsewhere, or 0."""

KEEPDIM_FUNCTIONS: frozenset[str] = frozenset(name for name, words in FUNCTION_ARGUMENTS.items() if "keepdim?" in words)
"""Those that take dimensions away, unless they are told to keep them."""

DIM_ARGUMENTS: Mapping[str, int] = {"dim": 1, "dims": 1, "dim0": 1, "dim1": 2, "start_dim": 1, "end_dim": 2}
"""The arguments that are dimensions, each with an example."""

TENSOR_ARGUMENTS = {"input", "other", "condition", "exponent", "tensor", "tensors"}
NUMBER_OR_TENSOR_ARGUMENTS = {("pow", "input"), ("pow", "exponent"), ("where", "input"), ("where", "other")}
MULTI_OUTPUT_FUNCTIONS = {"chunk", "split", "unbind"}
SIZE_ARGUMENTS = {"n", "m", "end", "num_classes", "size"}
BATCH_FIRST_ARGUMENTS = {"shape", "size"}
MODULE_NAMES = {"torch", "F", "nn", "np", "numpy", "math", "tf", "K"}
FUNCTION_ALTERNATIVES: Mapping[str, str] = {
    "max": "write amax(x, dim=1), or maximum(a, b) of two",
    "min": "write amin(x, dim=1), or minimum(a, b) of two",
    "view": "write reshape(x, (-1, ...))",
    "repeat": "write expand(x, (-1, ...)), or cat([x, x], dim=1)",
    "dot": "write sum(a * b, dim=-1)",
    "mm": "write matmul(a, b)",
    "bmm": "write matmul(a, b)",
}
