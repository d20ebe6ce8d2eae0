"""Traced networks as files of PyTorch: torch.export's `.pt2`, and AOTInductor's package."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dlspec.compat.torch_aoti import compile_package, load_package
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.model_tracing import silence_exporters
from dlspec.inference.export.recurrent_operators import use_pytorch_operators

COMPILERS = ("c++", "g++", "clang++")


def write_pt2(program: torch.export.ExportedProgram, model: ExportedModel, metadata: Mapping[str, str]) -> bytes:
    """Convert a traced network to the content of a `.pt2` file.

    Args:
        program: the traced network; it is changed
        model: what was traced
        metadata: texts that the file contains beside the network
    """
    buffer = io.BytesIO()
    use_pytorch_operators(program)
    with silence_exporters():
        torch.export.save(program, buffer, extra_files=dict(metadata))
    return buffer.getvalue()


def read_pt2(content: bytes) -> Callable[..., Any]:
    """Load the content of a `.pt2` file that was just written."""
    with silence_exporters():
        return torch.export.load(io.BytesIO(content)).module()


def check_compiler() -> None:
    """Check that there is a compiler of C++; UserError if not."""
    if not any(map(shutil.which, COMPILERS)):
        raise UserError("format=aoti compiles the network and found no C++ compiler; install g++, or write format=pt2")


def write_aoti(program: torch.export.ExportedProgram, model: ExportedModel, metadata: Mapping[str, str]) -> bytes:
    """Compile a traced network to the content of an AOTInductor package, for machines like this one.

    Args:
        program: the traced network
        model: what was traced
        metadata: is not part of the package

    Raises:
        UserError: if PyTorch can't compile it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        try:
            with silence_exporters():
                compile_package(program, path)
        except Exception as error:  # from the compiler
            found = f"PyTorch can't compile this network: {first_line(error, 300)}"
            raise UserError(f"{found}; write format=pt2") from None
        return path.read_bytes()


def read_aoti(content: bytes) -> Callable[..., Any]:
    """Load the content of a package that was just written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(content)
        return load_package(path)
