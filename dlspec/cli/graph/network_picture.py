"""Making the picture of a network: which boxes it has, folded, merged and stacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dlspec.cli.graph.layer_boxes import (
    FOLDED,
    BoxLine,
    LayerBox,
    make_input_boxes,
    make_layer_box,
    make_output_boxes,
    rename_sources,
)
from dlspec.cli.graph.repeated_blocks import merge_copies
from dlspec.cli.summary.layer_rows import SummaryRow, fold_rows, shorten_name
from dlspec.network.built_network import Network

# Modules (of torch.nn and parts/layers) whose layers share the box of the layer before, if the shape does not change.
STACKED_KINDS = frozenset({"activation", "batchnorm", "dropout", "instancenorm", "normalization", "stochastic_depth"})


@dataclass(frozen=True)
class NetworkPicture:
    """The boxes to draw and the blocks around them."""

    boxes: tuple[LayerBox, ...]  # in the order in which they run, inputs first, outputs last
    container_types: Mapping[str, str]  # types of the blocks and containers around the boxes, by name
    copies: Mapping[str, int]  # how many equal copies a box or block represents, by its name


def make_picture(
    network: Network,
    rows: Sequence[SummaryRow],
    container_types: Mapping[str, str],
    depth: int | None = None,
    *,
    expand: bool = False,
) -> NetworkPicture:
    """Make the picture of a network.

    Args:
        network: the built network.
        rows: the rows of its summary, one per layer.
        container_types: types of blocks and containers, by name.
        depth: everything deeper than this many names becomes one box; None draws every layer.
        expand: draw each of several equal copies instead of one.
    """
    boxes = [make_layer_box(layer, row) for layer, row in zip(network.layers, rows, strict=True)]
    boxes = [*make_input_boxes(network), *boxes, *make_output_boxes(network)]
    if depth is not None:
        boxes = _fold_boxes(boxes, rows, depth, container_types)
        container_types = {name: each for name, each in container_types.items() if name.count(".") + 1 < depth}
    copies: Mapping[str, int] = {}
    if not expand:
        boxes, copies = merge_copies(boxes)
    return NetworkPicture(tuple(_merge_activations_into_boxes(boxes, container_types)), container_types, copies)


def _fold_boxes(
    boxes: Sequence[LayerBox], rows: Sequence[SummaryRow], depth: int, container_types: Mapping[str, str]
) -> list[LayerBox]:
    """Merge the boxes that the summary shows as one row at this depth."""
    folded_rows = {row.name: row for row in fold_rows(rows, depth, container_types)}
    groups: dict[str, list[LayerBox]] = {}
    for box in boxes:
        groups.setdefault(box.name if box.name.startswith("<") else shorten_name(box.name, depth), []).append(box)
    names = {box.name: name for name, group in groups.items() for box in group}
    return rename_sources([_join_boxes(name, group, folded_rows.get(name)) for name, group in groups.items()], names)


def _join_boxes(name: str, group: Sequence[LayerBox], row: SummaryRow | None) -> LayerBox:
    if len(group) == 1 and group[0].name == name:
        return group[0]
    assert row is not None  # only inputs and outputs have no row, and they are never folded
    inside = {box.name for box in group}
    takes = tuple(each for box in group for each in box.takes if each.layer not in inside)
    written = tuple((box.name[len(name) :], box.lines, str(box.output), box.spec_path) for box in group)
    return LayerBox(name, (BoxLine(row.type, FOLDED, {}, row.count, row.remarks),), takes, group[-1].output, written)


def _merge_activations_into_boxes(boxes: Sequence[LayerBox], container_types: Mapping[str, str]) -> list[LayerBox]:
    """Put activations, normalisation and dropout into the box before them, if nothing else reads its output."""
    readers = Counter(each.layer for box in boxes for each in box.takes)
    found: dict[str, LayerBox] = {}
    names: dict[str, str] = {}
    for box in boxes:
        (box,) = rename_sources([box], names)
        before = found.get(box.takes[0].layer) if len(box.takes) == 1 else None
        if before is None or readers[before.name] > 1 or not _can_merge_into_box_before(box, before, container_types):
            found[box.name] = box
            continue
        found[before.name] = replace(before, lines=before.lines + box.lines, output=box.output)
        names[box.name] = before.name
        readers[before.name] = readers[box.name]
    return list(found.values())


def _can_merge_into_box_before(box: LayerBox, before: LayerBox, container_types: Mapping[str, str]) -> bool:
    is_beside = box.lines[0].kind in STACKED_KINDS and box.output.shape == before.output.shape
    is_layer = before.lines[0].kind not in ("input", FOLDED)
    return (
        is_beside
        and is_layer
        and find_container(box.name, container_types) == find_container(before.name, container_types)
    )


def find_container(name: str, container_types: Mapping[str, str]) -> str:
    """Return the name of the innermost block or container of a box, or '' if there is none.

    The sum at the end of a Residual has the name of the Residual itself, and so counts as inside it.
    """
    words = name.split(".")
    around = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((each for each in around if each in container_types), "")
