"""Evaluate an exported ONNX file on rows with their targets: the metrics that its run reports, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset, Split, Target, make_field_name
from dlspec.data.encoding.encoded_rows import EncodedRows, encode_rows
from dlspec.data.encoding.fields import make_field
from dlspec.data.encoding.image_columns import make_folder_finder
from dlspec.data.encoding.table_notes import describe_notes
from dlspec.data.lazy_array import make_values, select_rows
from dlspec.data.tables.table import Table
from dlspec.errors import UserError
from dlspec.inference.answers.answer_columns import PredictedRows
from dlspec.inference.evaluation.bootstrap import (
    DEFAULT_RESAMPLES,
    Interval,
    Intervals,
    check_resamples,
    draw_resamples,
    make_intervals,
)
from dlspec.inference.evaluation.metric_resampling import make_metric_samples
from dlspec.inference.evaluation.new_table import check_columns, read_new_table
from dlspec.inference.onnx_files.file_predictor import FilePredictor
from dlspec.inference.onnx_files.metric_rows import MetricRows, TargetValues, find_metric_target, make_metric_rows
from dlspec.inference.rows.input_columns import complete_columns, format_reasons
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.language.problems import Problems
from dlspec.metrics.selection import make_metrics, select_metrics
from dlspec.parts.specs.metrics_spec import read_metrics
from dlspec.training.criterion_interface import MetricGroups, MetricProtocol
from dlspec.training.evaluation.scores import compute_metric

MAX_REASONS = 20  # of rows that are left out, in a message
SEED = 0  # of the resamples
RUN_FIX = "evaluate the run: evaluate run=FOLDER"


@dataclass(frozen=True)
class FileEvaluation:
    """The metrics of an exported file."""

    metrics: Mapping[str, Interval]  # by name, as the run reports them
    rows: int  # that were evaluated
    left_out: int
    reasons: Sequence[str]  # why the first rows are left out
    notes: Sequence[str]  # lines for the user


def evaluate_file(
    name: str, path: str | Sequence[str], options: Mapping[str, Any], resamples: int = DEFAULT_RESAMPLES
) -> FileEvaluation:
    """Evaluate an exported file.

    Args:
        name: the ONNX file
        path: files of rows with their targets, a glob or a folder
        options: options of reading that the user writes, such as `delimiter`
        resamples: how many resamples each interval is computed from; 0 for no intervals

    Raises:
        UserError: if the exported file is wrong, or a column is missing.
        DataError: if a file of rows can't be read.
    """
    check_resamples(resamples)
    predictor = FilePredictor(name)
    _check_targets(predictor)
    table, problems = read_new_table(predictor.source, predictor.fitted, path, options)
    check_columns(predictor.fitted, table, path if isinstance(path, str) else ", ".join(path), f"file={name}")
    evaluation = _EvaluationPass(predictor, {each.name: [] for each in predictor.targets})
    for chunk in _divide_table(table, problems, predictor.max_rows):
        evaluation.add(chunk)
    reasons = [f"{table.locate(row)}: {evaluation.problems[row]}" for row in sorted(evaluation.problems)[:MAX_REASONS]]
    count = len(table) - len(evaluation.problems)
    if not count:
        raise UserError(f"no row can be evaluated; {reasons[0] if reasons else 'there are none'}")
    notes = tuple(describe_notes(evaluation.notes))
    return FileEvaluation(evaluation.compute(resamples), count, len(evaluation.problems), reasons, notes)


def _check_targets(predictor: FilePredictor) -> None:
    """Refuse files whose outputs have no true values in a table."""
    known = {make_field_name(each) for each in predictor.fitted.targets}
    for output in predictor.description.outputs:
        if output.target is None:
            raise UserError(f"the file returns '{output.name}', which is not a prediction of a target; {RUN_FIX}")
        if output.target.name not in known:
            raise UserError(f"the file predicts '{output.target.name}', which it takes itself; {RUN_FIX}")


def _divide_table(table: Table, problems: Mapping[int, str], max_rows: int) -> Iterator[RowChunk]:
    for start in range(0, len(table), max_rows):
        part = slice(start, start + max_rows)
        columns = {name: column[part] for name, column in table.columns.items()}
        own = {row - start: reason for row, reason in problems.items() if start <= row < start + max_rows}
        lines = table.line_of_row[part]
        yield RowChunk(columns, start, own, table.files, table.file_of_row[part], lines, len(lines))


@dataclass
class _EvaluationPass:
    """Collects what metrics need of each chunk of rows."""

    predictor: FilePredictor
    rows: dict[str, list[MetricRows]]  # by target
    problems: dict[int, str] = field(default_factory=dict)  # why rows are left out, by their number from 0
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, chunk: RowChunk) -> None:
        """Predict the rows of a chunk, and encode their targets."""
        encoded = self.predictor.inputs.encode(chunk)
        truth = self._encode_targets(chunk, encoded.kept)
        reasons = {row: format_reasons(each) for row, each in truth.problems.items()}
        self.problems |= {chunk.first_row + row: reason for row, reason in {**encoded.problems, **reasons}.items()}
        self.notes += encoded.notes + truth.notes
        is_known = np.isin(encoded.kept, list(reasons), invert=True)
        for rows, predicted in self.predictor.predict_batches(encoded):
            for target in self.predictor.targets:
                values = _select_values(target, predicted, truth, rows, is_known[rows])
                self.rows[target.name].append(make_metric_rows(target, values))

    def _encode_targets(self, chunk: RowChunk, kept: NDArray[np.int64]) -> EncodedRows:
        fitted = replace(self.predictor.fitted, fields=())
        find_folder = make_folder_finder(chunk.files, chunk.file_of_row)
        return encode_rows(fitted, complete_columns(fitted, chunk.columns, find_folder, with_targets=True), kept)

    def compute(self, resamples: int) -> Intervals:
        """Compute the metrics of all rows, with their intervals."""
        found: Intervals = {}
        for target, group in zip(self.predictor.targets, _make_metric_groups(self.predictor), strict=True):
            found |= _compute_metrics(target, group, self.rows[target.name], resamples)
        return found


def _select_values(
    target: Target, predicted: PredictedRows, truth: EncodedRows, rows: slice, is_known: NDArray[np.bool_]
) -> TargetValues:
    """Select the predictions and true values of a batch.

    Args:
        target: the target
        predicted: the predictions of the batch
        truth: the targets of the whole chunk
        rows: the rows of the batch in the chunk
        is_known: which of these have true values
    """
    known, name = np.flatnonzero(is_known) + rows.start, target.name
    lengths, weights = predicted.lengths.get(name), truth.fields.get(target.weights)
    return TargetValues(
        predicted.values[name][is_known],
        select_rows(make_values(truth.targets[name]), torch.from_numpy(known)),
        None if lengths is None else lengths[is_known],
        None if weights is None else weights[known],
    )


# ---- metrics ---------------------------------------------------------------------------------------------------------


def _make_metric_groups(predictor: FilePredictor) -> MetricGroups:
    """Make the metrics of each target, as the spec of the file's run names them."""
    problems, written = Problems(), predictor.file.spec.get("metrics")
    terms = None if written in (None, "auto") else read_metrics(written, problems)
    fields = tuple(make_field(each, predictor.fitted.inputs, has_lengths=False) for each in predictor.fitted.fields)
    empty = Split({})
    data = Dataset("file", fields, tuple(predictor.targets), empty, empty, empty)
    targets = [find_metric_target(each) for each in predictor.targets]
    selected = select_metrics(terms, targets, data, problems)
    if problems:
        raise UserError("the spec of the file is damaged: its metrics do not fit its targets; export the run again")
    return make_metrics(selected, targets)


def _compute_metrics(
    target: Target, group: Mapping[str, MetricProtocol], batches: Sequence[MetricRows], resamples: int
) -> Intervals:
    """Compute the metrics of one target.

    Args:
        target: the target, with the shape of a sample
        group: its metrics by name
        batches: the rows of all samples
        resamples: how many resamples each interval is computed from
    """
    for batch in batches:
        for metric in group.values() if len(batch.tensors[1]) else ():
            metric.update(*batch.tensors)
    values = {name: compute_metric(metric) for name, metric in group.items()}
    if not resamples:
        return make_intervals(values, {})
    count = sum(len(batch.counts) for batch in batches)
    samples = make_metric_samples(group, count, has_one_row=find_metric_target(target).shape == target.shape)
    for batch in batches:
        samples.add(batch.tensors, batch.counts)
    draws = [np.arange(count), *draw_resamples(count, resamples, SEED)]
    return make_intervals(values, samples.resample(draws))
