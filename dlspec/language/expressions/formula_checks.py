"""Checks of a `Formula`: allowed operands, indices, calls and their arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import NoReturn

from dlspec.errors import Code
from dlspec.language.expressions.expression_parsing import CONSTANTS
from dlspec.language.expressions.formula_dims import check_size_arguments, format_corrected_call
from dlspec.language.expressions.formula_functions import (
    DIM_ARGUMENTS,
    FORMULA_FUNCTIONS,
    IS_STEP,
    MULTI_OUTPUT_FUNCTIONS,
    NUMBER_FUNCTIONS,
    NUMBER_OR_TENSOR_ARGUMENTS,
    TENSOR_ARGUMENTS,
)
from dlspec.language.expressions.formula_tree import (
    FORMULA_LANGUAGE,
    compute_constant,
    find_output_names,
    format_usage,
    get_function_name,
    has_multiple_outputs,
    is_constant,
    is_number,
    is_whole_number,
    list_argument_words,
    match_arguments,
    parse_einsum_letters,
    read_whole_numbers,
    reject_function,
    reject_node,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS

_TENSOR_OPERATORS = (ast.MatMult, ast.BitAnd, ast.BitOr)
_BINARY_OPERATORS = (*ARITHMETIC, *_TENSOR_OPERATORS)
_COMPARISON_OPERATORS = tuple(COMPARISONS)
# What to write instead of Python's operators that tensors do not support.
_ALTERNATIVES: Mapping[type[ast.AST], str] = {
    ast.IfExp: "write where(condition, a, b)",
    ast.And: "write & with parentheses: (a > 0) & (b > 0)",
    ast.Or: "write | with parentheses: (a > 0) | (b > 0)",
    ast.Not: "write ~ with parentheses: ~(a > 0)",
    ast.Is: "write ==",
    ast.IsNot: "write !=",
    ast.In: "write (a == 1) | (a == 2)",
    ast.NotIn: "write (a != 1) & (a != 2)",
    ast.BitXor: "write ** for a power, != between conditions",
    ast.List: "lists are only allowed as arguments: cat([a, b], dim=1)",
    ast.Tuple: "lists are only allowed as arguments: cat([a, b], dim=1)",
}


def check_operand(node: ast.expr) -> None:
    """Check that a node is allowed where a tensor or number is expected; raise `ExpressionError` otherwise."""
    match node:
        case ast.Name(id=name) if CONSTANTS.get(name, name) is not None:
            return
        case ast.Constant(value=int() | float()):
            return
        case ast.UnaryOp():
            _check_unary(node)
        case ast.BinOp():
            _check_binary(node)
        case ast.Compare():
            _check_compare(node)
        case ast.Subscript(value=value, slice=index):
            _check_subscript(value, index)
        case ast.Call():
            _check_call(node)
            if get_function_name(node) in MULTI_OUTPUT_FUNCTIONS:
                reject_node(node, "returns more than one tensor", f"select one: {ast.unparse(node)}[0]")
        case ast.BoolOp(op=sign):
            reject_node(node, fix=_ALTERNATIVES[type(sign)])
        case ast.Attribute():
            _reject_attribute(node)
        case ast.Constant(value=str()):
            reject_node(node, fix="only the equation of einsum is written as a string")
        case _:
            reject_node(node, fix=_ALTERNATIVES.get(type(node), FORMULA_LANGUAGE))


def _check_unary(node: ast.UnaryOp) -> None:
    if not isinstance(node.op, ast.USub | ast.UAdd | ast.Invert):
        reject_node(node, fix=_ALTERNATIVES[type(node.op)])
    if isinstance(node.op, ast.Invert) and is_number(node.operand):
        reject_node(node, "applies ~ to a number", "~ negates a condition: ~(a > 0)")
    check_operand(node.operand)


def _check_binary(node: ast.BinOp) -> None:
    if not isinstance(node.op, _BINARY_OPERATORS):
        reject_node(node, fix=_ALTERNATIVES.get(type(node.op), FORMULA_LANGUAGE))
    check_operand(node.left)
    check_operand(node.right)
    if isinstance(node.op, _TENSOR_OPERATORS) and (is_number(node.left) or is_number(node.right)):
        fix = (
            "write *"
            if isinstance(node.op, ast.MatMult)
            else "put parentheses around each condition: (a > 0) & (b > 0)"
        )
        reject_node(node, "has a number on one side", fix)
    if isinstance(node.op, ast.Add) and _is_condition(node.left) and _is_condition(node.right):
        fix = f"write {ast.unparse(ast.BinOp(node.left, ast.BitOr(), node.right))}, or multiply one by 1 to count them"
        reject_node(node, "adds two conditions, which gives true or false", fix)
    if is_number(node) and not any(isinstance(each, ast.Call) for each in ast.walk(node)):
        compute_constant(node)  # raises for powers and results beyond the limits


def _is_condition(node: ast.expr) -> bool:
    """Whether the values of a node are true or false."""
    match node:
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return _is_condition(operand)
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
            return _is_condition(left) and _is_condition(right)
        case ast.Call():
            return get_function_name(node) == IS_STEP
    return isinstance(node, ast.Compare)


def _check_compare(node: ast.Compare) -> None:
    if len(node.ops) > 1:
        reject_node(node, "compares more than two values", "compare two at a time: (a < b) & (b < c)")
    if not isinstance(node.ops[0], _COMPARISON_OPERATORS):
        reject_node(node, fix=_ALTERNATIVES[type(node.ops[0])])
    for side in (node.left, node.comparators[0]):
        check_operand(side)
    if is_number(node.left) and is_number(node.comparators[0]):
        reject_node(node, "compares two numbers", "use an output on one side")


def _reject_attribute(node: ast.Attribute) -> NoReturn:
    if node.attr in ("shape", "size", "ndim", "T", "mT", "dtype", "device"):
        turned = f"write transpose({ast.unparse(node.value)}, 1, 2)"
        fix = turned if "T" in node.attr else "write the size as a number, or use a param"
    elif node.attr.startswith("_") or not isinstance(node.value, ast.Name):
        fix = FORMULA_LANGUAGE
    else:
        fix = f"give it a simple name in an entry above: Identity: {{from: {ast.unparse(node)}, name: {node.attr}}}"
    reject_node(node, fix=fix)


# ---- indices -------------------------------------------------------------------------------------------------------


def _check_subscript(value: ast.expr, index: ast.expr) -> None:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    for item in items:
        _check_index_item(item)
    if has_multiple_outputs(value):
        _check_tensor_list(value)
        if len(items) != 1 or not (read_whole_numbers(items[0]) or isinstance(items[0], ast.Slice)):
            reject_node(index, "does not select one of multiple tensors", "write an integer")
        return
    check_operand(value)
    if is_number(value):
        reject_node(value, "is a number and can't be indexed", "index an output")


def _check_index_item(item: ast.expr) -> None:
    if isinstance(item, ast.Constant) and (item.value is None or item.value is Ellipsis):
        return
    if isinstance(item, ast.Name) and item.id in CONSTANTS and CONSTANTS[item.id] is None:
        return
    if isinstance(item, ast.Slice):
        ends = [each for each in (item.lower, item.upper, item.step) if each is not None]
        if not all(is_whole_number(each) for each in ends):
            reject_node(item, "is not a valid slice", "use integers in a slice")
        if item.step is not None and read_whole_numbers(item.step)[0] < 1:
            reject_node(item, "has a step below 1", "to reverse a dimension, write flip(x, dims=1)")
    elif find_output_names(item) or any(isinstance(each, ast.Call) for each in ast.walk(item)):
        check_operand(item)
    elif not is_whole_number(item):
        reject_node(
            item,
            "is not a valid index",
            "use integers, slices, '...', None or an output of integers; for a condition write where(condition, a, b)",
        )


def _check_tensor_list(node: ast.expr) -> None:
    match node:
        case ast.Call():
            _check_call(node)
        case ast.Subscript(value=value, slice=index):
            _check_subscript(value, index)
        case ast.List(elts=items) | ast.Tuple(elts=items) if items:
            for item in items:
                check_operand(item)
                if is_number(item):
                    reject_node(item, "is a number in a list of tensors", "make it a tensor: 1 + zeros_like(x)")
        case _:
            reject_node(node, "is not a list", "write a list of outputs: [a, b]")


# ---- calls ---------------------------------------------------------------------------------------------------------


def _check_call(call: ast.Call) -> None:
    if get_function_name(call) not in FORMULA_FUNCTIONS:
        reject_function(call.func, call.args)
    if get_function_name(call) == "einsum":
        return _check_einsum(call)
    given = match_arguments(call)
    for argument in list_argument_words(call):
        if not argument.endswith("?") and argument != "*" and argument not in given:
            reject_node(
                call,
                f"lacks the argument '{argument}'",
                format_corrected_call(call, given) if argument in DIM_ARGUMENTS else format_usage(call),
                code=Code.MISSING_VALUE,
            )
    for argument, value in given.items():
        _check_argument(call, given, argument, value)
    return check_size_arguments(call, given)


def _check_argument(call: ast.Call, arguments_by_name: Mapping[str, ast.expr], argument: str, value: ast.expr) -> None:
    if argument == "tensors":
        return _check_tensor_list(value)
    if argument in TENSOR_ARGUMENTS:
        return _check_tensor_argument(call, arguments_by_name, argument, value)
    if argument in DIM_ARGUMENTS and not read_whole_numbers(value):
        reject_node(call, f"needs a number as '{argument}'", format_corrected_call(call, arguments_by_name))
    if not is_constant(value):
        reject_node(call, f"needs a number as '{argument}'", "write a number or a param there")
    compute_constant(value)  # raises for lists and powers beyond the limits
    return None


def _check_tensor_argument(
    call: ast.Call, arguments_by_name: Mapping[str, ast.expr], argument: str, value: ast.expr
) -> None:
    """Check an argument that PyTorch expects to be a tensor.

    Numbers are allowed in mathematical functions, whose result is then a number, and in `pow` and `where`.
    """
    if get_function_name(call) == IS_STEP and not isinstance(value, ast.Name):
        reject_node(call, "expects the name of an output", f"write {IS_STEP}(NAME), or {IS_STEP}(_)")
    check_operand(value)
    name = get_function_name(call)
    if not is_number(value) or name in NUMBER_FUNCTIONS:
        return
    if (name, argument) not in NUMBER_OR_TENSOR_ARGUMENTS:
        tensor = next((ast.unparse(each) for each in arguments_by_name.values() if not is_number(each)), "x")
        number = ast.unparse(value)
        fixes = {
            "maximum": f"write clamp({tensor}, min={number})",
            "minimum": f"write clamp({tensor}, max={number})",
        }
        reject_node(call, f"needs a tensor as '{argument}', not a number", fixes.get(name, "use an output there"))
    if name == "pow" and all(is_number(side) for side in arguments_by_name.values()):
        reject_node(call, "has only numbers as arguments", "write a ** b")


# ---- einsum --------------------------------------------------------------------------------------------------------


def _check_einsum(call: ast.Call) -> None:
    letters, _ = parse_einsum_letters(call)
    operands = call.args[1:]
    if call.keywords or len(operands) != len(letters):
        reject_node(
            call,
            f"has {len(operands)} operand{'s' * (len(operands) != 1)}, but its equation has {len(letters)}",
            "pass one output for each",
            code=Code.INPUT_COUNT,
        )
    for operand in operands:
        check_operand(operand)
        if is_number(operand):
            reject_node(call, "has a number as an operand", "use an output there")
