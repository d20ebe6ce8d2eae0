"""Read an exported ONNX file that may come from a stranger: checked before onnxruntime sees it. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

from dlspec.errors import UserError, format_value
from dlspec.formatting import first_line
from dlspec.runs.file_access import open_to_read

MAX_FILE_BYTES = 2_000_000_000  # a message of ONNX has at most 2 GB
MAX_TEXT_BYTES = 100_000_000  # of one text of the metadata
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib", "pkg.torch")
MAX_CREATED = 2**28  # numbers of a tensor that an operator makes of a size in the file: 1 GB in float32
INT64, MAX_SIZES = 7, 16  # ONNX's number of the type; the most sizes of a tensor
SIZED_OPERATORS = ("ConstantOfShape", "Expand", "Range", "Tile", "Resize", "Pad", "OneHot")
LOOPS = ("Loop", "Scan", "SequenceMap")  # run as often as the file says, which can be for ever
FORMAT_KEY, FORMAT = "dlspec.format", "1"
INSTALL = "pip install 'dlspec[onnx]'"


@dataclass(frozen=True)
class ExportedFile:
    """An exported file: its session, and what it says of its inputs and outputs."""

    session: Any  # of onnxruntime
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    preparation: Mapping[str, Any]
    spec: Mapping[str, Any]


def read_exported_file(name: str) -> ExportedFile:
    """Read an exported file.

    Raises:
        UserError: if it is not a file that `export` wrote, is damaged, or needs other files.
    """
    onnx, runtime = _import("onnx"), _import("onnxruntime")
    content = _read_content(name)
    try:
        message = onnx.load_model_from_string(content)
    except Exception:  # from protobuf, which has no words for people
        raise UserError(f"'{name}' is not a complete ONNX file; export it again") from None
    _check_message(name, message, len(content))
    texts = {each.key: each.value for each in message.metadata_props}
    if texts.get(FORMAT_KEY) != FORMAT:
        raise UserError(f"'{name}' was not written by dlspec export with its preparation; export the run again")
    found = {key: _parse(name, texts, key) for key in ("inputs", "outputs", "preparation", "spec")}
    try:
        onnx.checker.check_model(message)
        session = _make_session(runtime, content)
    except Exception as error:  # from onnx and onnxruntime, of many classes
        raise UserError(f"'{name}' is damaged: {first_line(error, 200)}; export it again") from None
    inputs, outputs = (_as_mappings(name, found[key]) for key in ("inputs", "outputs"))
    preparation, spec = (_as_mapping(name, found[key]) for key in ("preparation", "spec"))
    return ExportedFile(session, inputs, outputs, preparation, spec)


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed, which file= needs; {INSTALL}") from None


def _read_content(name: str) -> bytes:
    """Read the file's bytes; links, pipes and files that are too large are refused."""
    try:
        descriptor = open_to_read(Path(name))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't read '{name}': {reason}; name a file that export wrote") from None
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"'{name}' has {size:,} bytes, more than an ONNX file can have; name another file")
        return file.read(MAX_FILE_BYTES)


def _make_session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


# ---- what a stranger's file may not have -----------------------------------------------------------------------------


def _check_message(name: str, message: Any, size: int) -> None:
    """Refuse weights in other files, weights that are larger than the file, loops, and operators of other libraries."""
    for tensor in _list_tensors(message):
        if tensor.external_data or tensor.data_location != 0:
            raise UserError(f"'{name}' keeps weights in other files, which are not read; export it again")
        if any(each < 0 for each in tensor.dims) or prod(tensor.dims) > size:
            found = f"a tensor of {' x '.join(map(str, tensor.dims[:8]))} numbers"
            raise UserError(f"'{name}' is damaged: {found} does not fit into its {size:,} bytes; export it again")
    _check_created_sizes(name, message)
    for node in _list_nodes(message):
        if node.domain not in KNOWN_DOMAINS:
            raise UserError(f"'{name}' has operators of {format_value(node.domain)}, which export never writes")
        if node.op_type in LOOPS:
            raise UserError(f"'{name}' has the operator {node.op_type}, which export never writes")


def _check_created_sizes(name: str, message: Any) -> None:
    """Refuse operators that make a huge tensor of a few numbers in the file."""
    to_array = import_module("onnx.numpy_helper").to_array
    sizes: dict[str, Any] = {}
    for graph in _list_graphs(message):
        sizes |= {each.name: each for each in getattr(graph, "initializer", ())}
        sizes |= {node.output[0]: each.t for node in graph.node if node.op_type == "Constant" and node.output
                  for each in node.attribute if each.HasField("t")}  # fmt: skip
    for node in _list_nodes(message):
        for given in node.input if node.op_type in SIZED_OPERATORS else ():
            tensor = sizes.get(given)
            if tensor is None or tensor.data_type != INT64 or prod(tensor.dims) > MAX_SIZES:
                continue
            try:
                created = prod(int(each) for each in to_array(tensor).reshape(-1))
            except ValueError as error:  # the data are not those of the shape
                raise UserError(f"'{name}' is damaged: {first_line(error, 200)}; export it again") from None
            if created > MAX_CREATED:
                found = f"its operator {format_value(node.op_type)} makes {created:,} numbers of nothing"
                raise UserError(f"'{name}' can't be run safely: {found}; export it again")


def _list_graphs(message: Any) -> Iterator[Any]:
    """Yield the graph, those inside of its nodes, and the functions."""
    waiting = [message.graph, *message.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for each in node.attribute:
                waiting += [*([each.g] if each.HasField("g") else []), *each.graphs]


def _list_nodes(message: Any) -> Iterator[Any]:
    return (node for graph in _list_graphs(message) for node in graph.node)


def _list_tensors(message: Any) -> Iterator[Any]:
    for graph in _list_graphs(message):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
    for node in _list_nodes(message):
        for each in node.attribute:
            yield from ([each.t] if each.HasField("t") else [])
            yield from each.tensors
            for sparse in [*([each.sparse_tensor] if each.HasField("sparse_tensor") else []), *each.sparse_tensors]:
                yield from (sparse.values, sparse.indices)


def _parse(name: str, texts: Mapping[str, str], key: str) -> Any:
    text = texts.get(f"dlspec.{key}", "")
    try:
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError(key)
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"'{name}' is damaged: its text dlspec.{key} is not JSON; export it again") from None


def _as_mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"'{name}' is damaged: its preparation is not a mapping; export it again")
    return value


def _as_mappings(name: str, value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise UserError(f"'{name}' is damaged: its inputs and outputs are not lists of mappings; export it again")
    return tuple(value)
