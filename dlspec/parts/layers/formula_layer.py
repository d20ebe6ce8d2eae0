"""`Formula`: a line of arithmetic over earlier outputs, walked over tensors; a tracer turns it into PyTorch's calls."""

from __future__ import annotations

import ast

from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.language.expressions.expressions import ExpressionError
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import (
    calls_in,
    is_elementwise,
    names_in,
    only_moves,
)
from dlspec.layouts import Layout, Lengths
from dlspec.parts.layers.dims import agree, end_together
from dlspec.parts.layers.formula_trial import Walk, try_formula
from dlspec.parts.layers.rule import ALL, Inputs, Rule, Settings, Shape, by_rank, main, same

_MOVES_ROLES = {"transpose", "permute", "einsum", "reshape"}


def _tree(settings: Settings) -> ast.expr:
    return parse_formula(settings["formula"])


def _check(inputs: Inputs, settings: Settings) -> Finding | None:
    try:
        tree = _tree(settings)
    except ExpressionError as error:
        return error.finding
    names = names_in(tree)
    if len(names) != len(inputs):
        return Finding(
            Code.INPUT_COUNT,
            f"{len(inputs)} inputs come in, and the formula names {', '.join(names)}",
            "leave out from",
        )
    return try_formula(tree, names, inputs)


def _gives(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    moves = any(name in _MOVES_ROLES for name, _ in calls_in(_tree(settings)))
    return by_rank(inputs, shape, settings) if moves else same(inputs, shape, settings)


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    return is_elementwise(_tree(settings)) and end_together(inputs)


def _keeps_vocabulary(settings: Settings) -> bool:
    return only_moves(_tree(settings))


def _lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return main(inputs).lengths if is_elementwise(_tree(settings)) and agree(inputs) else None


class Formula(nn.Module):
    """What `formula` computes of earlier outputs, by their names: `mu + exp(logvar / 2) * randn_like(mu)`.

    `_` is the output before. The inputs come in the order in which the formula first names them.
    """

    rule = Rule(
        takes=ALL,
        gives=_gives,
        keeps_lengths=_keeps_lengths,
        lengths=_lengths,
        check=_check,
        takes_parameter=True,
        keeps_vocabulary=_keeps_vocabulary,
    )
    inline = True

    def __init__(self, formula: str) -> None:
        super().__init__()
        self.formula = formula
        self._tree = parse_formula(formula)
        self._names = names_in(self._tree)

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = Walk(dict(zip(self._names, inputs, strict=True))).value(self._tree)
        return found

    def extra_repr(self) -> str:
        return self.formula
