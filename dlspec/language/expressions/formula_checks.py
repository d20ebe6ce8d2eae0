"""What may stand where in a `Formula`: operands, indices that leave the batch alone, calls and their arguments."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import NoReturn

from dlspec.errors import Code, shown, suggest
from dlspec.language.expressions.expressions import CONSTANTS
from dlspec.language.expressions.formula_functions import (
    DIMS,
    FROM_BATCH,
    FUNCTIONS,
    MAY_BE_NUMBERS,
    MODULES,
    OF_NUMBERS,
    OPERANDS,
    OTHER_WORDS,
    SEVERAL,
    SIZES,
)
from dlspec.language.expressions.formula_tree import (
    LANGUAGE,
    argument_names,
    argument_words,
    arguments,
    compute_constant,
    first_letters,
    function_name,
    is_constant,
    is_number,
    is_whole_number,
    refuse,
    show_node,
    show_usage,
    whole_numbers,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, ExpressionError
from dlspec.limits import how_to_raise, limit

_SAMPLES = "the batch is dim 0, and samples must not mix"

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
        _refuse_function(call.func)
    if function_name(call) == "einsum":
        return _check_einsum(call)
    given = arguments(call)
    for word in argument_words(call):
        if not word.endswith("?") and word != "*" and word not in given:
            refuse(
                call,
                f"has no '{word}'",
                _example(call, given) if word in DIMS else show_usage(call),
                code=Code.MISSING_VALUE,
            )
    for word, each in given.items():
        _check_argument(call, given, word, each)
    _check_dims(call, given)
    return _check_sizes(call, given)


def _refuse_function(function: ast.expr) -> NoReturn:
    match function:
        case ast.Name(id=name):
            raise ExpressionError(
                Code.UNKNOWN_FUNCTION, f"no function {shown(name)}", OTHER_WORDS.get(name) or suggest(name, FUNCTIONS)
            )
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in MODULES:
            fix = f"write {name}(...)" if name in FUNCTIONS else OTHER_WORDS.get(name) or suggest(name, FUNCTIONS)
        case ast.Attribute(value=value, attr=name):
            known = f"write {name}({ast.unparse(value)}, ...)"
            fix = known if name in FUNCTIONS else OTHER_WORDS.get(name) or suggest(name, FUNCTIONS)
        case _:
            fix = LANGUAGE
    raise ExpressionError(Code.UNKNOWN_FUNCTION, f"no function {show_node(function)}", fix)


def _check_argument(call: ast.Call, given: Mapping[str, ast.expr], word: str, each: ast.expr) -> None:
    if word == "tensors":
        return _check_several(each)
    if word in OPERANDS:
        return _check_tensor(call, given, word, each)
    if word in DIMS and not whole_numbers(each):
        refuse(call, f"has no number as '{word}'", _example(call, given))
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


def _example(call: ast.Call, given: Mapping[str, ast.expr]) -> str:
    """The call as it should be written, its dimensions those of a sample."""
    parts = []
    for word in argument_names(call):
        if word in DIMS and (word in given or f"{word}?" not in argument_words(call)):
            parts.append(f"{word}={DIMS[word]}")
        elif word in given:
            is_named = any("=" in part for part in parts)
            parts.append(f"{word}={ast.unparse(given[word])}" if is_named else ast.unparse(given[word]))
    return f"write {function_name(call)}({', '.join(parts)}): {_SAMPLES}"


def _check_dims(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
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
            refuse(call, "works on the batch", _example(call, given), code=Code.SAMPLES_MIXED)


def _check_sizes(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
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
