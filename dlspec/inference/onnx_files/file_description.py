"""The texts in an exported file: how its rows are prepared, where they came from, and what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dlspec.data.dataset import Target, make_field_name
from dlspec.data.encoding.encoded_rows import WEIGHT_SUFFIX
from dlspec.data.encoding.fields import make_field, make_target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.kind import SAVED_KINDS, load_kinds
from dlspec.data.sources import SOURCES, DataSource
from dlspec.errors import DataError, UserError, format_value
from dlspec.formatting import first_line
from dlspec.inference.onnx_files.model_reading import ExportedFile

PROBABILITIES, INDEX = ".probabilities", ".index"  # how the names of outputs end
IN_PYTHON = "arrays"  # the type of data that were given in Python
RUN_FIX = "predict with run=FOLDER"


@dataclass(frozen=True)
class FileOutput:
    """One output of an exported file that is read."""

    name: str
    target: Target | None  # None: as the network returns it

    def convert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert what the file returned to predictions as `PredictedRows` has them."""
        if self.target is None or not (self.target.classes or self.target.labels):
            return values
        count = len(self.target.classes or self.target.labels)
        if values.ndim < 2 or values.shape[-1] != count:
            found = f"the file returns {values.shape[-1] if values.ndim > 1 else 'no'} probabilities"
            raise UserError(f"{found} for the {count} classes of '{self.target.name}'; export the run again")
        return values[..., 1] if count == 2 and not self.target.labels else values


@dataclass(frozen=True)
class FileDescription:
    """How an exported file is used."""

    preparation: FittedTable  # encodes rows
    source: DataSource | None  # where the training rows came from; None: from Python
    outputs: tuple[FileOutput, ...]

    @property
    def targets(self) -> list[Target]:
        """The predicted targets, with the shape of one sample."""
        return [each.target for each in self.outputs if each.target is not None]


def describe_file(file: ExportedFile) -> FileDescription:
    """Read the texts that describe an exported file.

    Raises:
        UserError: if it is damaged, or can only be used with its run.
    """
    _check_kinds(file)
    try:
        fitted = FittedTable.from_json(file.preparation)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the preparation of the file is damaged: {first_line(error, 200)}; export it again") from None
    return FileDescription(fitted, _read_source(file), tuple(_read_outputs(file, fitted)))


def _check_kinds(file: ExportedFile) -> None:
    """Refuse kinds of columns of the user's own, whose code is not in the file."""
    load_kinds()
    for saved in (file.preparation.get("columns"), file.preparation.get("targets")):
        for name, column in saved.items() if isinstance(saved, Mapping) else ():
            kind = column.get("kind") if isinstance(column, Mapping) else None
            if isinstance(kind, str) and kind not in SAVED_KINDS:
                raise UserError(f"'{name}' is of the kind {format_value(kind)}, which file= can't read; {RUN_FIX}")


def _read_source(file: ExportedFile) -> DataSource | None:
    section = file.spec.get("data")
    name = section.get("type") if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or name == IN_PYTHON:
        return None
    if not isinstance(name, str) or name not in SOURCES:
        raise UserError(f"the file's data.type {format_value(name)} is not one of dlspec's own; {RUN_FIX}")
    try:
        return SOURCES[name].model_validate({key: each for key, each in section.items() if key != "type"})
    except ValidationError as error:
        first = error.errors()[0]
        found = f"data.{'.'.join(map(str, first['loc']))}: {first_line(first['msg'], 200)}"
        raise UserError(f"the spec of the file is damaged: {found}; export the run again") from None


# ---- what is predicted -----------------------------------------------------------------------------------------------


def _read_outputs(file: ExportedFile, fitted: FittedTable) -> Iterator[FileOutput]:
    returned = {each.name for each in file.session.get_outputs()}
    for each in file.outputs:
        name, target, classes = (each.get(key) for key in ("name", "target", "classes"))
        if (
            not isinstance(name, str)
            or name not in returned
            or not isinstance(target, str)
            or not isinstance(classes, list)
        ):
            raise UserError("the file does not describe its outputs; export the run again")
        if not name.endswith(INDEX):
            is_single = f"{name.removesuffix(PROBABILITIES)}{INDEX}" in returned
            yield FileOutput(name, _find_target(target, tuple(map(str, classes)), is_single, fitted))


def _find_target(name: str, classes: Sequence[str], is_single: bool, fitted: FittedTable) -> Target | None:
    """Describe a target; None for an output that no loss calls a prediction.

    Args:
        name: its name
        classes: its classes or labels
        is_single: whether a row, step or pixel has one of the classes, not any number of labels
        fitted: the preparation
    """
    columns = {make_field_name(each): column for each, column in fitted.targets.items()}
    plan = next((each for each in fitted.fields if each.name == name), None)
    if classes and name not in columns:
        raise UserError(f"the file predicts the tokens of the text '{name}', which file= does not write; {RUN_FIX}")
    if name in columns:
        has_weights = bool(fitted.weight) or getattr(columns[name], "missing", "") == "ignore"
        found = make_target(name, columns[name], weights=f"{name}{WEIGHT_SUFFIX}" if has_weights else "")
    elif plan is not None:
        found = Target(name, "numbers", make_field(plan, fitted.inputs, has_lengths=False).shape)
    else:
        return None
    if is_single:
        return replace(found, kind="classes", classes=tuple(classes), labels=(), next_of="")
    return replace(found, kind="numbers", classes=(), labels=tuple(classes), next_of="")


def name_values(outputs: Sequence[FileOutput], values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return predictions by target; by output for those without a target.

    Args:
        outputs: the outputs that are read
        values: what the file returned, by output
    """
    return {
        each.name if each.target is None else each.target.name: each.convert(np.asarray(values[each.name]))
        for each in outputs
    }
