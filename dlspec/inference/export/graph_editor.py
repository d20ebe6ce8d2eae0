"""Add operators to a graph of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

ML, CONTRIB = "ai.onnx.ml", "com.microsoft"


class GraphEditor:
    """Adds operators to a graph of ONNX.

    Args:
        model: the file's message, whose inputs have the names of `inputs`
    """

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.graph
        self.helper, self.arrays = import_module("onnx.helper"), import_module("onnx.numpy_helper")
        self.types = import_module("onnx").TensorProto
        self.first: list[Any] = []  # nodes before those of the network
        self.last: list[Any] = []
        self._count = 0

    def add(
        self, operator: str, inputs: Sequence[str], domain: str = "", is_last: bool = False, **settings: Any
    ) -> str:
        """Add an operator, and return the name of its output.

        Args:
            operator: its name
            inputs: the names of its inputs
            domain: its domain; "" for ONNX's own
            is_last: whether it comes after the network
            settings: its attributes
        """
        self._count += 1
        name = f"dlspec_{self._count}"
        node = self.helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **settings)
        (self.last if is_last else self.first).append(node)
        return name

    def add_constant(self, values: Any) -> str:
        """Add a constant array, and return its name."""
        self._count += 1
        name = f"dlspec_{self._count}"
        self.graph.initializer.append(self.arrays.from_array(np.asarray(values), name))
        return name

    def rename_node_output(self, old: str, new: str) -> None:
        """Give the output of an added operator another name."""
        for node in (*self.first, *self.last):
            for at, name in enumerate(node.output):
                if name == old:
                    node.output[at] = new

    def finish(self) -> None:
        """Put all operators in order into the graph, and declare their domains."""
        nodes = [*self.first, *self.graph.node, *self.last]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        known = {each.domain for each in self.model.opset_import}
        for domain, version in ((ML, 4), (CONTRIB, 1)):
            if domain not in known and any(node.domain == domain for node in nodes):
                self.model.opset_import.append(self.helper.make_opsetid(domain, version))
