"""Check that a `Formula` keeps the batch, dimension 0, first and whole. Values without a batch are free in all dims."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

from dlspec.errors import Code
from dlspec.language.expressions.formula_dims import format_corrected_call
from dlspec.language.expressions.formula_functions import BATCH_FIRST_ARGUMENTS, DIM_ARGUMENTS, TENSOR_ARGUMENTS
from dlspec.language.expressions.formula_tree import (
    find_output_names,
    get_function_name,
    has_multiple_outputs,
    match_arguments,
    parse_einsum_letters,
    read_whole_numbers,
    reject_node,
)


def check_batch_is_kept(tree: ast.expr, names_without_batch: Collection[str] = ()) -> None:
    """Raise `ExpressionError` for an operation that names the batch dimension of a value that has one.

    Dimensions that are counted from the end are not checked: only `parts/layers/formula_trial.py` knows the shapes.

    Args:
        tree: The formula, which `parse_formula` returned.
        names_without_batch: The names of outputs that have no batch, such as a `Parameter`.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value) if _has_batch(value, names_without_batch):
                if not has_multiple_outputs(value):
                    _check_index(node)
            case ast.Call() if get_function_name(node) == "einsum":
                if _has_batch(node, names_without_batch):
                    _check_einsum(node)
            case ast.Call():
                arguments = match_arguments(node)
                inputs = [arguments[each] for each in TENSOR_ARGUMENTS & arguments.keys()]
                if any(_has_batch(each, names_without_batch) for each in inputs):
                    _check_dims(node, arguments)
                    _check_shapes(node, arguments)


def _has_batch(node: ast.expr, names_without_batch: Collection[str]) -> bool:
    return any(name not in names_without_batch for name in find_output_names(node))


def _check_index(node: ast.Subscript) -> None:
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if items and _is_index_that_keeps_batch(items[0]):
        return
    if items and (find_output_names(items[0]) or isinstance(items[0], ast.Call)):
        fix = "index a value without a batch; to select by a condition, write where(condition, a, b)"
        reject_node(node, "selects samples from the batch", fix, code=Code.SAMPLES_MIXED)
    kept = ast.Tuple([ast.Slice(), *(items or [ast.Constant(0)])], ast.Load())
    fix = f"write {ast.unparse(ast.Subscript(node.value, kept, ast.Load()))}: the first dimension is the batch"
    reject_node(node, "selects samples from the batch", fix, code=Code.SAMPLES_MIXED)


def _is_index_that_keeps_batch(item: ast.expr) -> bool:
    match item:
        case ast.Slice(lower=None, upper=None, step=None):
            return True
        case ast.Constant(value=value):
            return value is Ellipsis
    return False


def _check_dims(call: ast.Call, arguments: Mapping[str, ast.expr]) -> None:
    for argument in DIM_ARGUMENTS.keys() & arguments.keys():
        dims = read_whole_numbers(arguments[argument])
        if get_function_name(call) == "permute":
            if dims[0] != 0 or 0 in dims[1:]:
                kept = ", ".join(map(str, [0, *(dim for dim in dims if dim != 0)]))
                tensor = ast.unparse(call.args[0]) if call.args else "x"
                fix = f"keep dim 0, the batch, first: permute({tensor}, ({kept}))"
                reject_node(call, "moves the batch dimension", fix, code=Code.SAMPLES_MIXED)
        elif 0 in dims:
            fix = format_corrected_call(call, arguments)
            reject_node(call, "works on the batch dimension", fix, code=Code.SAMPLES_MIXED)


def _check_shapes(call: ast.Call, arguments: Mapping[str, ast.expr]) -> None:
    for argument in sorted(BATCH_FIRST_ARGUMENTS & arguments.keys()):
        if read_whole_numbers(arguments[argument])[:1] != [-1]:
            fix = f"write -1 first, for the batch: {get_function_name(call)}({ast.unparse(call.args[0])}, (-1, ...))"
            reject_node(call, f"needs -1 as the first number of '{argument}'", fix, code=Code.SAMPLES_MIXED)


def _check_einsum(call: ast.Call) -> None:
    letters, output = parse_einsum_letters(call)
    if not output or output not in letters:
        fix = "start the output with the batch's letter: einsum('nij,njk->nik', a, b)"
        reject_node(call, "does not keep the batch dimension first", fix, code=Code.SAMPLES_MIXED)
