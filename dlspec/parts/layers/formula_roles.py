"""Follow the roles of dimensions through a `Formula`: `permute`, `transpose`, `flatten` and others move them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from dlspec.language.expressions.formula_tree import get_function_name, match_arguments, read_whole_numbers
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.dimensions import layout_after_selection, roles_after_reshape

Roles = tuple[str, ...]

_RESHAPING = ("flatten", "unflatten", "reshape")
_UNKNOWN = ("einsum", "stack", "unbind")
MOVING_ROLES = frozenset({"permute", "transpose", "einsum", *_RESHAPING})
"""Functions after which a result of the same rank may have another layout than its input."""


@dataclass(frozen=True)
class RoledShape:
    """The shape of a value with a batch, and its dimensions' roles; both leave the batch out."""

    shape: tuple[int, ...]
    roles: Roles | None  # None where they are not known


def find_roles_after(node: ast.expr, inputs: Sequence[RoledShape], shape: tuple[int, ...]) -> Roles | None:
    """Find the roles of an operation's result.

    Args:
        node: The operation.
        inputs: Its operands that have a batch.
        shape: The shape of its result, without the batch.

    Returns:
        One letter per dimension, or None where they are not known.
    """
    first = next((each for each in inputs if each.roles is not None), None)
    if first is None or first.roles is None:
        return None
    name = get_function_name(node) if isinstance(node, ast.Call) else ""
    if isinstance(node, ast.Call) and name in ("permute", "transpose"):
        return _move_roles(node, first.roles)
    if name in _RESHAPING:
        value = TensorInfo(first.shape, layout_after_selection(first.roles), explicit_roles=first.roles)
        return roles_after_reshape(value, shape)
    if name == "matmul" or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)):
        return _multiply_roles(inputs, len(shape))
    if name in _UNKNOWN or isinstance(node, ast.Subscript):
        is_slice = isinstance(node, ast.Subscript) and _only_slices(node.slice)
        return first.roles if is_slice else None
    likes = (each.roles for each in inputs if each.roles is not None and len(each.shape) == len(shape))
    return next(likes, None)


def _move_roles(call: ast.Call, roles: Roles) -> Roles:
    before, arguments = ("N", *roles), match_arguments(call)
    rank = len(before)
    if get_function_name(call) == "permute":
        return tuple(before[dim % rank] for dim in read_whole_numbers(arguments["dims"])[1:])
    one, other = (read_whole_numbers(arguments[each])[0] % rank for each in ("dim0", "dim1"))
    moved = list(before)
    moved[one], moved[other] = moved[other], moved[one]
    return tuple(moved[1:])


def _multiply_roles(inputs: Sequence[RoledShape], rank: int) -> Roles | None:
    """A product of matrices has the rows of the left one and the columns of the right one, which may be a Parameter."""
    left, right = inputs[0], inputs[-1]
    if left.roles is None or len(left.roles) != rank:
        return None
    if len(inputs) == 1:
        return (*left.roles[:-1], "C")
    return None if right.roles is None or len(right.roles) != rank else (*left.roles[:-1], right.roles[-1])


def _only_slices(index: ast.expr) -> bool:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    return all(
        isinstance(each, ast.Slice) or (isinstance(each, ast.Constant) and each.value is Ellipsis) for each in items
    )
