"""Checks of the dimensions and sizes that a call in a `Formula` names: it must not affect the batch (dimension 0)."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from dlspec.errors import Code
from dlspec.language.expressions.formula_functions import BATCH_FIRST_ARGUMENTS, DIM_ARGUMENTS, SIZE_ARGUMENTS
from dlspec.language.expressions.formula_tree import (
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
    parts = []
    for argument in list_argument_names(call):
        if argument in DIM_ARGUMENTS and (
            argument in arguments_by_name or f"{argument}?" not in list_argument_words(call)
        ):
            parts.append(f"{argument}={DIM_ARGUMENTS[argument]}")
        elif argument in arguments_by_name:
            is_named = any("=" in part for part in parts)
            parts.append(
                f"{argument}={ast.unparse(arguments_by_name[argument])}"
                if is_named
                else ast.unparse(arguments_by_name[argument])
            )
    return f"write {get_function_name(call)}({', '.join(parts)}): {_BATCH_HINT}"


def check_dim_arguments(call: ast.Call, arguments_by_name: Mapping[str, ast.expr]) -> None:
    """Raise `ExpressionError` if a call works on the batch dimension or moves it."""
    for argument in DIM_ARGUMENTS.keys() & arguments_by_name.keys():
        dims = read_whole_numbers(arguments_by_name[argument])
        if get_function_name(call) == "permute":
            if dims[0] != 0 or 0 in dims[1:]:
                tensor = ast.unparse(call.args[0]) if call.args else "x"
                kept = ", ".join(map(str, [0, *(dim for dim in dims if dim != 0)]))
                reject_node(
                    call,
                    "moves the batch dimension",
                    f"keep dim 0, the batch, first: permute({tensor}, ({kept}))",
                    code=Code.SAMPLES_MIXED,
                )
        elif 0 in dims:
            reject_node(
                call,
                "works on the batch dimension",
                format_corrected_call(call, arguments_by_name),
                code=Code.SAMPLES_MIXED,
            )


def check_size_arguments(call: ast.Call, arguments_by_name: Mapping[str, ast.expr]) -> None:
    """Raise `ExpressionError` for sizes that change the batch size, are not positive or create too many numbers."""
    total, max_total = 1, get_limit("formula_size") ** 2
    for argument in sorted((SIZE_ARGUMENTS | BATCH_FIRST_ARGUMENTS) & arguments_by_name.keys()):
        sizes = read_whole_numbers(arguments_by_name[argument])
        if argument in BATCH_FIRST_ARGUMENTS and sizes[:1] != [-1]:
            input_text = ast.unparse(arguments_by_name["input"])
            fix = f"write -1 first, for the batch: {get_function_name(call)}({input_text}, (-1, ...))"
            reject_node(call, f"needs -1 as the first number of '{argument}'", fix, code=Code.SAMPLES_MIXED)
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
