"""Turn predictions into output columns: classes under the target's name, probabilities, numbers in their unit.

The predictions are arrays, so that those of exported files are written without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.errors import UserError, format_value
from dlspec.inference.answers.column_arrays import Answers, make_object_column
from dlspec.inference.answers.token_targets import TokenTargets, name_token

PROBABILITY = "probability"
LABEL_SEPARATOR = "|"
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class AnswerOptions:
    """What is written of predictions."""

    probabilities: bool = False  # a column for each class
    # Of two classes, the probability from which on the positive one is written, and of labels each; None for 0.5.
    threshold: float | None = None
    columns: Sequence[str] | None = None  # the output columns, in their order; None for all
    keep: bool = False  # whether the columns of the input come first

    def __post_init__(self) -> None:
        threshold, columns = self.threshold, self.columns
        if threshold is not None and not (isinstance(threshold, int | float | np.floating) and 0 <= threshold <= 1):
            raise UserError(f"threshold must be a number from 0 to 1, got {format_value(threshold)}")
        if isinstance(columns, str) or (columns is not None and not columns):
            found = f"columns must be a list of at least one output column, got {format_value(columns)}"
            raise UserError(f"{found}; leave it out for all of them")
        if columns is not None and len(set(columns)) < len(columns):
            twice = next(each for each in columns if list(columns).count(each) > 1)
            raise UserError(f"columns: '{twice}' is given twice; leave one of them out")


@dataclass(frozen=True)
class PredictedRows:
    """Predictions of some rows.

    Probabilities of classes are (N, ..., K), of two classes that of the second one (N, ...).
    """

    values: Mapping[str, NDArray[Any]]  # by target
    lengths: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # by target: real steps of each row, (N,)
    tokens: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # by target: a text that was written, (N, T)


class AnswerColumns:
    """Makes the output columns of a run.

    Args:
        targets: the predicted targets, with the shape of a sample
        fitted: what encodes the run's rows, to name tokens and to undo scales; None if it is not known
        token_targets: the targets whose tokens are predicted one after another
        options: what is written
    """

    def __init__(
        self, targets: Sequence[Target], fitted: FittedTable | None, token_targets: TokenTargets, options: AnswerOptions
    ) -> None:
        self.targets, self.fitted, self.token_targets, self.options = targets, fitted, token_targets, options
        if options.threshold is not None and not any(has_threshold(each) for each in targets):
            names = ", ".join(each.name for each in targets)
            fix = "leave threshold out; it is for targets of two classes and for labels"
            raise UserError(f"threshold has no effect on {names or 'this run'}; {fix}")

    def make_columns(self, rows: PredictedRows) -> Answers:
        """Make the columns of some rows."""
        answers: Answers = {}
        for target in self.targets:
            answers |= self._choose_maker(target)(target, rows)
        if not self.targets:  # outputs that no loss calls a prediction
            answers |= rows.values
        return answers

    def _choose_maker(self, target: Target) -> Callable[[Target, PredictedRows], Answers]:
        if target.name in self.token_targets.written:
            return self._make_text
        if any(each.name == target.name for each in self.token_targets.following.values()):
            return self._make_next_token
        if target.labels:
            return self._make_labels
        if target.kind == "numbers":
            return self._make_numbers
        return {0: self._make_class, 1: self._make_tags}.get(len(target.shape), self._make_pixels)

    # ---- one class a row -------------------------------------------------------------------------------------------

    def _make_class(self, target: Target, rows: PredictedRows) -> Answers:
        found, name = rows.values[target.name], target.name
        if found.ndim == 1:
            chosen = self._pass_threshold(found).astype(np.int64)
            answers: Answers = {name: _name_classes(target, chosen), f"{name}.{target.classes[1]}": found}
        else:
            answers = {name: _name_classes(target, found.argmax(-1)), f"{name}.{PROBABILITY}": found.max(-1)}
        if self.options.probabilities:
            by_class = _list_both(found) if found.ndim == 1 else found
            answers |= {f"{name}.{each}": by_class[:, at] for at, each in enumerate(target.classes)}
        return answers

    def _pass_threshold(self, found: NDArray[Any]) -> NDArray[np.bool_]:
        threshold = self.options.threshold
        return np.asarray(found > DEFAULT_THRESHOLD if threshold is None else found >= found.dtype.type(threshold))

    def _make_labels(self, target: Target, rows: PredictedRows) -> Answers:
        found, names = rows.values[target.name], np.array(target.labels, object)
        joined = make_object_column([LABEL_SEPARATOR.join(names[row]) for row in self._pass_threshold(found)])
        answers: Answers = {target.name: joined}
        if self.options.probabilities:
            answers |= {f"{target.name}.{each}": found[:, at] for at, each in enumerate(target.labels)}
        return answers

    # ---- classes of steps and pixels, numbers ----------------------------------------------------------------------

    def _make_tags(self, target: Target, rows: PredictedRows) -> Answers:
        names = _name_classes(target, _most_probable(rows.values[target.name], 2))
        return {target.name: _cut(names, rows.lengths.get(target.name))}

    def _make_pixels(self, target: Target, rows: PredictedRows) -> Answers:
        """Make the numbers of classes, as a mask contains them."""
        return {target.name: _most_probable(rows.values[target.name], 1 + len(target.shape))}

    def _make_numbers(self, target: Target, rows: PredictedRows) -> Answers:
        values = rows.values[target.name]
        column = self._find_reconstructed_column(target)
        if column is not None:
            values = np.asarray(column.invert(values))
        lengths = rows.lengths.get(target.name) if target.shape else None
        return {target.name: values if lengths is None else _cut(values, lengths)}

    def _find_reconstructed_column(self, target: Target) -> FittedColumn | None:
        """Return what a reconstructed field was encoded with, if that can be undone."""
        plans = [] if self.fitted is None else [plan for plan in self.fitted.fields if plan.name == target.name]
        if not plans or plans[0].form != "own" or self.fitted is None:
            return None
        column = self.fitted.inputs[plans[0].columns[0]]
        is_plain = isinstance(column, FittedArray) and column.divisor == 1
        return None if is_plain or type(column).invert is FittedColumn.invert else column

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def _make_text(self, target: Target, rows: PredictedRows) -> Answers:
        tokens = rows.tokens[target.name]
        column = None if self.fitted is None else self.fitted.targets.get(target.name)
        if column is None or type(column).decode is FittedColumn.decode:
            return {target.name: make_object_column(np.array(target.classes, object)[tokens].tolist())}
        return {target.name: make_object_column([column.decode(row) for row in tokens.tolist()])}

    def _make_next_token(self, target: Target, rows: PredictedRows) -> Answers:
        found, lengths = rows.values[target.name], rows.lengths[target.name]
        last = found[np.arange(len(found)), lengths.clip(1, found.shape[1]) - 1]
        by_class = _list_both(last) if last.ndim == 1 else last
        kind = self._find_token_column(target)
        names = make_object_column([name_token(kind, target.classes, token) for token in by_class.argmax(-1).tolist()])
        answers: Answers = {target.name: names, f"{target.name}.{PROBABILITY}": by_class.max(-1)}
        if self.options.probabilities:
            named = {at: name_token(kind, target.classes, at) for at in range(by_class.shape[1])}
            answers |= {f"{target.name}.{each}": by_class[:, at] for at, each in named.items()}
        return answers

    def _find_token_column(self, target: Target) -> FittedColumn | None:
        for plan in self.fitted.fields if self.fitted is not None else ():
            if plan.name == target.next_of and self.fitted is not None:
                return self.fitted.inputs[plan.columns[0]]
        return None


def has_threshold(target: Target) -> bool:
    """Whether a threshold chooses the classes of a target: two classes for a row, or labels."""
    return bool(target.labels) or (len(target.classes) == 2 and not target.shape)


def _list_both(found: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities (N, 2) of both classes, from those of the second one."""
    return np.stack([1 - found, found], 1)


def _most_probable(found: NDArray[Any], rank: int) -> NDArray[np.int64]:
    """Return the most probable classes; `rank` is the rank of one class for each step or pixel."""
    return np.asarray(found.argmax(-1) if found.ndim > rank else found > DEFAULT_THRESHOLD, np.int64)


def _name_classes(target: Target, chosen: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(np.array(target.classes, object).take(chosen))


def _cut(values: NDArray[Any], lengths: NDArray[np.int64] | None) -> NDArray[Any]:
    """Return the real steps of each row, as lists."""
    if lengths is None:
        return make_object_column(values.tolist())
    return make_object_column([row[:length].tolist() for row, length in zip(values, lengths.tolist(), strict=True)])
