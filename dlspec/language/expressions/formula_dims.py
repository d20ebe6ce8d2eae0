"""Checks of the sizes that a call in a `Formula` names, and the fix that shows a call with valid dimensions."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from dlspec.errors import Code
from dlspec.language.expressions.formula_functions import BATCH_FIRST_ARGUMENTS, DIM_ARGUMENTS, SIZE_ARGUMENTS
from dlspec.language.expressions.formula_tree import (
    find_output_names,
    get_function_name,
    is_whole_number,
    list_argument_names,
    list_argument_words,
    read_whole_numbers,
    reject_node,
)
from dlspec.limits import explain_raising_limit, get_limit

_BATCH_HINT = "dim 0 is the batch, and samples must not be mixed"


def format_corrected_call(call: ast.Call, arguments_by_name: Mapping[str, ast.expr]) -> str:
    """Format how a call should be written, with valid dimensions as an example."""
    first_dim = 1 if find_output_names(call) else 0  # constants have no batch
    parts = []
    for argument in list_argument_names(call):
        if argument in DIM_ARGUMENTS and (
            argument in arguments_by_name or f"{argument}?" not in list_argument_words(call)
        ):
            parts.append(f"{argument}={DIM_ARGUMENTS[argument] - 1 + first_dim}")
        elif argument in arguments_by_name:
            is_named = any("=" in part for part in parts)
            parts.append(
                f"{argument}={ast.unparse(arguments_by_name[argument])}"
                if is_named
                else ast.unparse(arguments_by_name[argument])
            )
    hint = f": {_BATCH_HINT}" if first_dim else ""
    return f"write {get_function_name(call)}({', '.join(parts)}){hint}"


def check_size_arguments(call: ast.Call, arguments_by_name: Mapping[str, ast.expr]) -> None:
    """Raise `ExpressionError` for sizes that are not positive or create too many numbers."""
    total, max_total = 1, get_limit("formula_size") ** 2
    for argument in sorted((SIZE_ARGUMENTS | BATCH_FIRST_ARGUMENTS) & arguments_by_name.keys()):
        sizes = read_whole_numbers(arguments_by_name[argument])
        if argument in BATCH_FIRST_ARGUMENTS and not sizes:
            input_text = ast.unparse(arguments_by_name["input"])
            fix = f"write integers: {get_function_name(call)}({input_text}, (-1, 4))"
            reject_node(call, f"needs sizes as '{argument}'", fix)
        if argument not in BATCH_FIRST_ARGUMENTS and not (
            is_whole_number(arguments_by_name[argument]) and sizes[0] > 0
        ):
            reject_node(call, f"needs a size as '{argument}'", "write an integer >= 1")
        total *= math.prod(max(abs(size), 1) for size in sizes)
    if total > max_total:
        reject_node(
            call,
            f"creates {total:,} numbers; at most {max_total:,} are allowed",
            explain_raising_limit("formula_size"),
            code=Code.TOO_LARGE,
        )
