"""An expanded network: nodes without params, blocks and repeats. Building the network needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import KeyPath
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.parse.model_inputs import ModelInput
from dlspec.language.parse.part import Part
from dlspec.layouts import Layout

MODEL = ""  # the node id of the model's inputs


@dataclass(frozen=True)
class Node:
    """One call of a layer, with evaluated settings."""

    id: str  # the path joined by dots; in a second use of a module, that of the entry with `share`
    path: tuple[str, ...]  # of the module in the state dict
    part: Part
    inputs: Mapping[int | str, OutputRef]  # arguments of `forward`, by position or by name
    entry: KeyPath = ()  # where it is written in the config
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)  # of a setting: where its param is written
    layout: Layout | None = None
    lengths_of: OutputRef | None = None  # the output whose steps its own are, as written in the spec
    tie: tuple[str, ...] = ()  # possible paths of the module whose weight it uses, the nearest first
    parametrize: str | None = None
    is_shared: bool = False  # uses the module of another node again
    # Pairs of outputs: the layer is built only if the two of each pair differ in shape.
    only_if_unequal: tuple[tuple[OutputRef, OutputRef], ...] = ()
    blocks: tuple[str, ...] = ()  # names of the blocks that it could call, to suggest them for an unknown layer

    @property
    def name(self) -> str:
        """The module's path as in the state dict."""
        return ".".join(self.path)

    @property
    def problem_path(self) -> KeyPath:
        """The path for problems of the whole layer: that of its type, unless a param contains it."""
        path = self.part.settings_path
        return path if path[: len(self.entry)] == self.entry else self.entry


@dataclass(frozen=True)
class Graph:
    """The nodes of a network, in the order in which they run."""

    nodes: tuple[Node, ...] = ()
    inputs: tuple[ModelInput, ...] = ()
    outputs: Mapping[str, OutputRef] = field(default_factory=dict)  # by name; a single one is called 'output'
    output_paths: Mapping[str, KeyPath] = field(default_factory=dict)  # where the outputs are written
    absent: tuple[Part, ...] = ()  # parts that an `if` removed, and those in blocks that nothing calls
    container_types: Mapping[str, str] = field(default_factory=dict)  # of blocks and containers, by the start of ids
    training_settings: Mapping[str, Any] = field(default_factory=dict)  # `loss`, `init`, `freeze` of the model

    def find_used_outputs(self) -> dict[str, tuple[str, ...]]:
        """Return for each node the outputs that are used, in the order of their first use; '' is the first output."""
        read = [ref for node in self.nodes for ref in node.inputs.values()] + list(self.outputs.values())
        used: dict[str, dict[str, None]] = {}
        for ref in read:
            used.setdefault(ref.node, {}).setdefault(ref.output)
        return {node: tuple(outputs) for node, outputs in used.items()}
