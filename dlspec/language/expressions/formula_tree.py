"""Inspect the syntax tree of a `Formula`: the outputs it uses, the functions it calls, and their arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from dlspec.errors import Code, format_value, suggest
from dlspec.language.expressions.evaluation import evaluate_expression
from dlspec.language.expressions.expression_parsing import CONSTANTS
from dlspec.language.expressions.formula_alternatives import suggest_function
from dlspec.language.expressions.formula_functions import (
    ELEMENTWISE_FUNCTIONS,
    FORMULA_FUNCTIONS,
    FUNCTION_ARGUMENTS,
    IS_STEP,
    MODULE_NAMES,
    MOVING_FUNCTIONS,
    MULTI_OUTPUT_FUNCTIONS,
    NUMBER_FUNCTIONS,
    TENSOR_ARGUMENTS,
)
from dlspec.language.expressions.grammar import ExpressionError

FORMULA_LANGUAGE = (
    "a Formula can contain names of outputs, numbers, + - * / // % ** @, comparisons, & | ~, slices like x[:, 1:], "
    "and functions like exp(x)"
)


def format_node(node: ast.AST, text: str = "") -> str:
    """Format a node as source code in quotes. `text` is ignored; `Grammar.format_node` is called with it."""
    return format_value(ast.unparse(node))


def reject_node(
    node: ast.AST,
    reason: str = "is not allowed",
    fix: str = FORMULA_LANGUAGE,
    code: Code = Code.FORMULA_REFUSED,
) -> NoReturn:
    """Raise `ExpressionError` for a node that is not allowed.

    Args:
        node: The node, with which the message starts.
        reason: Rest of the message.
        fix: What the user can write instead.
        code: Kind of problem.
    """
    raise ExpressionError(code, f"{format_node(node)} {reason}", fix)


def reject_function(function: ast.expr, arguments: Sequence[ast.expr] = ()) -> NoReturn:
    """Raise `ExpressionError` for an unknown function of these arguments, and suggest what does the same."""
    first = ast.unparse(arguments[0]) if arguments else "x"
    match function:
        case ast.Name(id=name):
            raise ExpressionError(
                Code.UNKNOWN_FUNCTION,
                f"unknown function {format_value(name)}",
                suggest_function(name, first),
            )
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in MODULE_NAMES:
            fix = f"write {name}(...)" if name in FORMULA_FUNCTIONS else suggest_function(name, first)
        case ast.Attribute(value=value, attr=name):
            known = f"write {name}({ast.unparse(value)}, ...)"
            fix = known if name in FORMULA_FUNCTIONS else suggest_function(name, ast.unparse(value))
        case _:
            fix = FORMULA_LANGUAGE
    raise ExpressionError(Code.UNKNOWN_FUNCTION, f"unknown function {format_node(function)}", fix)


# ---- outputs and numbers ---------------------------------------------------------------------------------------------


def find_calls(tree: ast.expr) -> Iterator[tuple[str, ast.Call]]:
    """Find all calls of functions by name. Yields the function's name and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def find_output_names(tree: ast.expr) -> tuple[str, ...]:
    """Find the outputs that a formula uses, including `_`, in the order in which they first occur."""
    called = {id(call.func) for _, call in find_calls(tree)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    names.sort(key=lambda name: name.col_offset)
    return tuple(dict.fromkeys(name.id for name in names if name.id not in CONSTANTS))


def find_step_name(call: ast.Call) -> str:
    """Return the name in `is_step(NAME)`; '' if its argument is not a name."""
    return call.args[0].id if call.args and isinstance(call.args[0], ast.Name) else ""


def find_step_names(tree: ast.expr) -> tuple[str, ...]:
    """Find the outputs whose real steps a formula asks for by `is_step`, each once."""
    return tuple(dict.fromkeys(find_step_name(call) for name, call in find_calls(tree) if name == IS_STEP))


def is_elementwise(tree: ast.expr) -> bool:
    """Whether each element of the result depends only on elements at the same index, so that padding has no effect."""
    nodes = list(ast.walk(tree))
    return all(name in ELEMENTWISE_FUNCTIONS for name, _ in find_calls(tree)) and not any(
        isinstance(node, ast.MatMult | ast.Subscript) for node in nodes
    )


def only_moves_values(tree: ast.expr) -> bool:
    """Whether a formula only moves values to other positions, so that token ids remain valid token ids."""
    computed = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare)]
    indices = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    if any(find_output_names(each) for each in indices):
        return False  # values of a table
    return all(name in MOVING_FUNCTIONS for name, _ in find_calls(tree)) and all(is_number(node) for node in computed)


