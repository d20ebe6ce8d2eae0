"""The functions of PyTorch that a `Formula` can call, with their arguments."""

from __future__ import annotations

from collections.abc import Mapping

MATH_FUNCTIONS = (
    "exp log log1p expm1 log2 sqrt rsqrt square reciprocal abs sign sin cos tan asin acos atan sinh cosh tanh sigmoid "
    "logsigmoid relu gelu silu erf floor ceil round"
).split()
IS_STEP = "is_step"  # not PyTorch's: the mask (N, T) of an input's real steps
REDUCING_FUNCTIONS = "sum mean amax amin logsumexp prod argmax".split()

# Arguments in PyTorch's order: `?` marks optional ones, those after `*` are keyword-only.
# Functions that can be applied to numbers too.
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
    IS_STEP: "input",
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
ELEMENTWISE_FUNCTIONS: frozenset[str] = frozenset(ELEMENTWISE_ARGUMENTS)

# Functions whose result contains only values of their inputs, in other positions, or 0.
MOVING_FUNCTIONS: frozenset[str] = frozenset(
    "cat chunk detach expand flatten flip permute reshape roll split squeeze stack transpose unbind unflatten "
    "unsqueeze zeros_like".split()
)
# Functions that remove dimensions unless called with keepdim=True.
KEEPDIM_FUNCTIONS: frozenset[str] = frozenset(name for name, words in FUNCTION_ARGUMENTS.items() if "keepdim?" in words)

# Arguments that are dimensions, each with a value to use in examples.
DIM_ARGUMENTS: Mapping[str, int] = {"dim": 1, "dims": 1, "dim0": 1, "dim1": 2, "start_dim": 1, "end_dim": 2}

TENSOR_ARGUMENTS = {"input", "other", "condition", "exponent", "tensor", "tensors"}
NUMBER_OR_TENSOR_ARGUMENTS = {("pow", "input"), ("pow", "exponent"), ("where", "input"), ("where", "other")}
MULTI_OUTPUT_FUNCTIONS = {"chunk", "split", "unbind"}
SIZE_ARGUMENTS = {"n", "m", "end", "num_classes", "size"}
BATCH_FIRST_ARGUMENTS = {"shape", "size"}  # shapes whose first size is the batch's
# Names of modules that a user may write before a function by habit, as in torch.exp.
MODULE_NAMES = {"torch", "F", "nn", "np", "numpy", "math", "tf", "K"}
