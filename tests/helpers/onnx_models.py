"""Exported files that are written by hand, in milliseconds: a graph of ONNX with the texts that `export` adds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from dlspec.data.encoding.fitted_table import FittedTable


def make_exported_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Mapping[str, tuple[onnx.ValueInfoProto, str, Sequence[str]]],
    fitted: FittedTable,
    data: Mapping[str, Any],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Make an exported file.

    Args:
        nodes: what it computes
        inputs: its inputs
        outputs: its outputs by name: each with its target and the classes of that
        fitted: its preparation
        data: the section `data` of its spec
        weights: its initial values
    """
    values = [value for value, _, _ in outputs.values()]
    graph = helper.make_graph(nodes, "model", inputs, values, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    message = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    texts = {
        "inputs": [{"name": each.name} for each in inputs],
        "outputs": [{"name": name, "target": target, "classes": list(classes)}
                    for name, (_, target, classes) in outputs.items()],
        "preparation": fitted.to_json(), "spec": {"data": dict(data)},
    }  # fmt: skip
    props = {f"dlspec.{key}": json.dumps(value) for key, value in texts.items()}
    helper.set_model_props(message, {"dlspec.format": "1", **props})
    return message


def write_model(message: onnx.ModelProto, name: str = "model.onnx") -> str:
    """Write a file, and return its name."""
    Path(name).write_bytes(message.SerializeToString())
    return name