def is_number(node: ast.expr) -> bool:
    """Whether a node is computed from numbers only, not from outputs."""
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
            return name in NUMBER_FUNCTIONS and all(is_number(each) for each in arguments)
    return False


def match_arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Map a call's arguments to PyTorch's argument names; raise `ExpressionError` for unknown or extra ones."""
    name, words = get_function_name(call), list_argument_words(call)
    positional = list(takewhile("*".__ne__, words))
    if len(call.args) > len(positional):
        raise ExpressionError(
            Code.INPUT_COUNT, f"{format_node(call)} has {len(call.args)} positional arguments", format_usage(call)
        )
    given = {argument.rstrip("?"): each for argument, each in zip(positional, call.args, strict=False)}
    for keyword in call.keywords:
        argument = keyword.arg or "**"
        allowed = [each for each in list_argument_names(call) if each not in TENSOR_ARGUMENTS]
        if argument not in allowed:
            fix = (
                suggest(argument, allowed)
                if argument not in TENSOR_ARGUMENTS
                else "pass outputs first, without a keyword"
            )
            raise ExpressionError(Code.UNKNOWN_KEY, f"{name} has no argument '{argument}'", fix or format_usage(call))
        if argument in given:
            reject_node(call, f"passes '{argument}' twice", format_usage(call), code=Code.DUPLICATE_KEY)
        given[argument] = keyword.value
    return given


def read_whole_numbers(node: ast.expr) -> list[int]:
    """Return the integers that a node consists of: one integer or a list of them; [] for anything else."""
    found = compute_constant(node) if is_constant(node) else None
    listed: list[Any] = found if isinstance(found, list) else [found]
    return listed if all(type(each) is int for each in listed) else []


_CONSTANT_NODES = (ast.List, ast.Tuple, ast.BinOp, ast.UnaryOp, ast.operator, ast.USub, ast.UAdd, ast.expr_context)


def is_constant(node: ast.expr) -> bool:
    """Whether a node consists only of numbers, lists and arithmetic."""
    return all(
        isinstance(each, _CONSTANT_NODES)
        or (isinstance(each, ast.Constant) and isinstance(each.value, int | float | None))
        or (isinstance(each, ast.Name) and each.id in CONSTANTS)
        for each in ast.walk(node)
    )


def compute_constant(node: ast.expr) -> Any:
    """Compute the value of a node for which `is_constant` is true; raise `ExpressionError` beyond the limits."""
    return evaluate_expression(ast.unparse(node), {})


def is_whole_number(node: ast.expr) -> bool:
    """Whether a node is a single integer."""
    return not isinstance(node, ast.List | ast.Tuple | ast.Slice) and bool(read_whole_numbers(node))


def has_multiple_outputs(node: ast.expr) -> bool:
    """Whether a node is a call that returns a list of tensors, such as `chunk`, or a slice of that list."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and has_multiple_outputs(node.value)
    return isinstance(node, ast.Call) and get_function_name(node) in MULTI_OUTPUT_FUNCTIONS


# ---- calls ---------------------------------------------------------------------------------------------------------


def get_function_name(call: ast.Call) -> str:
    """Return the name of the called function; '' if it is not a name."""
    return call.func.id if isinstance(call.func, ast.Name) else ""


def list_argument_words(call: ast.Call) -> list[str]:
    """List the arguments of the called function with the marks `?` and `*`, see `NUMBER_FUNCTIONS`."""
    return FUNCTION_ARGUMENTS[get_function_name(call)].split()


def list_argument_names(call: ast.Call) -> list[str]:
    """List the argument names of the called function."""
    return [word.rstrip("?") for word in list_argument_words(call) if word != "*"]


def format_usage(call: ast.Call) -> str:
    """Format a fix that shows the called function with all its arguments."""
    return f"write {get_function_name(call)}({', '.join(list_argument_names(call))})"


_EQUATION = re.compile(r"[A-Za-z.,]+->[A-Za-z.]*")
_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def parse_einsum_letters(call: ast.Call) -> tuple[list[str], str]:
    """Return the first letter, or `...`, of each operand of an einsum, and that of its output."""
    equation = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    operands, _, output = text.partition("->")
    terms = [*operands.split(","), output]
    if not _EQUATION.fullmatch(text) or not all(_TERM.fullmatch(term) for term in terms):
        fix = "write the equation first, with its output: einsum('nij,njk->nik', a, b)"
        reject_node(call, "has no valid equation", fix, code=Code.MISSING_VALUE)
    letters = [term[:3] if term.startswith("...") else term[:1] for term in terms]
    return letters[:-1], letters[-1]
