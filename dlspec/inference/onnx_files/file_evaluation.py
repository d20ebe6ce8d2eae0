"""Evaluate an exported ONNX file on rows with their targets, by onnxruntime and scikit-learn. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.kind import SAVED_KINDS, FittedColumn
from dlspec.data.tables.input_files import find_input_files
from dlspec.errors import DataError, UserError, suggest
from dlspec.inference.onnx_files.file_prediction import iterate_rows, make_options, run_rows
from dlspec.inference.onnx_files.model_reading import ExportedFile, read_exported_file
from dlspec.inference.onnx_files.row_answers import INDEX
from dlspec.inference.onnx_files.row_inputs import RowInputs

Metrics = Mapping[str, float]


@dataclass
class _TargetRows:
    """The true and predicted values of one target."""

    output: str
    fitted: FittedColumn
    true: list[NDArray[Any]] = field(default_factory=list)
    predicted: list[NDArray[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class FileEvaluation:
    """The metrics of an exported file."""

    rows: int
    left_out: Sequence[str]  # why rows have no result
    metrics: Mapping[str, Metrics]  # by target


def evaluate_file(name: str, source: Sequence[str], options: Mapping[str, Any]) -> FileEvaluation:
    """Evaluate an exported file.

    Args:
        name: the ONNX file
        source: files of rows with their targets, or a glob
        options: options of reading that the user writes, such as `delimiter`

    Raises:
        UserError: if the exported file is wrong, or a column is missing.
        DataError: if a file of rows can't be read.
    """
    files = find_input_files(list(source))
    exported = read_exported_file(name)
    inputs, targets = RowInputs(exported), _find_targets(exported)
    count, left_out = 0, []
    for file, columns, rows in iterate_rows(files, make_options(exported, options)):
        outputs, kept, problems = run_rows(exported, inputs, columns, rows)
        for target, each in targets.items():
            if target not in columns:
                raise UserError(f"no column '{target}', which the file predicts; {suggest(target, columns)}")
            encoded = each.fitted.apply(columns[target])
            problems |= {row: f"{target}: {reason}" for row, reason in encoded.problems.items()}
            is_known = ~np.isin(kept, [*encoded.problems, *encoded.ignored.tolist()])
            each.true.append(_read_truth(each.fitted, columns[target], encoded.values)[kept[is_known]])
            if len(kept):
                each.predicted.append(outputs[each.output][is_known])
        left_out += [f"{file}: row {count + at + 1}: {reason}" for at, reason in sorted(problems.items())]
        count += rows
    return FileEvaluation(count, left_out, {name: _measure(name, each) for name, each in targets.items()})


def _find_targets(exported: ExportedFile) -> dict[str, _TargetRows]:
    """Find the targets of one class or number for each row."""
    for each in ("class_target", "value_target"):
        import_module(f"dlspec.data.prepare.kinds.{each}")
    saved = exported.preparation.get("targets")
    found: dict[str, _TargetRows] = {}
    for name, column in saved.items() if isinstance(saved, Mapping) else ():
        kind = column.get("kind") if isinstance(column, Mapping) else None
        outputs = [str(each.get("name")) for each in exported.outputs if each.get("target") == name]
        output = next((each for each in outputs if kind == "value" or each.endswith(INDEX)), None)
        if kind not in ("class", "value") or output is None:
            raise UserError(f"'{name}' is not one class or number for each row; evaluate the run: evaluate run=FOLDER")
        try:
            found[str(name)] = _TargetRows(output, SAVED_KINDS[kind](column))
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the preparation of '{name}' is damaged: {error}; export the run again") from None
    return found


def _read_truth(fitted: FittedColumn, column: NDArray[Any], encoded: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of classes, or numbers in their own unit."""
    return encoded if fitted.kind == "class" else np.asarray(fitted.invert(encoded))


def _measure(name: str, rows: _TargetRows) -> Metrics:
    from sklearn import metrics

    if not rows.predicted or not sum(map(len, rows.predicted)):
        raise UserError(f"no row has both a prediction and a true value of '{name}'")
    true, predicted = np.concatenate(rows.true), np.concatenate(rows.predicted)
    if rows.fitted.kind == "class":
        found = {"accuracy": float(metrics.accuracy_score(true, predicted))}
        if len(getattr(rows.fitted, "classes", ())) == 2:
            found["f1_score"] = float(metrics.f1_score(true, predicted, zero_division=0))
        return found
    return {
        "mean_absolute_error": float(metrics.mean_absolute_error(true, predicted)),
        "r2_score": float(metrics.r2_score(true, predicted)),
    }
