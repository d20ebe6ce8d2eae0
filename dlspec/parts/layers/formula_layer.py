"""`Formula`: an expression over earlier outputs. Tracing the layer turns it into plain PyTorch calls."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from dlspec.compat.torch_layers import ModuleWithExactBuffers
from dlspec.errors import Code, Finding
from dlspec.language.expressions.expression_parsing import ExpressionError
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_batch import check_batch_is_kept
from dlspec.language.expressions.formula_tree import (
    find_calls,
    find_output_names,
    find_step_names,
    is_elementwise,
    only_moves_values,
)
from dlspec.layouts import NO_PADDING, Layout, LengthChange, Lengths, TensorInfo
from dlspec.parts.layers.dimensions import find_common_lengths, layout_after_selection, lengths_and_steps_agree
from dlspec.parts.layers.formula_constants import compute_constant_value, draws_random_numbers
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator
from dlspec.parts.layers.formula_padding import PaddingTrial, try_formula_with_padding
from dlspec.parts.layers.formula_roles import MOVING_ROLES, Roles
from dlspec.parts.layers.formula_trial import check_formula_on_trial_batches, find_formula_roles
from dlspec.parts.layers.rule import (
    ALL_LAYOUTS,
    Inputs,
    Rule,
    Settings,
    Shape,
    layout_by_rank,
    main_input,
    same_layout,
)

_LENGTHS = "_lengths"
_FORMERLY_MOVING_FUNCTIONS = {"transpose", "permute", "einsum", "reshape"}


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
    if not names and draws_random_numbers(tree):
        found = "draws random numbers of constants, which are computed only once"
        return Finding(Code.FORMULA_REFUSED, f"'{settings['formula']}' {found}", "use randn_like(x) of an output x")
    by_name = dict(zip(names, inputs, strict=True))
    try:
        check_batch_is_kept(tree, [name for name, each in by_name.items() if not each.has_batch])
    except ExpressionError as error:
        return error.finding
    return _check_step_names(tree, by_name) or check_formula_on_trial_batches(tree, names, inputs)


def _check_step_names(tree: ast.expr, inputs: Mapping[str, TensorInfo]) -> Finding | None:
    """Check that `is_step` is only used on inputs with steps."""
    for name in find_step_names(tree):
        value = inputs[name]
        if value.time_dim is None or not value.has_batch:
            found = f"is_step({name}) expects an output with steps, a sequence or tokens, got {value}"
            return Finding(Code.WRONG_LAYOUT, found, "use it on the output before the steps were reduced")
    return None


def _find_moved_roles(inputs: Inputs, shape: Shape, settings: Settings) -> Roles | None:
    """Find the roles of the result's dimensions, if the formula moves them; None where they are not known."""
    if not _calls_one_of(MOVING_ROLES, settings):
        return None
    found = find_formula_roles(settings["formula"], tuple(inputs))
    is_known = found is not None and len(found) == len(shape) and "C" in found  # (T, T) of an attention has none
    return found if is_known else None


def _calls_one_of(names: Collection[str], settings: Settings) -> bool:
    return any(name in names for name, _ in find_calls(_parse_formula_setting(settings)))


def _output_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    roles = _find_moved_roles(inputs, shape, settings)
    return find_former_layout(inputs, shape, settings) if roles is None else layout_after_selection(roles)


def find_former_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """Return the layout by the rule of spec version 1, which still holds where roles are not known: by the rank.

    Args:
        inputs: The formula's inputs.
        shape: The result's shape, without the batch.
        settings: The formula's settings.

    Returns:
        The result's layout.
    """
    moves = _calls_one_of(_FORMERLY_MOVING_FUNCTIONS, settings)
    return layout_by_rank(inputs, shape, settings) if moves else same_layout(inputs, shape, settings)


def _guesses_layout(inputs: Inputs, shape: Shape, settings: Settings) -> bool:
    """Whether a formula's layout is a guess: it moves dimensions in an unknown way, or changes their number."""
    moves = _calls_one_of(_FORMERLY_MOVING_FUNCTIONS, settings) or len(shape) != len(main_input(inputs).shape)
    return len(shape) > 1 and moves and _find_moved_roles(inputs, shape, settings) is None


