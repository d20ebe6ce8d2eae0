"""Walks a `Formula`'s tree over tensors, and tries it on made-up batches: what would mix samples is refused."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlspec.errors import Code, Finding, shown
from dlspec.language.expressions.expressions import CONSTANTS
from dlspec.language.expressions.formula_functions import DIMS, ELEMENTWISE, FUNCTIONS, KEEPDIM
from dlspec.language.expressions.formula_tree import (
    arguments,
    calls_in,
    first_letters,
    is_number,
    whole_numbers,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, SIGNS, Operators
from dlspec.layouts import Value, format_shape, guess_layout
from dlspec.parts.layers.dims import refused_dim
from dlspec.parts.layers.merging import misfit
from dlspec.parts.layers.rule import Inputs, main
from dlspec.text import first_line

# ---- walking the tree ----------------------------------------------------------------------------------------------


def _expand(input: Tensor, size: Sequence[int]) -> Tensor:
    return input.expand(*size)


def _function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(torch, name, None) or getattr(F, name)
    return found


def _of_number(function: Callable[..., Tensor], number: float, *others: Any, **named: Any) -> float:
    """`sqrt(2)`, which PyTorch has for tensors alone."""
    return float(function(torch.tensor(number, dtype=torch.float64, device="cpu"), *others, **named).item())


CALLED: Mapping[str, Callable[..., Any]] = {
    name: _expand if name == "expand" else _function(name) for name in sorted(FUNCTIONS)
}
"""The functions behind the names."""

_OPERATORS: Operators = {
    **ARITHMETIC,
    **COMPARISONS,
    **SIGNS,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Invert: operator.invert,
}


class Walk:
    """Computes a tree that `parse_formula` gave, of tensors or of a tracer's proxies."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.inputs = inputs

    def value(self, node: ast.expr | None) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return CONSTANTS[name] if name in CONSTANTS else self.inputs[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(self.value(lower), self.value(upper), self.value(step))
            case ast.UnaryOp(op=sign, operand=operand):
                return self.apply(node, _OPERATORS[type(sign)], [self.value(operand)])
            case ast.BinOp(op=sign, left=left, right=right):
                return self.apply(node, _OPERATORS[type(sign)], [self.value(left), self.value(right)])
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return self.apply(node, _OPERATORS[type(sign)], [self.value(left), self.value(right)])
            case ast.Subscript(value=value, slice=index):
                return self.apply(node, operator.getitem, [self.value(value), self.value(index)])
            case ast.Call(func=ast.Name(id=name)):
                return self.call(node, name)
        return None

    def call(self, node: ast.Call, name: str) -> Any:
        given = [self.value(each) for each in node.args]
        named = {each.arg: self.value(each.value) for each in node.keywords if each.arg}
        if name in ("eye", "arange"):
            named["device"] = next(iter(self.inputs.values())).device
        function = partial(_of_number, CALLED[name]) if is_number(node) else CALLED[name]
        return self.apply(node, function, given, named)

    def apply(
        self, node: ast.expr, function: Callable[..., Any], given: list[Any], named: Mapping[str, Any] | None = None
    ) -> Any:
        return function(*given, **(named or {}))


# ---- trying it out -------------------------------------------------------------------------------------------------

_MANY_NUMBERS = 4_000_000  # in a sample; beyond, trying on 'meta' is worth the second or two that its first use takes
_ERRORS = (RuntimeError, IndexError, TypeError, ValueError, ArithmeticError)
_ONE_MORE = {"stack", "unsqueeze"}  # their `dim` counts the output's dimensions
_BATCH = "the first dimension is the batch, and samples must not mix"


class _Refused(Exception):
    """Carries a `Finding` out of the walk."""

    def __init__(self, code: Code, node: ast.expr, why: str, fix: str) -> None:
        super().__init__(why)
        self.finding = Finding(code, f"{shown(ast.unparse(node))} {why}", fix)


@dataclass(frozen=True)
class _Twins:
    """One value for batches of 2 and of 3: the sizes in which they differ are the batch's."""

    two: Tensor
    three: Tensor

    @property
    def has_batch(self) -> bool:
        return self.two.shape != self.three.shape

    @property
    def device(self) -> torch.device:
        return self.two.device

    @property
    def rank(self) -> int:
        return self.two.dim()

    @property
    def is_mixed(self) -> bool:
        """Whether the batch stands elsewhere than first, or is no longer a row for each row."""
        return self.has_batch and (
            (*self.two.shape[:1], *self.three.shape[:1]) != (2, 3) or self.two.shape[1:] != self.three.shape[1:]
        )


class _Trial(Walk):
    """Walks with made-up batches, and refuses what PyTorch would compute of several samples at once."""

    def __init__(self, inputs: Mapping[str, Any], main: Value) -> None:
        super().__init__(inputs)
        self.main = main

    def apply(
        self, node: ast.expr, function: Callable[..., Any], given: list[Any], named: Mapping[str, Any] | None = None
    ) -> Any:
        self._check(node, given)
        function = torch.zeros_like if function in (torch.rand_like, torch.randn_like) else function
        try:
            two, three = (function(*(_of(each, at) for each in given), **(named or {})) for at in ("two", "three"))
        except _ERRORS as error:
            says = first_line(error, 200)
            raise _Refused(
                Code.LAYER_REFUSED, node, f"can't be computed of {self._shown(given)}", f"PyTorch says: {says}"
            ) from None
        found = _twins(two, three)
        has_batch = any(each.has_batch for each in _all_twins(given))
        if any(each.is_mixed or each.has_batch != has_batch for each in _all_twins(found)):
            raise _Refused(Code.SAMPLES_MIXED, node, f"mixes the samples of {self._shown(given)}", _BATCH)
        return found

    def as_value(self, twins: _Twins) -> Value:
        shape = tuple(twins.two.shape[1:] if twins.has_batch else twins.two.shape)
        layout = self.main.layout if len(shape) == len(self.main.shape) else guess_layout(shape)
        return Value(shape, layout, has_batch=twins.has_batch)

    def _shown(self, given: list[Any]) -> str:
        values = [self.as_value(each) for each in _all_twins(given)]
        return " and ".join(format_shape(each.shape) for each in values) or "numbers"

    def _check(self, node: ast.expr, given: list[Any]) -> None:
        twins = _all_twins(given)
        match node:
            case ast.BinOp(op=ast.MatMult()) | ast.Call(func=ast.Name(id="matmul")):
                self._check_matmul(node, *twins)
            case ast.Call(func=ast.Name(id="einsum")):
                self._check_einsum(node, twins)
            case ast.Call(func=ast.Name(id=name)) if name not in ELEMENTWISE:
                self._check_dims(node, name, twins)
            case ast.Subscript() if twins and isinstance(given[0], _Twins):
                self._check_index(node, given[1], twins[0])
            case ast.BinOp() | ast.Compare() | ast.Call() if twins:
                self._check_fit(node, [self.as_value(each) for each in twins])

    def _check_fit(self, node: ast.expr, values: Sequence[Value]) -> None:
        first = main(values)
        takes_away = any(name in KEEPDIM for name, _ in calls_in(node))
        for each in values:
            wrong = misfit(first, each)
            if wrong is None:
                continue
            has_ranks = len({len(value.shape) for value in values}) > 1
            fix = "write keepdim=True: both need as many dimensions" if takes_away and has_ranks else wrong.fix
            raise _Refused(
                wrong.code,
                node,
                f"has {format_shape(first.shape)} and {format_shape(each.shape)}, which don't fit",
                fix,
            )

    def _check_matmul(self, node: ast.expr, left: _Twins, right: _Twins) -> None:
        """Rows and columns are of one sample: the batch is neither, and stands at the same place on both sides."""
        if left.has_batch and right.has_batch:
            fits = left.rank == right.rank >= 3
        elif left.has_batch:
            fits = left.rank >= 2 and right.rank < max(left.rank, 3)
        else:
            fits = not right.has_batch or (right.rank >= 3 and left.rank < right.rank)
        if not fits:
            raise _Refused(
                Code.SAMPLES_MIXED,
                node,
                f"mixes the samples of {self._shown([left, right])}",
                "write sum(a * b, dim=-1)",
            )

    def _check_einsum(self, node: ast.Call, twins: Sequence[_Twins]) -> None:
        letters, output = first_letters(node)
        if any(each.has_batch and letter != output for each, letter in zip(twins, letters, strict=True)):
            raise _Refused(
                Code.SAMPLES_MIXED, node, "mixes samples", f"begin each operand with the batch's letter, {output}"
            )

    def _check_dims(self, node: ast.Call, name: str, twins: Sequence[_Twins]) -> None:
        if not twins or not twins[0].has_batch:
            return
        if name in ("tril", "triu") and twins[0].rank < 3:
            raise _Refused(Code.SAMPLES_MIXED, node, "works on the batch", "it wants matrices, (N, R, C)")
        value = self.as_value(twins[0])
        given = {} if name in (*_ONE_MORE, "permute") else arguments(node)
        for word in given.keys() & DIMS.keys():
            for wrong in filter(None, (refused_dim(dim, value, word) for dim in whole_numbers(given[word]))):
                raise _Refused(wrong.code, node, f"is wrong: {wrong.found}", wrong.fix)

    def _check_index(self, node: ast.expr, index: Any, twins: _Twins) -> None:
        items = index if isinstance(index, tuple) else (index,)
        taken = [item for item in items if item is not None and item is not Ellipsis]
        if Ellipsis in items and twins.has_batch and items[0] is Ellipsis and len(taken) >= twins.rank:
            raise _Refused(Code.SAMPLES_MIXED, node, "takes samples out of the batch", _BATCH)


def _of(value: Any, at: str) -> Any:
    """The value with one of each pair of twins in it."""
    if isinstance(value, tuple):
        return tuple(_of(each, at) for each in value)
    return getattr(value, at) if isinstance(value, _Twins) else value


def _twins(two: Any, three: Any) -> Any:
    if isinstance(two, tuple | list):
        return tuple(_twins(*each) for each in zip(two, three, strict=True))
    return _Twins(two, three) if isinstance(two, Tensor) else two


def _all_twins(value: Any) -> list[_Twins]:
    if isinstance(value, tuple | list):
        return [twins for each in value for twins in _all_twins(each)]
    return [value] if isinstance(value, _Twins) else []


def _made_up(value: Value, device: str) -> _Twins:
    dtype = torch.long if value.layout == "tokens" or value.vocab_size is not None else torch.float32
    shapes = [(rows, *value.shape) if value.has_batch else value.shape for rows in (2, 3)]
    return _Twins(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))


def try_formula(tree: ast.expr, names: Sequence[str], inputs: Inputs) -> Finding | None:
    """Why a formula can't be computed of these inputs, each by its name; None where it can."""
    numbers = sum(torch.Size(each.shape).numel() for each in inputs)
    device = "meta" if numbers > _MANY_NUMBERS else "cpu"
    made_up = {name: _made_up(each, device) for name, each in zip(names, inputs, strict=True)}
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            _Trial(made_up, main(inputs)).value(tree)
    except _Refused as refused:
        return refused.finding
    return None
