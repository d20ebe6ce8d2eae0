"""What may stand where in a `Formula`: operands, indices that leave the batch alone, calls and their arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import NoReturn

from dlspec.errors import Code
from dlspec.language.expressions.expressions import CONSTANTS
from dlspec.language.expressions.formula_dims import check_dims, check_sizes, show_example
from dlspec.language.expressions.formula_functions import (
    DIMS,
    FUNCTIONS,
    MAY_BE_NUMBERS,
    OF_NUMBERS,
    OPERANDS,
    SEVERAL,
)
from dlspec.language.expressions.formula_tree import (
    LANGUAGE,
    argument_words,
    arguments,
    compute_constant,
    first_letters,
    function_name,
    is_constant,
    is_number,
    is_whole_number,
    refuse,
    refuse_function,
    show_usage,
    whole_numbers,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS

_OF_TENSORS = (ast.MatMult, ast.BitAnd, ast.BitOr)
_BINARY = (*ARITHMETIC, *_OF_TENSORS)
_COMPARE = tuple(COMPARISONS)
_INSTEAD: Mapping[type[ast.AST], str] = {
    ast.IfExp: "write where(condition, a, b)",
    ast.And: "write & with brackets: (a > 0) & (b > 0)",
    ast.Or: "write | with brackets: (a > 0) | (b > 0)",
    ast.Not: "write ~ with brackets: ~(a > 0)",
    ast.Is: "write ==",
    ast.IsNot: "write !=",
    ast.In: "write (a == 1) | (a == 2)",
    ast.NotIn: "write (a != 1) & (a != 2)",
    ast.BitXor: "write ** for a power, != between conditions",
    ast.List: "lists are arguments: cat([a, b], dim=1)",
    ast.Tuple: "lists are arguments: cat([a, b], dim=1)",
}


def check_operand(node: ast.expr) -> None:
    """What one tensor or number is computed by."""
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
            if function_name(node) in SEVERAL:
                refuse(node, "gives several", f"take one: {ast.unparse(node)}[0]")
        case ast.BoolOp(op=sign):
            refuse(node, fix=_INSTEAD[type(sign)])
        case ast.Attribute():
            _refuse_attribute(node)
        case ast.Constant(value=str()):
            refuse(node, fix="text is einsum's first argument, and nothing else")
        case _:
            refuse(node, fix=_INSTEAD.get(type(node), LANGUAGE))


def _check_unary(node: ast.UnaryOp) -> None:
    if not isinstance(node.op, ast.USub | ast.UAdd | ast.Invert):
        refuse(node, fix=_INSTEAD[type(node.op)])
    if isinstance(node.op, ast.Invert) and is_number(node.operand):
        refuse(node, "is of a number", "~ turns a condition round: ~(a > 0)")
    check_operand(node.operand)


def _check_binary(node: ast.BinOp) -> None:
    if not isinstance(node.op, _BINARY):
        refuse(node, fix=_INSTEAD.get(type(node.op), LANGUAGE))
    check_operand(node.left)
    check_operand(node.right)
    if isinstance(node.op, _OF_TENSORS) and (is_number(node.left) or is_number(node.right)):
        fix = "write *" if isinstance(node.op, ast.MatMult) else "put brackets round each condition: (a > 0) & (b > 0)"
        refuse(node, "has a number on one side", fix)
    if is_number(node) and not any(isinstance(each, ast.Call) for each in ast.walk(node)):
        compute_constant(node)  # refuses powers and results without end


def _check_compare(node: ast.Compare) -> None:
    if len(node.ops) > 1:
        refuse(node, "compares more than two", "put brackets round each: (a < b) & (b < c)")
    if not isinstance(node.ops[0], _COMPARE):
        refuse(node, fix=_INSTEAD[type(node.ops[0])])
    for side in (node.left, node.comparators[0]):
        check_operand(side)
    if is_number(node.left) and is_number(node.comparators[0]):
        refuse(node, "compares two numbers", "name an output on one side")


def _refuse_attribute(node: ast.Attribute) -> NoReturn:
    if node.attr in ("shape", "size", "ndim", "T", "mT", "dtype", "device"):
        fix = "write transpose(x, 1, 2)" if "T" in node.attr else "write the size itself, or a param"
    elif node.attr.startswith("_") or not isinstance(node.value, ast.Name):
        fix = LANGUAGE
    else:
        fix = f"give it a name of its own before: Identity: {{from: {ast.unparse(node)}, name: {node.attr}}}"
    refuse(node, fix=fix)


# ---- indices: never of the batch -----------------------------------------------------------------------------------


def _check_subscript(value: ast.expr, index: ast.expr) -> None:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    for item in items:
        _check_item(item)
    if _is_several(value):
        _check_several(value)
        if len(items) != 1 or not (whole_numbers(items[0]) or isinstance(items[0], ast.Slice)):
            refuse(index, "picks none of several", "write a whole number")
        return
    check_operand(value)
    if is_number(value):
        refuse(value, "is a number, and has no items", "name an output")
    if not (items and _keeps_batch(items[0])):
        inner = ast.unparse(ast.Tuple(items, ast.Load())).strip("(),") if items else ""
        fix = f"write {ast.unparse(value)}[:, {inner or '0'}]: the first dimension is the batch"
        refuse(ast.Subscript(value, index, ast.Load()), "takes samples out of the batch", fix, code=Code.SAMPLES_MIXED)


def _keeps_batch(item: ast.expr) -> bool:
    match item:
        case ast.Slice(lower=None, upper=None, step=None):
            return True
        case ast.Constant(value=value):
            return value is Ellipsis
    return False


def _check_item(item: ast.expr) -> None:
    if isinstance(item, ast.Constant) and (item.value is None or item.value is Ellipsis):
        return
    if isinstance(item, ast.Name) and item.id in CONSTANTS and CONSTANTS[item.id] is None:
        return
    if isinstance(item, ast.Slice):
        ends = [each for each in (item.lower, item.upper, item.step) if each is not None]
        if not all(is_whole_number(each) for each in ends):
            refuse(item, "is no slice", "its ends are whole numbers")
        if item.step is not None and whole_numbers(item.step)[0] < 1:
            refuse(item, "goes backwards", "write flip(x, dims=1)")
    elif not is_whole_number(item):
        refuse(item, "is no index", "write whole numbers, slices, ... or None; by a condition where(...) picks")


def _is_several(node: ast.expr) -> bool:
    """Whether it is what `chunk` gives, or a slice of that."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and _is_several(node.value)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SEVERAL


