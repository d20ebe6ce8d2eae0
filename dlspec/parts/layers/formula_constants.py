"""Formulas of constants, such as `arange(8) / 8`: computed once in float64, and rounded to the network's precision."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.language.expressions.formula_tree import find_calls
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator

RANDOM_FUNCTIONS = (torch.rand_like, torch.randn_like)
_RANDOM_NAMES = {each.__name__ for each in RANDOM_FUNCTIONS}


@dataclass(frozen=True, eq=False)  # equal only to itself: comparing tensors is slow, and ambiguous
class ConstantValue:
    """The value of a formula of constants: integers, conditions, or float64."""

    tensor: Tensor

    def make_copy(self, dtype: torch.dtype) -> Tensor:
        """Return the value, rounded to `dtype` unless it consists of integers or conditions."""
        return self.tensor.to(dtype, copy=True) if self.tensor.is_floating_point() else self.tensor.clone()

    def is_computed(self) -> bool:
        """Whether the numbers are known: on the meta device only their shape is."""
        return not self.tensor.is_meta


def draws_random_numbers(tree: ast.expr) -> bool:
    """Whether a formula has other values at every call."""
    return any(name in _RANDOM_NAMES for name, _ in find_calls(tree))


def compute_constant_value(tree: ast.expr, names: Sequence[str], infos: Mapping[str, TensorInfo]) -> Any:
    """Compute a formula that uses constants alone.

    Args:
        tree: The formula.
        names: The names of its inputs.
        infos: Their descriptions, which contain the values of constants.

    Returns:
        The `ConstantValue`, or None if an input is not constant or the formula draws random numbers.
    """
    constants = {name: infos[name].constant for name in names if name in infos}
    if draws_random_numbers(tree) or len(constants) < len(names) or None in constants.values():
        return None
    with torch.no_grad():
        found = _ExactEvaluator({name: each.tensor for name, each in constants.items()}).evaluate(tree)
    return ConstantValue(found)


class _ExactEvaluator(FormulaEvaluator):
    """Evaluates a formula in float64, where PyTorch computes with integers in float32."""

    def apply(
        self,
        node: ast.expr,
        function: Callable[..., Any],
        arguments: list[Any],
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        found = super().apply(node, function, arguments, keywords)
        if not isinstance(found, Tensor) or found.dtype != torch.get_default_dtype():
            return found
        return super().apply(node, function, [_widen(each, function) for each in arguments], keywords).double()


def _widen(value: Any, function: Callable[..., Any]) -> Any:
    """Convert integers in a tensor to float64, and the numbers of `where`, which would become tensors of float32."""
    if isinstance(value, Tensor):
        return value if value.dtype == torch.bool else value.double()
    return torch.tensor(value, dtype=torch.float64) if function is torch.where and isinstance(value, float) else value
