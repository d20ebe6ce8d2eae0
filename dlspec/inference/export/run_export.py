"""Export a finished run to a file, and check the file against the run before it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from dlspec.errors import UserError, format_value, suggest
from dlspec.inference.export.check_rows import CHECK_BATCHES, CheckRows, make_check_rows
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.file_check import CheckResult, check_fewer_steps, check_file, compute_expected, is_mixed
from dlspec.inference.export.file_inputs import CategoryTable, ImageResize, TextTable
from dlspec.inference.export.file_metadata import make_metadata
from dlspec.inference.export.model_tracing import EXAMPLE_ROWS, find_axes, trace_model
from dlspec.inference.export.onnx_file import OnnxSession, check_onnx_installed, write_onnx
from dlspec.inference.export.onnx_rows import make_onnx_inputs
from dlspec.inference.export.program_files import (
    check_compiler,
    read_aoti,
    read_pt2,
    write_aoti,
    write_pt2,
)
from dlspec.inference.export.refusals import refuse_what_has_no_file
from dlspec.inference.export.weights_file import check_weights, write_weights
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.output.prediction_files import check_place
from dlspec.runs.file_names import PREPARE_FILE
from dlspec.runs.io import write_bytes, write_json

ExportFormat = Literal["onnx", "pt2", "aoti", "safetensors"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
ENDINGS: Mapping[str, ExportFormat] = {".onnx": "onnx", ".pt2": "pt2", ".safetensors": "safetensors"}
EXAMPLE = "output=model.onnx"


@dataclass(frozen=True)
class ExportResult:
    """What was exported, and how it was checked."""

    path: Path
    format: ExportFormat
    inputs: Mapping[str, str]  # type and sizes of each, as people read them
    outputs: tuple[str, ...]
    check: CheckResult | None  # None for weights, which are compared to the last bit
    rows_kind: str  # which rows the check used
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()  # written beside it

    @property
    def lines(self) -> list[str]:
        """Describe the export for people."""
        shown = ", ".join([str(self.path), *map(str, self.files)])
        lines = [f"{shown}: {self.format}"]
        lines += [f"  takes {name}: {sizes}" for name, sizes in self.inputs.items()]
        lines += [f"  returns {', '.join(self.outputs)}"] if self.outputs else []
        if self.check is None:
            lines.append("  checked: read again, all tensors are equal to the run's")
        else:
            labels = f", {self.check.changed} of {self.check.labels:,} labels changed" if self.check.labels else ""
            batches = ", ".join(map(str, CHECK_BATCHES))
            lines.append(
                f"  checked: {self.check.rows} {self.rows_kind}, in batches of {batches}: "
                f"largest difference {self.check.largest:.1e}{labels}"
            )
        return lines + [f"  note: {each}" for each in self.notes]


def choose_format(output: str, name: str | None) -> ExportFormat:
    """Choose the format of a file by its name, or as written.

    Args:
        output: the file
        name: the format as the user writes it, None for the one that the file's name says

    Raises:
        UserError: if the format is unknown, or the name does not say one.
    """
    if name is None:
        found = ENDINGS.get(Path(output).suffix.lower())
        if found is None:
            raise UserError(
                f"the output {format_value(output)} does not say its format; end it in .onnx, .pt2 or .safetensors, "
                f"or write format= with one of {', '.join(EXPORT_FORMATS)}"
            )
        return found
    for each in EXPORT_FORMATS:
        if each == name:
            return each
    raise UserError(f"unknown format {format_value(name)}; {suggest(name, EXPORT_FORMATS)}")


def export_run(run: LoadedRun, output: str, name: str | None = None, *, prepare: bool = True) -> ExportResult:
    """Export a run, loaded on the CPU.

    Args:
        run: the run
        output: the file to write
        name: the format, None for the one that the file's name says
        prepare: whether the preparation of rows goes into the file

    Raises:
        UserError: if the run has no form in this format, or the file differs from the run; then nothing is written.
    """
    path, form = Path(output), choose_format(output, name)
    check_place(path, "model.onnx")
    if form == "safetensors":
        return _export_weights(run, path)
    {"onnx": check_onnx_installed, "aoti": check_compiler}.get(form, _do_nothing)()
    refuse_what_has_no_file(run, form, prepare=prepare)
    model = ExportedModel(run, run.preparation if prepare else None).eval()
    rows = make_check_rows(run, model)
    expected = compute_expected(run, model, rows)
    examples = [_take_example(each) for each in rows.inputs]
    program = trace_model(model, examples, keep_recurrent=form != "aoti")  # which compiles only PyTorch's operators
    axes = find_axes(program, model)
    content = _WRITERS[form](program, model, make_metadata(run, model, axes))
    check = check_file(_make_runner(form, content, model, rows), model, expected, rows)
    if form == "pt2" or (form == "onnx" and all(each.conversion is None for each in model.inputs)):
        check_fewer_steps(_make_input_runner(form, content, model), model, axes, rows.inputs)
    write_bytes(path, content)
    labels = OnnxSession(content).outputs if form == "onnx" else [each.name for each in model.outputs]
    files = _write_preparation(run, path) if model.plans and model.notes else ()
    inputs = _describe_inputs(model, axes, has_strings=form == "onnx")
    return ExportResult(path, form, inputs, tuple(labels), check, rows.kind, tuple(_list_notes(run, model)), files)


def _do_nothing() -> None:
    pass


def _take_example(values: torch.Tensor) -> torch.Tensor:
    """Take two rows; one row twice where there is only one."""
    return values[[0, min(1, len(values) - 1)]][:EXAMPLE_ROWS].clone()


def _make_runner(form: ExportFormat, content: bytes, model: ExportedModel, rows: CheckRows) -> Callable[[slice], Any]:
    """Make what runs an exported file, loaded again, on some of the rows."""
    if form == "onnx":
        session = OnnxSession(content)
        arrays = make_onnx_inputs(model, rows)
        return lambda part: session.run({name: each[part] for name, each in arrays.items()})
    run_program = {"pt2": read_pt2, "aoti": read_aoti}[form](content)
    names = [each.name for each in model.outputs]

    def run_part(part: slice) -> Mapping[str, Any]:
        with torch.inference_mode():
            found = run_program(*(each[part] for each in rows.inputs))
        return {name: each.numpy() for name, each in zip(names, found, strict=True)}

    return run_part


def _make_input_runner(form: ExportFormat, content: bytes, model: ExportedModel) -> Callable[[Any], Any]:
    """Make what runs an exported file, loaded again, on tensors."""
    names = [each.name for each in model.outputs]
    if form == "onnx":
        session = OnnxSession(content)
        inputs = [each.name for each in model.inputs]
        return lambda given: session.run({name: each.numpy() for name, each in zip(inputs, given, strict=True)})
    program = read_pt2(content)

    def run_inputs(given: Any) -> Mapping[str, Any]:
        with torch.inference_mode():
            return {name: each.numpy() for name, each in zip(names, program(*given), strict=True)}

    return run_inputs


def _describe_inputs(model: ExportedModel, axes: Any, *, has_strings: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    computed = ""  # lengths that are computed of the text before them
    for each, sizes in zip(model.inputs, axes, strict=True):
        if has_strings and isinstance(each.conversion, ImageResize):
            found[each.name] = f"{str(each.dtype).removeprefix('torch.')} (batch, height, width, {sizes[-1]}), any size"
        elif has_strings and each.conversion is not None:
            what = "texts" if isinstance(each.conversion, TextTable) else "a category each"
            found.setdefault(each.column, f"strings (batch), {what}; '' where missing")
            computed = f"{each.name}_lengths" if isinstance(each.conversion, TextTable) else computed
        elif each.name != computed or not has_strings:
            shape = ", ".join(map(str, sizes))
            found[each.name] = f"{str(each.dtype).removeprefix('torch.')} ({shape}), {each.meaning}"
            if isinstance(each.conversion, CategoryTable):
                found[each.name] += " (the metadata list them)"
    return found


def _list_notes(run: LoadedRun, model: ExportedModel) -> list[str]:
    notes = list(model.notes)
    if is_mixed(run):
        notes.append(
            f"the run predicts with trainer.precision={run.backend.precision.name}, the file in float32; "
            "it was checked against the network in float32"
        )
    return notes


def _write_preparation(run: LoadedRun, path: Path) -> tuple[Path, ...]:
    """Write what was fitted beside the file."""
    beside = path.with_name(f"{path.stem}.{PREPARE_FILE}")
    assert run.preparation is not None  # otherwise the model had no plans
    check_place(beside, PREPARE_FILE)
    write_json(beside, run.preparation.to_json())
    return (beside,)


def _export_weights(run: LoadedRun, path: Path) -> ExportResult:
    """Export the weights alone, with what was fitted beside them."""
    content = write_weights(run)
    check_weights(run, content)
    files = () if run.preparation is None else _write_preparation(run, path)
    write_bytes(path, content)
    return ExportResult(path, "safetensors", {}, (), None, "", files=files)


_WRITERS: Mapping[str, Callable[[Any, ExportedModel, Mapping[str, str]], bytes]] = {
    "onnx": write_onnx,
    "pt2": write_pt2,
    "aoti": write_aoti,
}