def _check_several(node: ast.expr) -> None:
    match node:
        case ast.Call():
            _check_call(node)
        case ast.Subscript(value=value, slice=index):
            _check_subscript(value, index)
        case ast.List(elts=items) | ast.Tuple(elts=items) if items:
            for item in items:
                check_operand(item)
                if is_number(item):
                    refuse(item, "is a number among tensors", "fill a tensor with it: 1 + zeros_like(x)")
        case _:
            refuse(node, "is no list", "write a list of outputs: [a, b]")


# ---- calls ---------------------------------------------------------------------------------------------------------


def _check_call(call: ast.Call) -> None:
    if function_name(call) not in FUNCTIONS:
        refuse_function(call.func)
    if function_name(call) == "einsum":
        return _check_einsum(call)
    given = arguments(call)
    for word in argument_words(call):
        if not word.endswith("?") and word != "*" and word not in given:
            refuse(
                call,
                f"has no '{word}'",
                show_example(call, given) if word in DIMS else show_usage(call),
                code=Code.MISSING_VALUE,
            )
    for word, each in given.items():
        _check_argument(call, given, word, each)
    check_dims(call, given)
    return check_sizes(call, given)


def _check_argument(call: ast.Call, given: Mapping[str, ast.expr], word: str, each: ast.expr) -> None:
    if word == "tensors":
        return _check_several(each)
    if word in OPERANDS:
        return _check_tensor(call, given, word, each)
    if word in DIMS and not whole_numbers(each):
        refuse(call, f"has no number as '{word}'", show_example(call, given))
    if not is_constant(each):
        refuse(call, f"has no number as '{word}'", "write a number there")
    compute_constant(each)  # refuses lists and powers without end
    return None


def _check_tensor(call: ast.Call, given: Mapping[str, ast.expr], word: str, each: ast.expr) -> None:
    """Maths of a number is a number; elsewhere PyTorch wants tensors, with two exceptions."""
    check_operand(each)
    name = function_name(call)
    if not is_number(each) or name in OF_NUMBERS:
        return
    if (name, word) not in MAY_BE_NUMBERS:
        fixes = {"maximum": "write clamp(x, min=0)", "minimum": "write clamp(x, max=0)"}
        refuse(call, f"has a number as '{word}'", fixes.get(name, "name an output there"))
    if name == "pow" and all(is_number(side) for side in given.values()):
        refuse(call, "is of numbers alone", "write a ** b")


# ---- einsum --------------------------------------------------------------------------------------------------------


def _check_einsum(call: ast.Call) -> None:
    letters, output = first_letters(call)
    operands = call.args[1:]
    if call.keywords or len(operands) != len(letters):
        refuse(
            call,
            f"has {len(operands)} operands for {len(letters)} in its equation",
            "name one output for each",
            code=Code.INPUT_COUNT,
        )
    for operand in operands:
        check_operand(operand)
        if is_number(operand):
            refuse(call, "has a number as operand", "name an output there")
    if not output or output not in letters:
        fix = "let the output begin with the batch's letter: einsum('nij,njk->nik', a, b)"
        refuse(call, "loses the batch", fix, code=Code.SAMPLES_MIXED)
