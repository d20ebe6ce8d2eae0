"""What a call in a `Formula` says of dimensions and sizes: the batch, dimension 0, is left alone."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from dlspec.errors import Code
from dlspec.language.expressions.formula_functions import DIMS, FROM_BATCH, SIZES
from dlspec.language.expressions.formula_tree import (
    argument_names,
    argument_words,
    function_name,
    is_whole_number,
    refuse,
    whole_numbers,
)
from dlspec.limits import how_to_raise, limit

_SAMPLES = "the batch is dim 0, and samples must not mix"


def show_example(call: ast.Call, given: Mapping[str, ast.expr]) -> str:
    """The call as it should be written, its dimensions those of a sample."""
    parts = []
    for word in argument_names(call):
        if word in DIMS and (word in given or f"{word}?" not in argument_words(call)):
            parts.append(f"{word}={DIMS[word]}")
        elif word in given:
            is_named = any("=" in part for part in parts)
            parts.append(f"{word}={ast.unparse(given[word])}" if is_named else ast.unparse(given[word]))
    return f"write {function_name(call)}({', '.join(parts)}): {_SAMPLES}"


def check_dims(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    """Refuse a call that works on dimension 0, or moves it."""
    for word in DIMS.keys() & given.keys():
        dims = whole_numbers(given[word])
        if function_name(call) == "permute":
            if dims[0] != 0 or 0 in dims[1:]:
                refuse(
                    call,
                    "moves the batch",
                    "let 0, the batch, stand first: permute(x, (0, 2, 1))",
                    code=Code.SAMPLES_MIXED,
                )
        elif 0 in dims:
            refuse(call, "works on the batch", show_example(call, given), code=Code.SAMPLES_MIXED)


def check_sizes(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    """Refuse sizes that change the batch's, that are none, or that make too many numbers."""
    total, most = 1, limit("formula_size") ** 2
    for word in sorted((SIZES | FROM_BATCH) & given.keys()):
        sizes = whole_numbers(given[word])
        if word in FROM_BATCH and sizes[:1] != [-1]:
            fix = f"begin with -1, the batch: {function_name(call)}({ast.unparse(given['input'])}, (-1, ...))"
            refuse(call, f"has no such '{word}'", fix, code=Code.SAMPLES_MIXED)
        if word not in FROM_BATCH and not (is_whole_number(given[word]) and sizes[0] > 0):
            refuse(call, f"has no size as '{word}'", "write a whole number from 1")
        total *= math.prod(max(abs(size), 1) for size in sizes)
    if total > most:
        refuse(
            call, f"makes {total:,} numbers; {most:,} are allowed", how_to_raise("formula_size"), code=Code.TOO_LARGE
        )
