"""Evaluate the syntax tree of a `Formula` on tensors, or on proxies of torch.fx."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlspec.language.expressions.expression_parsing import CONSTANTS
from dlspec.language.expressions.formula_functions import FORMULA_FUNCTIONS, IS_STEP
from dlspec.language.expressions.formula_tree import find_step_name, is_number
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, UNARY_SIGNS, Operators
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.padding import make_step_mask


def _expand(input: Tensor, size: Sequence[int]) -> Tensor:
    return input.expand(*size)


def _flip(input: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    return torch.flip(input, (dims,) if isinstance(dims, int) else dims)


def _find_function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = _OWN_CALLS.get(name) or getattr(torch, name, None) or getattr(F, name)
    return found


_OWN_CALLS: Mapping[str, Callable[..., Tensor]] = {"expand": _expand, "flip": _flip}


def _apply_to_number(function: Callable[..., Tensor], number: float, *others: Any, **keywords: Any) -> float:
    """Apply a PyTorch function to a number, as in `sqrt(2)`: PyTorch accepts only tensors."""
    return float(function(torch.tensor(number, dtype=torch.float64, device="cpu"), *others, **keywords).item())


TORCH_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    name: _find_function(name) for name in sorted(FORMULA_FUNCTIONS - {IS_STEP})
}
"""PyTorch's functions by their names in formulas."""

_OPERATORS: Operators = {
    **ARITHMETIC,
    **COMPARISONS,
    **UNARY_SIGNS,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Invert: operator.invert,
}


# An integer tensor to one of these powers stays an integer: larger powers of token ids may exceed 64 bits.
_INTEGER_EXPONENTS = (0, 1, 2, 3)


class FormulaEvaluator:
    """Evaluate the syntax tree of a formula on tensors, or on the proxies of torch.fx when the network is traced.

    Args:
        inputs: The inputs by name.
        infos: Their shapes and layouts, which `is_step` needs.
        lengths: The real steps of each sample, (N,), of the inputs that have padding.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        infos: Mapping[str, TensorInfo] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.inputs, self.infos, self.lengths = inputs, infos or {}, lengths or {}

    def evaluate(self, node: ast.expr | None) -> Any:
        """Evaluate a node of the syntax tree: a tensor, a number, or a tuple or slice as an argument."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return CONSTANTS[name] if name in CONSTANTS else self.inputs[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return tuple(self.evaluate(item) for item in items)
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(self.evaluate(lower), self.evaluate(upper), self.evaluate(step))
            case ast.UnaryOp(op=sign, operand=operand):
                return self.apply(node, _OPERATORS[type(sign)], [self.evaluate(operand)])
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self.apply(node, operator.pow, self._evaluate_power_operands(left, right))
            case ast.BinOp(op=sign, left=left, right=right):
                return self.apply(node, _OPERATORS[type(sign)], [self.evaluate(left), self.evaluate(right)])
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return self.apply(node, _OPERATORS[type(sign)], [self.evaluate(left), self.evaluate(right)])
            case ast.Subscript(value=value, slice=index):
                return self.apply(node, operator.getitem, [self.evaluate(value), self.evaluate(index)])
            case ast.Call(func=ast.Name(id=name)):
                return self.evaluate_call(node, name)
        return None

    def evaluate_call(self, node: ast.Call, name: str) -> Any:
        """Evaluate a function call. `eye` and `arange` create their result on the inputs' device if there are any."""
        if name == IS_STEP:
            return self.make_step_mask(find_step_name(node))
        arguments = (
            self._evaluate_power_operands(*node.args) if name == "pow" else [self.evaluate(each) for each in node.args]
        )
        keywords = {each.arg: self.evaluate(each.value) for each in node.keywords if each.arg}
        if name in ("eye", "arange") and self.inputs:
            keywords["device"] = next(iter(self.inputs.values())).device
        function = partial(_apply_to_number, TORCH_FUNCTIONS[name]) if is_number(node) else TORCH_FUNCTIONS[name]
        return self.apply(node, function, arguments, keywords)

    def make_step_mask(self, name: str) -> Any:
        """Make the mask (N, T) of `is_step`: true for the real steps of an input."""
        input, time_dim = self.inputs[name], self.infos[name].time_dim or 1
        lengths = self.lengths.get(name)
        if lengths is not None:
            return make_step_mask(lengths, input.shape[time_dim], input.device)
        rest = len(self.infos[name].shape) - time_dim
        return torch.ones_like(input[(slice(None), *[0] * (time_dim - 1), slice(None), *[0] * rest)], dtype=torch.bool)

    def _evaluate_power_operands(self, base: ast.expr, exponent: ast.expr) -> list[Any]:
        """Evaluate base and exponent, and convert one of them to float, so that the power is a float.

        PyTorch computes powers of integer tensors as integers: they are 0 for a negative exponent, and wrong beyond 64
        bits. The type of a traced tensor is not known, so an exponent that is a tensor is divided by 1 to convert it.
        """
        return self.convert_power_operands(base, exponent, self.evaluate(base), self.evaluate(exponent))

    def convert_power_operands(self, base: ast.expr, exponent: ast.expr, base_value: Any, value: Any) -> list[Any]:
        """Convert the evaluated operands of a power. A subclass overrides it to compare them.

        Args:
            base: The node of the base.
            exponent: The node of the exponent.
            base_value: The base.
            value: The exponent.

        Returns:
            The base and the exponent for PyTorch.
        """
        if is_number(base) and is_number(exponent):
            return [base_value, value]
        if is_number(base):
            return [float(base_value), value]
        if is_number(exponent):
            return [base_value, value if value in _INTEGER_EXPONENTS else float(value)]
        quotient = ast.BinOp(exponent, ast.Div(), ast.Constant(1))
        return [base_value, self.apply(quotient, operator.truediv, [value, 1])]

    def apply(
        self,
        node: ast.expr,
        function: Callable[..., Any],
        arguments: list[Any],
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        """Apply a function to evaluated arguments. Subclasses override it to check every operation.

        Args:
            node: The node of the operation, for error messages.
            function: The PyTorch function or operator.
            arguments: Evaluated positional arguments.
            keywords: Evaluated keyword arguments.

        Returns:
            What the function returns.
        """
        return function(*arguments, **(keywords or {}))
