"""Find powers in formulas that PyTorch computes as integers, as formulas did in version 1 of the spec language."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import find_output_names
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator


def has_changed_power(formula: str, inputs: Sequence[Tensor]) -> bool:
    """Return whether a power in a formula differs from what PyTorch computes for its operands.

    Args:
        formula: The formula, which can be computed from these inputs.
        inputs: A small batch of each input, in the order in which the formula uses them. A power of integers that
            depends on them counts as different, as other batches may contain other numbers.
    """
    tree = parse_formula(formula)
    evaluator = _PowerComparison(dict(zip(find_output_names(tree), inputs, strict=True)))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        evaluator.evaluate(tree)
    return evaluator.has_changed


class _PowerComparison(FormulaEvaluator):
    """Evaluate a formula, and compare each power with that of the operands as they are written."""

    has_changed = False

    def convert_power_operands(self, base: ast.expr, exponent: ast.expr, base_value: Any, value: Any) -> list[Any]:
        operands = super().convert_power_operands(base, exponent, base_value, value)
        if isinstance(base_value, Tensor) or isinstance(value, Tensor):
            names = {each.id for node in (base, exponent) for each in ast.walk(node) if isinstance(each, ast.Name)}
            self.has_changed |= _differ((base_value, value), operands, reads_inputs=bool(names & self.inputs.keys()))
        return operands


def _differ(former_operands: Sequence[Any], operands: Sequence[Any], *, reads_inputs: bool) -> bool:
    try:
        former, power = operator.pow(*former_operands), operator.pow(*operands)
    except RuntimeError:  # PyTorch refuses some powers of integers, such as x ** -1
        return False
    if former.dtype == power.dtype or former.is_floating_point() or former.is_complex() or former.is_meta:
        return False
    return reads_inputs or not torch.equal(former.to(power.dtype), power)
