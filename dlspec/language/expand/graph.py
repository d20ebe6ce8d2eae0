"""A network as typed nodes, expanded: no params, blocks or repeats are left in it. Building it needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import KeyPath
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.parse.model_inputs import ModelInput
from dlspec.language.parse.part import Part
from dlspec.layouts import Layout

MODEL = ""
"""As a node's id: the model's own inputs."""


@dataclass(frozen=True)
class Node:
    """One layer to build, its formulas evaluated.

    `path` is its module's place in the state dict, `id` the same, but where a module is used once more (`is_shared`).
    `inputs` are what its `forward` takes, by position or by the argument's name. `entry` is where it was written,
    `origins` say for its settings where the params in them were; `blocks` are the blocks that it could have named.
    `tie` are the paths, the nearest first, at which the weight that it takes for its own may stand.
    """

    id: str
    path: tuple[str, ...]
    part: Part
    inputs: Mapping[int | str, OutputRef]
    entry: KeyPath = ()
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    layout: Layout | None = None
    tie: tuple[str, ...] = ()
    parametrize: str | None = None
    is_shared: bool = False
    blocks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path as the state dict writes it."""
        return ".".join(self.path)

    @property
    def problem_path(self) -> KeyPath:
        """The place of a mistake of the whole layer: its name's, but where a param brought that from elsewhere."""
        path = self.part.settings_path
        return path if path[: len(self.entry)] == self.entry else self.entry


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run. `outputs` are the model's by name; a single one is 'output'.

    `absent` are the parts, as written, of entries that do not stand: an `if` removed them, or nothing uses their block.
    `holders` are the blocks and containers that nodes stand in: what each is, by how its nodes' ids begin.
    `own` is what the model brings along for its training, params computed: `loss`, `init`, `freeze`.
    """

    nodes: tuple[Node, ...] = ()
    inputs: tuple[ModelInput, ...] = ()
    outputs: Mapping[str, OutputRef] = field(default_factory=dict)
    output_paths: Mapping[str, KeyPath] = field(default_factory=dict)
    absent: tuple[Part, ...] = ()
    container_types: Mapping[str, str] = field(default_factory=dict)
    training_settings: Mapping[str, Any] = field(default_factory=dict)

    def find_used_outputs(self) -> dict[str, tuple[str, ...]]:
        """For each node the outputs that something reads ('' is the first), in the order of reading."""
        read = [ref for node in self.nodes for ref in node.inputs.values()] + list(self.outputs.values())
        used: dict[str, dict[str, None]] = {}
        for ref in read:
            used.setdefault(ref.node, {}).setdefault(ref.output)
        return {node: tuple(outputs) for node, outputs in used.items()}
