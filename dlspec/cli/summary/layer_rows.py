"""The rows of a summary: one per layer with its parameters and costs, or one per block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.optim import Optimizer

from dlspec.analysis.costs import NO_COST, LayerCost, LayerCosts
from dlspec.network.built_network import BuiltLayer, Network


@dataclass(frozen=True)
class SummaryRow:
    """One row of a summary: a layer, or the layers of a block."""

    name: str
    type: str
    output: str  # shape and layout
    parameters: tuple[nn.Parameter, ...] = ()  # without those that an earlier row has
    cost: LayerCost = NO_COST
    notes: tuple[str, ...] = ()  # tied and shared weights
    groups: tuple[int, ...] = ()  # numbers of the optimizer's groups that train the parameters
    shortcuts: tuple[str, ...] = ()  # those that were made for residuals
    frozen_until: tuple[int, ...] = ()  # epochs in which some of the parameters start to be trained

    @property
    def count(self) -> int:
        """Number of elements of all parameters."""
        return sum(each.numel() for each in self.parameters)

    @property
    def remarks(self) -> str:
        """Remarks about the weights, as one string: frozen, tied, shared."""
        frozen = [not each.requires_grad for each in self.parameters]
        words = ["frozen" if all(frozen) else "partly frozen"] if any(frozen) else []
        return ", ".join([*words, *(f"frozen until epoch {each}" for each in self.frozen_until), *self.notes])


def make_layer_rows(
    network: Network,
    costs: LayerCosts,
    optimizer: Optimizer | None = None,
    frozen_until: Mapping[nn.Parameter, int | None] | None = None,
) -> list[SummaryRow]:
    """Make one row per layer, in the order in which they run.

    Args:
        network: the built network.
        costs: costs by the names of layers; layers that are missing cost nothing.
        optimizer: if it has multiple groups, each row shows those that train its layer.
        frozen_until: for each frozen parameter the epoch in which it starts to be trained, None for never.
    """
    groups = _number_parameter_groups(optimizer)
    owners: dict[nn.Parameter | nn.Module, str] = {}
    rows = []
    for layer in network.layers:
        parameters = list(layer.module.parameters())
        own = tuple(each for each in parameters if each not in owners)
        trained = sorted({groups[each] for each in own if each in groups})
        cost, notes = costs.get(layer.name, NO_COST), _list_sharing_notes(layer, owners)
        later = sorted({epoch for each in own if (epoch := (frozen_until or {}).get(each))})
        shortcuts = (layer.shortcut,) if layer.shortcut else ()
        row = SummaryRow(layer.name, layer.type, str(layer.output), own, cost, notes, tuple(trained), shortcuts)
        rows.append(replace(row, frozen_until=tuple(later)))
        owners |= dict.fromkeys((*own, *([] if layer.is_reused else [layer.module])), layer.name)
    return rows


def _list_sharing_notes(layer: BuiltLayer, owners: Mapping[nn.Parameter | nn.Module, str]) -> tuple[str, ...]:
    if layer.is_reused:
        return (f"shares {owners[layer.module]}",) if any(True for _ in layer.module.parameters()) else ()
    return tuple(dict.fromkeys(f"tied to {owners[each]}" for each in layer.module.parameters() if each in owners))


def _number_parameter_groups(optimizer: Optimizer | None) -> dict[nn.Parameter, int]:
    """Return the group number of each parameter; empty if the optimizer has fewer than two groups."""
    groups = [] if optimizer is None or len(optimizer.param_groups) < 2 else optimizer.param_groups
    return {each: at for at, group in enumerate(groups) for each in group["params"]}


def fold_rows(rows: Iterable[SummaryRow], depth: int, container_types: Mapping[str, str]) -> list[SummaryRow]:
    """Merge rows whose names have the same first `depth` parts into one row with their sum and their last output.

    Args:
        rows: one row per layer.
        depth: the number of parts (`stages.0` has two) after which names are cut.
        container_types: types of blocks and containers, by name.
    """
    found: dict[str, list[SummaryRow]] = {}
    for row in rows:
        found.setdefault(shorten_name(row.name, depth), []).append(row)
    return [_merge_rows(name, each, container_types) for name, each in found.items()]


def _merge_rows(name: str, rows: Sequence[SummaryRow], container_types: Mapping[str, str]) -> SummaryRow:
    if len(rows) == 1 and rows[0].name == name:
        return rows[0]
    return SummaryRow(
        name,
        container_types.get(name) or _format_repeated_type(name, rows, container_types),
        rows[-1].output,
        tuple(each for row in rows for each in row.parameters),
        sum((row.cost for row in rows), NO_COST),
        tuple(dict.fromkeys(note for row in rows for note in row.notes)),
        tuple(sorted({group for row in rows for group in row.groups})),
        tuple(dict.fromkeys(each for row in rows for each in row.shortcuts)),
        tuple(sorted({epoch for row in rows for epoch in row.frozen_until})),
    )


def _format_repeated_type(name: str, rows: Sequence[SummaryRow], container_types: Mapping[str, str]) -> str:
    """Format the type of merged copies of a repeated entry: `basic x 4`."""
    depth = name.count(".") + 2
    types = {shorten_name(row.name, depth): row.type for row in rows}
    copies = [container_types.get(each, type) for each, type in types.items()]
    return f"{copies[0]} x {len(copies)}" if len(set(copies)) == 1 else f"{len(copies)} parts"


def shorten_name(name: str, depth: int) -> str:
    """Return the first `depth` parts of a dotted name."""
    return ".".join(name.split(".")[:depth])
