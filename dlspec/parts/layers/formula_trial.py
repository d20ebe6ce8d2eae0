"""Check a `Formula` on trial batches: one that can't be computed, or would mix samples, is refused."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from dlspec.errors import Code, Finding, format_value
from dlspec.formatting import first_line
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_functions import DIM_ARGUMENTS, ELEMENTWISE_FUNCTIONS, KEEPDIM_FUNCTIONS
from dlspec.language.expressions.formula_tree import (
    find_calls,
    find_output_names,
    match_arguments,
    parse_einsum_letters,
    read_whole_numbers,
)
from dlspec.layouts import TensorInfo, format_shape, guess_layout
from dlspec.parts.layers.dimensions import check_dim
from dlspec.parts.layers.formula_constants import RANDOM_FUNCTIONS
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator
from dlspec.parts.layers.formula_roles import RoledShape, Roles, find_roles_after
from dlspec.parts.layers.formula_trial_values import (
    TrialTensorPair,
    collect_tensor_pairs,
    is_integer_dtype,
    make_trial_pair,
    pair_trial_results,
    select_batch,
)
from dlspec.parts.layers.merge import find_shape_mismatch
from dlspec.parts.layers.rule import Inputs, main_input

# Numbers per sample. With more, the meta device is faster than the CPU, although its first use takes 1 to 2 s.
MAX_CPU_NUMBERS = 4_000_000
COMPUTE_ERRORS = (RuntimeError, IndexError, TypeError, ValueError, ArithmeticError)
_ADDS_DIMENSION = {"stack", "unsqueeze"}  # their `dim` refers to the output's dimensions
_BATCH_FIX = "the first dimension is the batch, and samples must not be mixed"


class _InvalidFormula(Exception):
    """Stops the evaluation of a formula that is refused; carries the `Finding`."""

    def __init__(self, code: Code, node: ast.expr, why: str, fix: str) -> None:
        super().__init__(why)
        self.finding = Finding(code, f"{format_value(ast.unparse(node))} {why}", fix)


class _TrialEvaluator(FormulaEvaluator):
    """Evaluate a formula on trial batches of zeros, and refuse operations that would mix samples."""

    def __init__(self, inputs: Mapping[str, Any], infos: Mapping[str, TensorInfo]) -> None:
        super().__init__(inputs, infos)
        self.main = main_input([*infos.values()]) if infos else None

    def make_step_mask(self, name: str) -> Any:
        pair = self.inputs[name]
        masks = (FormulaEvaluator({name: each}, self.infos).make_step_mask(name) for each in (pair.two, pair.three))
        return TrialTensorPair(*masks)

    def apply(
        self,
        node: ast.expr,
        function: Callable[..., Any],
        arguments: list[Any],
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        self._check_operation(node, arguments)
        if function in (operator.floordiv, operator.mod):
            arguments = [arguments[0], _avoid_division_by_zero(arguments[1])]
        function = torch.zeros_like if function in RANDOM_FUNCTIONS else function
        try:
            two, three = (
                function(*(select_batch(each, at) for each in arguments), **(keywords or {})) for at in ("two", "three")
            )
        except COMPUTE_ERRORS as error:
            reason = first_line(error, 200)
            raise _InvalidFormula(
                Code.LAYER_REFUSED,
                node,
                f"can't be computed from {self._format_shapes(arguments)}",
                f"PyTorch says: {reason}",
            ) from None
        found = pair_trial_results(two, three)
        has_batch = any(each.has_batch for each in collect_tensor_pairs(arguments))
        if any(each.mixes_samples or each.has_batch != has_batch for each in collect_tensor_pairs(found)):
            raise _InvalidFormula(
                Code.SAMPLES_MIXED, node, f"mixes the samples of {self._format_shapes(arguments)}", _BATCH_FIX
            )
        return _add_roles(found, node, arguments)

    def to_tensor_info(self, pair: TrialTensorPair) -> TensorInfo:
        """Describe a value; its layout is the main input's if it has the same number of dimensions, else guessed."""
        shape = tuple(pair.two.shape[1:] if pair.has_batch else pair.two.shape)
        is_like_main = self.main is not None and len(shape) == len(self.main.shape)
        layout = self.main.layout if self.main and is_like_main else guess_layout(shape)
        return TensorInfo(shape, layout, has_batch=pair.has_batch)

    def _format_shapes(self, arguments: list[Any]) -> str:
        values = [self.to_tensor_info(each) for each in collect_tensor_pairs(arguments)]
        return " and ".join(format_shape(each.shape) for each in values) or "numbers"

    def _check_operation(self, node: ast.expr, arguments: list[Any]) -> None:
        pairs = collect_tensor_pairs(arguments)
        match node:
            case ast.BinOp(op=ast.MatMult()) | ast.Call(func=ast.Name(id="matmul")):
                self._check_matmul(node, *pairs)
            case ast.Call(func=ast.Name(id="einsum")):
                self._check_einsum(node, pairs)
            case ast.Call(func=ast.Name(id=name)) if name not in ELEMENTWISE_FUNCTIONS:
                self._check_dims(node, name, pairs)
            case ast.Subscript() if pairs and isinstance(arguments[0], TrialTensorPair):
                self._check_index(node, arguments[1], pairs[0])
            case ast.BinOp() | ast.Compare() | ast.Call() if pairs:
                self._check_broadcast(node, [self.to_tensor_info(each) for each in pairs])

    def _check_broadcast(self, node: ast.expr, values: Sequence[TensorInfo]) -> None:
        first = main_input(values)
        removes_dims = any(name in KEEPDIM_FUNCTIONS for name, _ in find_calls(node))
        for each in values:
            mismatch = find_shape_mismatch(first, each)
            if mismatch is None:
                continue
            has_ranks = len({len(value.shape) for value in values}) > 1
            fix = (
                "write keepdim=True: both need the same number of dimensions"
                if removes_dims and has_ranks
                else mismatch.fix
            )
            raise _InvalidFormula(
                mismatch.code,
                node,
                f"combines {format_shape(first.shape)} and {format_shape(each.shape)}, which do not match",
                fix,
            )

    def _check_matmul(self, node: ast.expr, left: TrialTensorPair, right: TrialTensorPair) -> None:
        """Check that the batch is neither the rows nor the columns, and is at the same position on both sides."""
        if left.has_batch and right.has_batch:
            fits = left.rank == right.rank >= 3
        elif left.has_batch:
            fits = left.rank >= 2 and right.rank < max(left.rank, 3)
        else:
            fits = not right.has_batch or (right.rank >= 3 and left.rank < right.rank)
        if not fits:
            raise _InvalidFormula(
                Code.SAMPLES_MIXED,
                node,
                f"mixes the samples of {self._format_shapes([left, right])}",
                "write sum(a * b, dim=-1)",
            )

    def _check_einsum(self, node: ast.Call, pairs: Sequence[TrialTensorPair]) -> None:
        letters, output = parse_einsum_letters(node)
        if any(each.has_batch and letter != output for each, letter in zip(pairs, letters, strict=True)):
            raise _InvalidFormula(
                Code.SAMPLES_MIXED, node, "mixes samples", f"start each operand with the batch's letter, {output}"
            )

    def _check_dims(self, node: ast.Call, name: str, pairs: Sequence[TrialTensorPair]) -> None:
        if not pairs or not pairs[0].has_batch:
            return
        if name in ("tril", "triu") and pairs[0].rank < 3:
            raise _InvalidFormula(Code.SAMPLES_MIXED, node, "works on the batch", "use it on matrices, (N, R, C)")
        value = self.to_tensor_info(pairs[0])
        written = {} if name in (*_ADDS_DIMENSION, "permute") else match_arguments(node)
        for argument in written.keys() & DIM_ARGUMENTS.keys():
            for finding in filter(
                None, (check_dim(dim, value, argument) for dim in read_whole_numbers(written[argument]))
            ):
                raise _InvalidFormula(finding.code, node, f"has a wrong dimension: {finding.found}", finding.fix)

    def _check_index(self, node: ast.expr, index: Any, pair: TrialTensorPair) -> None:
        """Refuse a condition as an index, and `...` with an item for every dimension: the first indexes the batch."""
        items = index if isinstance(index, tuple) else (index,)
        if any(not is_integer_dtype(each.two.dtype) for each in collect_tensor_pairs(items)):
            found, fix = (
                "has an index that is not of integers",
                "to select by a condition, write where(condition, a, b)",
            )
            raise _InvalidFormula(Code.LAYER_REFUSED, node, found, fix)
        taken = [item for item in items if item is not None and item is not Ellipsis]
        if Ellipsis in items and pair.has_batch and items[0] is Ellipsis and len(taken) >= pair.rank:
            raise _InvalidFormula(Code.SAMPLES_MIXED, node, "takes samples out of the batch", _BATCH_FIX)


