"""What `Formula: mu + exp(logvar / 2)` may say: parsed and checked here, computed in `parts/layers/formula_layer.py`.

Nothing is evaluated as text. Only the functions and operations listed here exist; the batch, dimension 0, can't be
reached by an index, a `dim` or a size; and what could grow without end has a limit.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any, NoReturn

from dlspec.errors import Code, shown, suggest
from dlspec.language.expressions.expressions import CONSTANTS, MAX_NUMBER, evaluate
from dlspec.language.expressions.formula_functions import (
    ARGUMENTS,
    DIMS,
    ELEMENTWISE,
    FROM_BATCH,
    FUNCTIONS,
    MAY_BE_NUMBERS,
    MODULES,
    MOVING,
    OF_NUMBERS,
    OPERANDS,
    OTHER_WORDS,
    SEVERAL,
    SIZES,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, ExpressionError, Grammar, check_length
from dlspec.limits import how_to_raise, limit

LANGUAGE = (
    "a Formula has outputs by name, numbers, + - * / // % ** @, comparisons, & | ~, slices like x[:, 1:], "
    "and functions like exp(x)"
)
_SAMPLES = "the batch is dim 0, and samples must not mix"

# ---- the text ------------------------------------------------------------------------------------------------------


def parse_formula(text: str) -> ast.expr:
    """The formula's tree, every part of it allowed; raises `ExpressionError` for what the language does not have."""
    check_length(text)
    return _parsed(text, limit("formula_depth"), limit("formula_size"))


@lru_cache(maxsize=1_000)  # a layer asks for its tree several times; the limits are part of the key
def _parsed(text: str, max_depth: int, max_size: int) -> ast.expr:
    for sign, fix in (("$", "write the name of one of the params"), ("#", "comments stand outside of a formula")):
        if sign in text:
            raise ExpressionError(Code.FORMULA_SYNTAX, f"'{sign}' can't stand in {shown(text)}", fix)
    tree = _GRAMMAR.parse(" ".join(text.split()), max_depth)
    _check_operand(tree)
    if not names_in(tree):
        raise ExpressionError(
            Code.FORMULA_REFUSED, f"{shown(text)} reads no output", "name one, or write _ for the one before"
        )
    return tree


def _written(node: ast.AST, text: str = "") -> str:
    return shown(ast.unparse(node))


_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Name, ast.Constant, ast.keyword)
_NODES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Subscript, ast.Slice)
_GRAMMAR = Grammar(
    nodes=(*_LEAVES, *_NODES, ast.Call, ast.Attribute),
    constants=(int, float, str, type(None), type(...)),
    language=LANGUAGE,
    show_node=_written,
    max_number=MAX_NUMBER,
)


# ---- what a tree tells ---------------------------------------------------------------------------------------------


def calls_in(tree: ast.expr) -> Iterator[tuple[str, ast.Call]]:
    """The functions that are called, each by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def names_in(tree: ast.expr) -> tuple[str, ...]:
    """The outputs that a formula reads, `_` among them, in the order in which they are first written."""
    called = {id(call.func) for _, call in calls_in(tree)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    names.sort(key=lambda name: name.col_offset)
    return tuple(dict.fromkeys(name.id for name in names if name.id not in CONSTANTS))


def is_elementwise(tree: ast.expr) -> bool:
    """Whether each number comes from the numbers at its own place alone, so that padding stays apart."""
    nodes = list(ast.walk(tree))
    return all(name in ELEMENTWISE for name, _ in calls_in(tree)) and not any(
        isinstance(node, ast.MatMult | ast.Subscript) for node in nodes
    )


def only_moves(tree: ast.expr) -> bool:
    """Whether the numbers that come out are those that come in, elsewhere: tokens stay tokens of their vocabulary."""
    computed = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare)]
    return all(name in MOVING for name, _ in calls_in(tree)) and all(is_number(node) for node in computed)


def is_number(node: ast.expr) -> bool:
    """Whether no output takes part in it."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in CONSTANTS
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return name in OF_NUMBERS and all(is_number(each) for each in arguments)
    return False


