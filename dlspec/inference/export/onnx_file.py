"""Write a traced network as a file in the ONNX format, and run such a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.model_tracing import Axes, find_axes, silence_exporters
from dlspec.inference.export.onnx_conversions import add_raw_inputs, name_traced_input
from dlspec.inference.export.onnx_recurrent import make_translations

OPSET = 20  # of ONNX: the first with all operators that are used here
MAX_ONNX_BYTES = 1_900_000_000  # a file in this format has at most 2 GB
INSTALL = "pip install 'dlspec[onnx]'"


def import_onnx(name: str) -> ModuleType:
    """Import a library of the extra `onnx`; UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed, which files in the ONNX format need; {INSTALL}") from None


def check_onnx_installed() -> None:
    """Check that everything is installed that writing and checking a file needs."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_onnx(name)


def write_onnx(program: torch.export.ExportedProgram, model: ExportedModel, metadata: Mapping[str, str]) -> bytes:
    """Convert a traced network to the content of an ONNX file.

    Args:
        program: the traced network
        model: what was traced
        metadata: texts that the file contains beside the network

    Raises:
        UserError: if an operator has no form in ONNX, or the file would be too large.
    """
    size = sum(each.numel() * each.element_size() for each in program.state_dict.values())
    if size > MAX_ONNX_BYTES:
        raise UserError(f"the weights take {size / 1e9:.1f} GB, and an ONNX file has at most 2 GB; write format=pt2")
    names = [name_traced_input(each) for each in model.inputs]
    try:
        with silence_exporters():
            made = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, verbose=False, input_names=names,
                output_names=[each.name for each in model.outputs],
                custom_translation_table=make_translations(),
            )  # fmt: skip
    except Exception as error:  # from the exporter
        found = f"PyTorch can't convert this network to ONNX: {first_line(error, 300)}"
        raise UserError(f"{found}; write format=pt2") from None
    assert made is not None  # as no file was named
    message = made.model_proto
    name_axes(message, find_axes(program, model))
    add_raw_inputs(message, model)
    import_onnx("onnx.helper").set_model_props(message, dict(metadata))
    import_onnx("onnx.checker").check_model(message)
    content: bytes = message.SerializeToString()
    return content


def name_axes(message: Any, axes: Axes) -> None:
    """Name the sizes of inputs and outputs that may differ, as they were declared.

    Args:
        message: the file's message; it is changed
        axes: the sizes of each input as they were traced

    Raises:
        UserError: if the exporter fixed a size that the traced network leaves open.
    """
    names: dict[str, str] = {}
    for value, sizes in zip(message.graph.input, axes, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            if isinstance(size, int):
                dim.dim_value = size
            elif not dim.dim_param or dim.dim_param.isdigit():
                found = f"the {size} of '{value.name}' was declared to differ, and the ONNX exporter fixed it"
                raise UserError(f"{found} at {dim.dim_value or dim.dim_param}; write format=pt2")
            else:
                names[dim.dim_param] = size
                dim.dim_param = size
    for value in (*message.graph.output, *message.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            dim_name = dim.dim_param
            if dim_name.isdigit():
                dim.dim_value = int(dim_name)
            elif dim_name:
                dim.dim_param = names.get(dim_name, dim_name)


@contextmanager
def _name_missing_operators() -> Iterator[None]:
    """Convert an error of onnxruntime to a UserError."""
    try:
        yield
    except Exception as error:  # of classes of its own
        found = f"onnxruntime can't run this network: {first_line(error, 300)}"
        raise UserError(f"{found}; nothing was written. Write format=pt2") from None


class OnnxSession:
    """Runs the content of an ONNX file that was just written.

    Args:
        content: the file's bytes

    Raises:
        UserError: if onnxruntime lacks an operator that the file has.
    """

    def __init__(self, content: bytes) -> None:
        runtime = import_onnx("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        with _name_missing_operators():
            self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [each.name for each in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the outputs."""
        with _name_missing_operators():
            found: Sequence[Any] = self.session.run(None, dict(inputs))
        return {name: np.asarray(each) for name, each in zip(self.outputs, found, strict=True)}