def _avoid_division_by_zero(divisor: Any) -> Any:
    """Replace the zeros of a trial batch by ones: PyTorch refuses to divide integers by 0."""
    if not isinstance(divisor, TrialTensorPair) or not divisor.has_batch:
        return divisor
    return TrialTensorPair(torch.ones_like(divisor.two), torch.ones_like(divisor.three))


def _add_roles(found: Any, node: ast.expr, arguments: list[Any]) -> Any:
    """Note the roles of an operation's results that have a batch."""
    if isinstance(found, tuple):
        return tuple(_add_roles(each, node, arguments) for each in found)
    if not isinstance(found, TrialTensorPair) or not found.has_batch:
        return found
    pairs = [each for each in collect_tensor_pairs(arguments) if each.has_batch]
    inputs = [RoledShape(tuple(each.two.shape[1:]), each.roles) for each in pairs]
    return replace(found, roles=find_roles_after(node, inputs, tuple(found.two.shape[1:])))


def check_formula_on_trial_batches(tree: ast.expr, names: Sequence[str], inputs: Inputs) -> Finding | None:
    """Evaluate a formula on trial batches to check that it is computable and does not mix samples.

    Args:
        tree: The syntax tree of the formula.
        names: Names of the inputs in the formula.
        inputs: Descriptions of the inputs, in the order of `names`.

    Returns:
        What is wrong with the formula, or None.
    """
    try:
        _evaluate_on_trial_batches(tree, names, inputs)
    except _InvalidFormula as refused:
        return refused.finding
    return None


def _evaluate_on_trial_batches(tree: ast.expr, names: Sequence[str], inputs: Inputs) -> Any:
    numbers = sum(torch.Size(each.shape).numel() for each in inputs)
    device = "meta" if numbers > MAX_CPU_NUMBERS else "cpu"
    trial_inputs = {name: make_trial_pair(each, device) for name, each in zip(names, inputs, strict=True)}
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return _TrialEvaluator(trial_inputs, dict(zip(names, inputs, strict=True))).evaluate(tree)


@lru_cache(maxsize=200)
def find_formula_roles(formula: str, inputs: tuple[TensorInfo, ...]) -> Roles | None:
    """Find the roles of the dimensions of a formula's result, without the batch.

    Args:
        formula: The formula.
        inputs: Descriptions of its inputs, in the order in which it first uses them.

    Returns:
        One letter per dimension, or None where they are not known or the formula is refused.
    """
    tree = parse_formula(formula)
    try:
        found = _evaluate_on_trial_batches(tree, find_output_names(tree), inputs)
    except _InvalidFormula:
        return None
    return found.roles if isinstance(found, TrialTensorPair) else None