def arguments(call: ast.Call) -> dict[str, ast.expr]:
    """A call's arguments by PyTorch's names; raises `ExpressionError` for those that the function does not have."""
    name, words = _name(call), _words(call)
    by_order = list(takewhile("*".__ne__, words))
    if len(call.args) > len(by_order):
        raise ExpressionError(
            Code.INPUT_COUNT, f"{_written(call)} has {len(call.args)} arguments in a row", _usage(call)
        )
    given = {word.rstrip("?"): each for word, each in zip(by_order, call.args, strict=False)}
    for keyword in call.keywords:
        word = keyword.arg or "**"
        allowed = [each for each in _allowed(call) if each not in OPERANDS]
        if word not in allowed:
            fix = suggest(word, allowed) if word not in OPERANDS else "outputs stand first, without a name"
            raise ExpressionError(Code.UNKNOWN_KEY, f"{name} has no argument '{word}'", fix or _usage(call))
        given[word] = (
            keyword.value
            if word not in given
            else _refuse(call, f"gives '{word}' twice", _usage(call), code=Code.DUPLICATE_KEY)
        )
    return given


def whole_numbers(node: ast.expr) -> list[int]:
    """The number or list of numbers that is written there; [] where it is anything else."""
    found = _constant(node) if _is_constant(node) else None
    listed: list[Any] = found if isinstance(found, list) else [found]
    return listed if all(type(each) is int for each in listed) else []


_ARITHMETIC = (ast.List, ast.Tuple, ast.BinOp, ast.UnaryOp, ast.operator, ast.USub, ast.UAdd, ast.expr_context)


def _is_constant(node: ast.expr) -> bool:
    """Whether only numbers, lists and arithmetic stand there."""
    return all(
        isinstance(each, _ARITHMETIC)
        or (isinstance(each, ast.Constant) and isinstance(each.value, int | float | None))
        or (isinstance(each, ast.Name) and each.id in CONSTANTS)
        for each in ast.walk(node)
    )


def _constant(node: ast.expr) -> Any:
    return evaluate(ast.unparse(node), {})


# ---- what may stand where ------------------------------------------------------------------------------------------

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


def _refuse(
    node: ast.AST, why: str = "can't stand in a formula", fix: str = LANGUAGE, code: Code = Code.FORMULA_REFUSED
) -> NoReturn:
    raise ExpressionError(code, f"{_written(node)} {why}", fix)


def _check_operand(node: ast.expr) -> None:
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
            if _name(node) in SEVERAL:
                _refuse(node, "gives several", f"take one: {ast.unparse(node)}[0]")
        case ast.BoolOp(op=sign):
            _refuse(node, fix=_INSTEAD[type(sign)])
        case ast.Attribute():
            _refuse_attribute(node)
        case ast.Constant(value=str()):
            _refuse(node, fix="text is einsum's first argument, and nothing else")
        case _:
            _refuse(node, fix=_INSTEAD.get(type(node), LANGUAGE))


def _check_unary(node: ast.UnaryOp) -> None:
    if not isinstance(node.op, ast.USub | ast.UAdd | ast.Invert):
        _refuse(node, fix=_INSTEAD[type(node.op)])
    if isinstance(node.op, ast.Invert) and is_number(node.operand):
        _refuse(node, "is of a number", "~ turns a condition round: ~(a > 0)")
    _check_operand(node.operand)


def _check_binary(node: ast.BinOp) -> None:
    if not isinstance(node.op, _BINARY):
        _refuse(node, fix=_INSTEAD.get(type(node.op), LANGUAGE))
    _check_operand(node.left)
    _check_operand(node.right)
    if isinstance(node.op, _OF_TENSORS) and (is_number(node.left) or is_number(node.right)):
        fix = "write *" if isinstance(node.op, ast.MatMult) else "put brackets round each condition: (a > 0) & (b > 0)"
        _refuse(node, "has a number on one side", fix)
    if is_number(node) and not any(isinstance(each, ast.Call) for each in ast.walk(node)):
        _constant(node)  # refuses powers and results without end


