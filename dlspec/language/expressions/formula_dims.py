"""What a call in a `Formula` says of dimensions and sizes: the batch, dimension 0, is left alone."""

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

_BATCH_HINT = "the batch is dim 0, and samples must not mix"


def format_example(call: ast.Call, given: Mapping[str, ast.expr]) -> str:
    """The call as it should be written, its dimensions those of a sample."""
    parts = []
    for argument in list_argument_names(call):
        if argument in DIM_ARGUMENTS and (argument in given or f"{argument}?" not in list_argument_words(call)):
            parts.append(f"{argument}={DIM_ARGUMENTS[argument]}")
        elif argument in given:
            is_named = any("=" in part for part in parts)
            parts.append(f"{argument}={ast.unparse(given[argument])}" if is_named else ast.unparse(given[argument]))
    return f"write {get_function_name(call)}({', '.join(parts)}): {_BATCH_HINT}"


def check_dims(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    """Refuse a call that works on dimension 0, or moves it."""
    for argument in DIM_ARGUMENTS.keys() & given.keys():
        dims = read_whole_numbers(given[argument])
        if get_function_name(call) == "permute":
            if dims[0] != 0 or 0 in dims[1:]:
                reject_node(
                    call,
                    "moves the batch",
                    "let 0, the batch, stand first: permute(x, (0, 2, 1))",
                    code=Code.SAMPLES_MIXED,
                )
        elif 0 in dims:
            reject_node(call, "works on the batch", format_example(call, given), code=Code.SAMPLES_MIXED)


def check_sizes(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    """Refuse sizes that change the batch's, that are none, or that make too many numbers."""
    total, max_total = 1, get_limit("formula_size") ** 2
    for argument in sorted((SIZE_ARGUMENTS | BATCH_FIRST_ARGUMENTS) & given.keys()):
        sizes = read_whole_numbers(given[argument])
        if argument in BATCH_FIRST_ARGUMENTS and sizes[:1] != [-1]:
            fix = f"begin with -1, the batch: {get_function_name(call)}({ast.unparse(given['input'])}, (-1, ...))"
            reject_node(call, f"has no such '{argument}'", fix, code=Code.SAMPLES_MIXED)
        if argument not in BATCH_FIRST_ARGUMENTS and not (is_whole_number(given[argument]) and sizes[0] > 0):
            reject_node(call, f"has no size as '{argument}'", "write a whole number from 1")
        total *= math.prod(max(abs(size), 1) for size in sizes)
    if total > max_total:
        reject_node(
            call,
            f"makes {total:,} numbers; {max_total:,} are allowed",
            explain_raising_limit("formula_size"),
            code=Code.TOO_LARGE,
        )
