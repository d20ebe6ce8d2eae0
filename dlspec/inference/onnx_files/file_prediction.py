"""Predict rows of files with an exported ONNX file, by onnxruntime alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dlspec.data.tables.file_reader import make_file_reader
from dlspec.data.tables.input_files import find_input_files
from dlspec.data.tables.read_options import ReadOptions
from dlspec.data.tables.table import TEXT
from dlspec.errors import UserError, suggest
from dlspec.formatting import first_line
from dlspec.inference.onnx_files.model_reading import ExportedFile, read_exported_file
from dlspec.inference.onnx_files.row_answers import Answers, make_answers
from dlspec.inference.onnx_files.row_inputs import RowInputs
from dlspec.inference.output.prediction_files import check_output, open_prediction_file

CHUNK_ROWS = 4_096  # rows that pass through the file together
# How the training files wrote cells; all else is found again for each new file.
CELL_OPTIONS = ("decimal", "thousands", "missing")


@dataclass
class FilePrediction:
    """What was predicted with a file."""

    rows: int = 0
    problems: list[str] = field(default_factory=list)  # rows that could not be read


class _RefuseBadRows:
    """Refuses files with rows that can't be read."""

    def add(self, file: Path, line: int, reason: str) -> None:
        raise UserError(f"{file}:{line}: {reason}; mend the row, or predict with run=, which leaves it out")


def predict_files(
    name: str, source: Sequence[str], output: str, *, probabilities: bool = False, options: Mapping[str, Any]
) -> FilePrediction:
    """Predict the rows of files with an exported file.

    Args:
        name: the ONNX file
        source: the files of rows, or a glob
        output: the file to write; `-` for standard output
        probabilities: whether to write a column for each class
        options: options of reading that the user writes, such as `delimiter`

    Raises:
        UserError: if the exported file or an argument is wrong.
        DataError: if a file of rows can't be read.
    """
    check_output(output)
    files = find_input_files(list(source), setting="input")
    check_output(output, files)
    exported = read_exported_file(name)
    inputs, found = RowInputs(exported), FilePrediction()
    with open_prediction_file(output) as writer:
        for file, columns, rows in iterate_rows(files, make_options(exported, options)):
            answers, problems = _predict_rows(exported, inputs, columns, rows, probabilities)
            numbers = np.arange(found.rows + 1, found.rows + 1 + rows)
            writer.write({**_identify(exported, columns, numbers), **answers}, problems)
            found.problems += [f"{file}: row {found.rows + at + 1}: {reason}" for at, reason in problems.items()]
            found.rows += rows
            if writer.is_closed:
                break
    return found


def make_options(exported: ExportedFile, written: Mapping[str, Any]) -> ReadOptions:
    """Make the options of reading: cells as in the training files, all else as the user writes it."""
    data = exported.spec.get("data")
    trained = data if isinstance(data, Mapping) else {}
    try:
        return ReadOptions.model_validate({**{key: trained[key] for key in CELL_OPTIONS if key in trained}, **written})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(
            f"data.{name}: {first_line(first['msg'], 200)}; {suggest(name, ReadOptions.model_fields)}"
        ) from None


def iterate_rows(files: Sequence[Path], options: ReadOptions) -> Iterator[tuple[Path, dict[str, NDArray[Any]], int]]:
    """Yield each file's columns in chunks, with the number of rows."""
    reader = None
    for file in files:
        reader = reader or make_file_reader(file, options, _RefuseBadRows(), CHUNK_ROWS)
        for chunk in reader.read(file):
            columns = {
                name: np.array(cells, TEXT) if isinstance(cells, list) else cells
                for name, cells in chunk.columns.items()
            }
            for start in range(0, len(chunk.lines), CHUNK_ROWS):
                part = {name: each[start : start + CHUNK_ROWS] for name, each in columns.items()}
                yield file, part, min(CHUNK_ROWS, len(chunk.lines) - start)


def _predict_rows(
    exported: ExportedFile, inputs: RowInputs, columns: Mapping[str, NDArray[Any]], rows: int, probabilities: bool
) -> tuple[Answers, dict[int, str]]:
    outputs, kept, problems = run_rows(exported, inputs, columns, rows)
    answers = make_answers(exported, outputs, probabilities=probabilities)
    return {name: _spread(each, kept, rows) for name, each in answers.items()}, problems


def run_rows(
    exported: ExportedFile, inputs: RowInputs, columns: Mapping[str, NDArray[Any]], rows: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[int, str]]:
    """Run an exported file on some rows.

    Args:
        exported: the file
        inputs: how cells become its inputs
        columns: the cells of the rows
        rows: how many there are

    Returns:
        The outputs by name, of one row of no meaning if none can be read; the positions of the rows that can be read;
        and why the others can't.
    """
    for name in inputs.needed:
        if name not in columns:
            raise UserError(f"no column '{name}', which the file takes; {suggest(name, columns)}")
    given, problems = inputs.convert(columns)
    kept = np.array([row for row in range(rows) if row not in problems], np.int64)
    taken = kept if len(kept) else np.zeros(1, np.int64)  # for the names and shapes of the outputs
    names = [each.name for each in exported.session.get_outputs()]
    try:
        found = exported.session.run(None, {name: each[taken] for name, each in given.items()})
    except Exception as error:  # from onnxruntime, of many classes
        raise UserError(f"the exported file can't compute these rows: {first_line(error, 200)}") from None
    return dict(zip(names, found, strict=True)), kept, problems


def _spread(values: NDArray[Any], kept: NDArray[np.int64], rows: int) -> NDArray[Any]:
    """Put values at the positions of their rows; None for the others."""
    if len(kept) == rows:
        return values
    found = np.full(rows, None, object)
    for at, value in zip(kept.tolist(), values.tolist(), strict=False):
        found[at] = value
    return found


def _identify(exported: ExportedFile, columns: Mapping[str, NDArray[Any]], numbers: NDArray[np.int64]) -> Answers:
    own = exported.preparation.get("id")
    return {own: columns[own].astype(object)} if isinstance(own, str) and own in columns else {"row": numbers}