def _check_compare(node: ast.Compare) -> None:
    if len(node.ops) > 1:
        _refuse(node, "compares more than two", "put brackets round each: (a < b) & (b < c)")
    if not isinstance(node.ops[0], _COMPARE):
        _refuse(node, fix=_INSTEAD[type(node.ops[0])])
    for side in (node.left, node.comparators[0]):
        _check_operand(side)
    if is_number(node.left) and is_number(node.comparators[0]):
        _refuse(node, "compares two numbers", "name an output on one side")


def _refuse_attribute(node: ast.Attribute) -> NoReturn:
    if node.attr in ("shape", "size", "ndim", "T", "mT", "dtype", "device"):
        fix = "write transpose(x, 1, 2)" if "T" in node.attr else "write the size itself, or a param"
    elif node.attr.startswith("_") or not isinstance(node.value, ast.Name):
        fix = LANGUAGE
    else:
        fix = f"give it a name of its own before: Identity: {{from: {ast.unparse(node)}, name: {node.attr}}}"
    _refuse(node, fix=fix)


# ---- indices: never of the batch -----------------------------------------------------------------------------------


def _check_subscript(value: ast.expr, index: ast.expr) -> None:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    for item in items:
        _check_item(item)
    if _is_several(value):
        _check_several(value)
        if len(items) != 1 or not (whole_numbers(items[0]) or isinstance(items[0], ast.Slice)):
            _refuse(index, "picks none of several", "write a whole number")
        return
    _check_operand(value)
    if is_number(value):
        _refuse(value, "is a number, and has no items", "name an output")
    if not (items and _keeps_batch(items[0])):
        inner = ast.unparse(ast.Tuple(items, ast.Load())).strip("(),") if items else ""
        fix = f"write {ast.unparse(value)}[:, {inner or '0'}]: the first dimension is the batch"
        _refuse(ast.Subscript(value, index, ast.Load()), "takes samples out of the batch", fix, code=Code.SAMPLES_MIXED)


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
        if not all(_is_whole(each) for each in ends):
            _refuse(item, "is no slice", "its ends are whole numbers")
        if item.step is not None and whole_numbers(item.step)[0] < 1:
            _refuse(item, "goes backwards", "write flip(x, dims=1)")
    elif not _is_whole(item):
        _refuse(item, "is no index", "write whole numbers, slices, ... or None; by a condition where(...) picks")


def _is_whole(node: ast.expr) -> bool:
    return not isinstance(node, ast.List | ast.Tuple | ast.Slice) and bool(whole_numbers(node))


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
                _check_operand(item)
                if is_number(item):
                    _refuse(item, "is a number among tensors", "fill a tensor with it: 1 + zeros_like(x)")
        case _:
            _refuse(node, "is no list", "write a list of outputs: [a, b]")


# ---- calls ---------------------------------------------------------------------------------------------------------


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _words(call: ast.Call) -> list[str]:
    return ARGUMENTS[_name(call)].split()


def _allowed(call: ast.Call) -> list[str]:
    return [word.rstrip("?") for word in _words(call) if word != "*"]


def _usage(call: ast.Call) -> str:
    return f"write {_name(call)}({', '.join(_allowed(call))})"