def _output_roles(inputs: Inputs, shape: Shape, settings: Settings) -> Roles:
    roles, value = _find_moved_roles(inputs, shape, settings), main_input(inputs)
    is_like = len(shape) == len(value.shape) and value.layout == _output_layout(inputs, shape, settings)
    return roles or (value.explicit_roles if is_like else ())


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    if is_elementwise(_parse_formula_setting(settings)):
        return lengths_and_steps_agree(inputs)
    trial = _try_with_padding(inputs, settings)
    return trial.is_unaffected and trial.fits_shorter_batch and trial.padded_dims in ((), (1,), (2,))


def _hides_steps(inputs: Inputs, shape: Shape, settings: Settings) -> bool:
    """Whether the steps are in another dimension than the result's time dimension, such as T in (N, 1, T, C)."""
    if is_elementwise(_parse_formula_setting(settings)):
        return any(each.hides_steps for each in inputs)
    if find_common_lengths(inputs) is None:
        return False
    value = TensorInfo(shape, _output_layout(inputs, shape, settings))
    return _try_with_padding(inputs, settings).padded_dims not in ((), (value.time_dim,))


def _keeps_vocabulary(settings: Settings) -> bool:
    return only_moves_values(_parse_formula_setting(settings))


def _output_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    lengths = find_common_lengths(inputs)
    if lengths is None or is_elementwise(_parse_formula_setting(settings)):
        return lengths
    trial, value = _try_with_padding(inputs, settings), TensorInfo(shape, _output_layout(inputs, shape, settings))
    if not trial.is_unaffected:
        return None
    if trial.padded_dims == (value.time_dim,) and trial.removed is not None:
        return lengths.after(LengthChange(trial.removed))
    return None if trial.padded_dims else NO_PADDING


def _try_with_padding(inputs: Inputs, settings: Settings) -> PaddingTrial:
    return try_formula_with_padding(settings["formula"], tuple(inputs))


class Formula(ModuleWithExactBuffers):
    """Compute an expression over earlier outputs, by their names: `mu + exp(logvar / 2) * randn_like(mu)`.

    `_` is the previous layer's output. `forward` takes the inputs in the order in which the formula first uses them.
    A formula of constants alone is computed once: it keeps its value, which is not in the state dict.
    `is_step(x)` is the mask (N, T) of the real steps of an output x, without padding.
    """

    rule = Rule(
        takes=ALL_LAYOUTS,
        gives=_output_layout,
        guesses=_guesses_layout,
        keeps_lengths=_keeps_lengths,
        lengths=_output_lengths,
        hides_steps=_hides_steps,
        roles=_output_roles,
        check=_check_formula,
        takes_parameter=True,
        keeps_vocabulary=_keeps_vocabulary,
        fill=lambda inputs, settings: {"_inputs": tuple(inputs)},
    )
    inline = True
    value: Tensor

    def __init__(self, formula: str, _inputs: Sequence[TensorInfo] = ()) -> None:
        super().__init__()
        self.formula = formula
        self._tree = parse_formula(formula)
        self._names = find_output_names(self._tree)
        self._infos = dict(zip(self._names, _inputs, strict=False))
        self.constant = compute_constant_value(self._tree, self._names, self._infos)
        if self.constant is not None:
            self.inline = False
            self.register_buffer("value", self.constant.make_copy(torch.get_default_dtype()), persistent=False)
        positions = {name: at for at, name in enumerate(self._names)}
        # Which inputs' lengths `forward` takes, by the names of its arguments.
        self.lengths_of = {f"{name}{_LENGTHS}": positions[name] for name in find_step_names(self._tree)}

    def forward(self, *inputs: Tensor, **lengths: Tensor) -> Tensor:
        """Compute the expression.

        Args:
            inputs: The inputs in the order in which the formula first uses them.
            lengths: For each NAME in `is_step`, as NAME_lengths, the real steps of each sample, int64 of shape (N,).

        Returns:
            The result, (N, ...).
        """
        if self.constant is not None:
            return self.value
        known = {name.removesuffix(_LENGTHS): each for name, each in lengths.items() if each is not None}
        by_name = dict(zip(self._names, inputs, strict=True))
        found: Tensor = FormulaEvaluator(by_name, self._infos, known).evaluate(self._tree)
        return found

    def restore_buffers(self) -> None:
        """Round a constant to the module's new precision from its exact value, not from the former precision."""
        if self.constant is not None and self.constant.is_computed() and not self.value.is_meta:
            self.value = self.constant.make_copy(self.value.dtype).to(self.value.device)

    def extra_repr(self) -> str:
        return self.formula
