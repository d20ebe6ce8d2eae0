"""The rows of a summary: each layer with its own parameters and its costs, and blocks folded into one row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from dlspec.analysis.costs import NO_COST, LayerCost, LayerCosts
from dlspec.network.built_network import BuiltLayer, Network


@dataclass(frozen=True)
class SummaryRow:
    """A layer, or several: `parameters` are those that no row above has, `groups` the optimizer's that train them.

    `until` are the epochs from which on some learn that do not before.
    """

    name: str
    type: str
    output: str
    parameters: tuple[nn.Parameter, ...] = ()
    cost: LayerCost = NO_COST
    notes: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    frozen_until: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return sum(each.numel() for each in self.parameters)

    @property
    def remarks(self) -> str:
        """What is special about its weights."""
        frozen = [not each.requires_grad for each in self.parameters]
        words = ["frozen" if all(frozen) else "partly frozen"] if any(frozen) else []
        return ", ".join([*words, *(f"frozen until epoch {each}" for each in self.frozen_until), *self.notes])


def make_layer_rows(
    network: Network,
    costs: LayerCosts,
    optimizer: Optimizer | None = None,
    frozen_until: Mapping[nn.Parameter, int | None] | None = None,
) -> list[SummaryRow]:
    """A row a layer, in the order in which they run; `until` is that of `Freezing`."""
    groups = _find_groups(optimizer)
    owners: dict[nn.Parameter | nn.Module, str] = {}
    rows = []
    for layer in network.layers:
        parameters = list(layer.module.parameters())
        own = tuple(each for each in parameters if each not in owners)
        trained = sorted({groups[each] for each in own if each in groups})
        cost, notes = costs.get(layer.name, NO_COST), _list_notes(layer, owners)
        later = sorted({epoch for each in own if (epoch := (frozen_until or {}).get(each))})
        rows.append(
            SummaryRow(layer.name, layer.type, str(layer.output), own, cost, notes, tuple(trained), tuple(later))
        )
        owners |= dict.fromkeys((*own, *([] if layer.is_reused else [layer.module])), layer.name)
    return rows


def _list_notes(layer: BuiltLayer, owners: Mapping[nn.Parameter | nn.Module, str]) -> tuple[str, ...]:
    if layer.is_reused:
        return (f"shares {owners[layer.module]}",) if any(True for _ in layer.module.parameters()) else ()
    return tuple(dict.fromkeys(f"tied to {owners[each]}" for each in layer.module.parameters() if each in owners))


def _find_groups(optimizer: Optimizer | None) -> dict[nn.Parameter, int]:
    """Which of an optimizer's groups, where it has several, each parameter is in."""
    groups = [] if optimizer is None or len(optimizer.param_groups) < 2 else optimizer.param_groups
    return {each: at for at, group in enumerate(groups) for each in group["params"]}


def fold_rows(rows: Iterable[SummaryRow], depth: int, container_types: Mapping[str, str]) -> list[SummaryRow]:
    """The rows of all that stands deeper than `depth` names in one, under the first names; the last output is theirs.

    `container_types` are the blocks and containers by their names.
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
        container_types.get(name) or _format_repeat(name, rows, container_types),
        rows[-1].output,
        tuple(each for row in rows for each in row.parameters),
        sum((row.cost for row in rows), NO_COST),
        tuple(dict.fromkeys(note for row in rows for note in row.notes)),
        tuple(sorted({group for row in rows for group in row.groups})),
        tuple(sorted({epoch for row in rows for epoch in row.frozen_until})),
    )


def _format_repeat(name: str, rows: Sequence[SummaryRow], container_types: Mapping[str, str]) -> str:
    """`basic x 4` for an entry's copies."""
    depth = name.count(".") + 2
    types = {shorten_name(row.name, depth): row.type for row in rows}
    copies = [container_types.get(each, type) for each, type in types.items()]
    return f"{copies[0]} x {len(copies)}" if len(set(copies)) == 1 else f"{len(copies)} parts"


def shorten_name(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])