def _check_call(call: ast.Call) -> None:
    if _name(call) not in FUNCTIONS:
        _refuse_function(call.func)
    if _name(call) == "einsum":
        return _check_einsum(call)
    given = arguments(call)
    for word in _words(call):
        if not word.endswith("?") and word != "*" and word not in given:
            _refuse(
                call,
                f"has no '{word}'",
                _example(call, given) if word in DIMS else _usage(call),
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
    raise ExpressionError(Code.UNKNOWN_FUNCTION, f"no function {_written(function)}", fix)


def _check_argument(call: ast.Call, given: Mapping[str, ast.expr], word: str, each: ast.expr) -> None:
    if word == "tensors":
        return _check_several(each)
    if word in OPERANDS:
        return _check_tensor(call, given, word, each)
    if word in DIMS and not whole_numbers(each):
        _refuse(call, f"has no number as '{word}'", _example(call, given))
    if not _is_constant(each):
        _refuse(call, f"has no number as '{word}'", "write a number there")
    _constant(each)  # refuses lists and powers without end
    return None


def _check_tensor(call: ast.Call, given: Mapping[str, ast.expr], word: str, each: ast.expr) -> None:
    """Maths of a number is a number; elsewhere PyTorch wants tensors, with two exceptions."""
    _check_operand(each)
    name = _name(call)
    if not is_number(each) or name in OF_NUMBERS:
        return
    if (name, word) not in MAY_BE_NUMBERS:
        fixes = {"maximum": "write clamp(x, min=0)", "minimum": "write clamp(x, max=0)"}
        _refuse(call, f"has a number as '{word}'", fixes.get(name, "name an output there"))
    if name == "pow" and all(is_number(side) for side in given.values()):
        _refuse(call, "is of numbers alone", "write a ** b")


def _example(call: ast.Call, given: Mapping[str, ast.expr]) -> str:
    """The call as it should be written, its dimensions those of a sample."""
    parts = []
    for word in _allowed(call):
        if word in DIMS and (word in given or f"{word}?" not in _words(call)):
            parts.append(f"{word}={DIMS[word]}")
        elif word in given:
            is_named = any("=" in part for part in parts)
            parts.append(f"{word}={ast.unparse(given[word])}" if is_named else ast.unparse(given[word]))
    return f"write {_name(call)}({', '.join(parts)}): {_SAMPLES}"


def _check_dims(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    for word in DIMS.keys() & given.keys():
        dims = whole_numbers(given[word])
        if _name(call) == "permute":
            if dims[0] != 0 or 0 in dims[1:]:
                _refuse(
                    call,
                    "moves the batch",
                    "let 0, the batch, stand first: permute(x, (0, 2, 1))",
                    code=Code.SAMPLES_MIXED,
                )
        elif 0 in dims:
            _refuse(call, "works on the batch", _example(call, given), code=Code.SAMPLES_MIXED)


def _check_sizes(call: ast.Call, given: Mapping[str, ast.expr]) -> None:
    total, most = 1, limit("formula_size") ** 2
    for word in sorted((SIZES | FROM_BATCH) & given.keys()):
        sizes = whole_numbers(given[word])
        if word in FROM_BATCH and sizes[:1] != [-1]:
            fix = f"begin with -1, the batch: {_name(call)}({ast.unparse(given['input'])}, (-1, ...))"
            _refuse(call, f"has no such '{word}'", fix, code=Code.SAMPLES_MIXED)
        if word not in FROM_BATCH and not (_is_whole(given[word]) and sizes[0] > 0):
            _refuse(call, f"has no size as '{word}'", "write a whole number from 1")
        total *= math.prod(max(abs(size), 1) for size in sizes)
    if total > most:
        _refuse(
            call, f"makes {total:,} numbers; {most:,} are allowed", how_to_raise("formula_size"), code=Code.TOO_LARGE
        )


# ---- einsum --------------------------------------------------------------------------------------------------------

_EQUATION = re.compile(r"[A-Za-z.,]+->[A-Za-z.]*")
_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def first_letters(call: ast.Call) -> tuple[list[str], str]:
    """The first letter, or `...`, of each of an einsum's operands, and of its output."""
    equation = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    operands, _, output = text.partition("->")
    terms = [*operands.split(","), output]
    if not _EQUATION.fullmatch(text) or not all(_TERM.fullmatch(term) for term in terms):
        fix = "its text comes first, with the output: einsum('nij,njk->nik', a, b)"
        _refuse(call, "has no equation", fix, code=Code.MISSING_VALUE)
    letters = [term[:3] if term.startswith("...") else term[:1] for term in terms]
    return letters[:-1], letters[-1]


def _check_einsum(call: ast.Call) -> None:
    letters, output = first_letters(call)
    operands = call.args[1:]
    if call.keywords or len(operands) != len(letters):
        _refuse(
            call,
            f"has {len(operands)} operands for {len(letters)} in its equation",
            "name one output for each",
            code=Code.INPUT_COUNT,
        )
    for operand in operands:
        _check_operand(operand)
        if is_number(operand):
            _refuse(call, "has a number as operand", "name an output there")
    if not output or output not in letters:
        fix = "let the output begin with the batch's letter: einsum('nij,njk->nik', a, b)"
        _refuse(call, "loses the batch", fix, code=Code.SAMPLES_MIXED)
