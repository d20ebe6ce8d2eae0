"""`Formula`: an expression over earlier outputs. Tracing the layer turns it into plain PyTorch calls."""

from __future__ import annotations

import ast

from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.language.expressions.expression_parsing import ExpressionError
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import (
    find_calls,
    find_output_names,
    is_elementwise,
    only_moves_values,
)
from dlspec.layouts import Layout, Lengths
from dlspec.parts.layers.dimensions import all_have_main_input_lengths, lengths_and_steps_agree
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator, check_formula_on_trial_batches
from dlspec.parts.layers.rule import ALL_LAYOUTS, Inputs, Rule, Settings, Shape, layout_by_rank, main_input, same_layout

_ROLE_MOVING_FUNCTIONS = {"transpose", "permute", "einsum", "reshape"}


def _parse_formula_setting(settings: Settings) -> ast.expr:
    return parse_formula(settings["formula"])


def _check_formula(inputs: Inputs, settings: Settings) -> Finding | None:
    try:
        tree = _parse_formula_setting(settings)
    except ExpressionError as error:
        return error.finding
    names = find_output_names(tree)
    if len(names) != len(inputs):
        return Finding(
            Code.INPUT_COUNT,
            f"got {len(inputs)} inputs, but the formula uses {', '.join(names)}",
            "remove 'from': the formula names its inputs",
        )
    return check_formula_on_trial_batches(tree, names, inputs)


def _output_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    moves = any(name in _ROLE_MOVING_FUNCTIONS for name, _ in find_calls(_parse_formula_setting(settings)))
    return layout_by_rank(inputs, shape, settings) if moves else same_layout(inputs, shape, settings)


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    return is_elementwise(_parse_formula_setting(settings)) and lengths_and_steps_agree(inputs)


def _keeps_vocabulary(settings: Settings) -> bool:
    return only_moves_values(_parse_formula_setting(settings))


def _output_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return (
        main_input(inputs).lengths
        if is_elementwise(_parse_formula_setting(settings)) and all_have_main_input_lengths(inputs)
        else None
    )


class Formula(nn.Module):
    """Compute an expression over earlier outputs, by their names: `mu + exp(logvar / 2) * randn_like(mu)`.

    `_` is the previous layer's output. `forward` takes the inputs in the order in which the formula first uses them.
    """

    rule = Rule(
        takes=ALL_LAYOUTS,
        gives=_output_layout,
        keeps_lengths=_keeps_lengths,
        lengths=_output_lengths,
        check=_check_formula,
        takes_parameter=True,
        keeps_vocabulary=_keeps_vocabulary,
    )
    inline = True

    def __init__(self, formula: str) -> None:
        super().__init__()
        self.formula = formula
        self._tree = parse_formula(formula)
        self._names = find_output_names(self._tree)

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = FormulaEvaluator(dict(zip(self._names, inputs, strict=True))).evaluate(self._tree)
        return found

    def extra_repr(self) -> str:
        return self.formula
