"""From a network to the boxes of its picture."""

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

# Whose layers go into the box of the layer before, where the shape stays: modules of torch.nn and of parts/layers.
STACKED_KINDS = frozenset({"activation", "batchnorm", "dropout", "instancenorm", "normalization", "stochastic_depth"})


@dataclass(frozen=True)
class NetworkPicture:
    """Boxes in the order in which they run, the inputs first and the outputs last.

    `container_types` are the blocks and containers around them, by name; `copies` is how many equal ones are drawn once.
    """

    boxes: tuple[LayerBox, ...]
    container_types: Mapping[str, str]
    copies: Mapping[str, int]


def make_picture(
    network: Network,
    rows: Sequence[SummaryRow],
    container_types: Mapping[str, str],
    depth: int | None = None,
    *,
    expand: bool = False,
) -> NetworkPicture:
    """What to draw. What is deeper than `depth` names is one box, and so are equal copies, but with `expand`."""
    boxes = [make_layer_box(layer, row) for layer, row in zip(network.layers, rows, strict=True)]
    boxes = [*make_input_boxes(network), *boxes, *make_output_boxes(network)]
    if depth is not None:
        boxes = _fold_boxes(boxes, rows, depth, container_types)
        container_types = {name: each for name, each in container_types.items() if name.count(".") + 1 < depth}
    copies: Mapping[str, int] = {}
    if not expand:
        boxes, copies = merge_copies(boxes)
    return NetworkPicture(tuple(_stack_boxes(boxes, container_types)), container_types, copies)


def _fold_boxes(
    boxes: Sequence[LayerBox], rows: Sequence[SummaryRow], depth: int, container_types: Mapping[str, str]
) -> list[LayerBox]:
    """A box for each row that the summary has with that depth."""
    folded_rows = {row.name: row for row in fold_rows(rows, depth, container_types)}
    groups: dict[str, list[LayerBox]] = {}
    for box in boxes:
        groups.setdefault(box.name if box.name.startswith("<") else shorten_name(box.name, depth), []).append(box)
    names = {box.name: name for name, group in groups.items() for box in group}
    return rename_sources([_join_boxes(name, group, folded_rows.get(name)) for name, group in groups.items()], names)


def _join_boxes(name: str, group: Sequence[LayerBox], row: SummaryRow | None) -> LayerBox:
    if len(group) == 1 and group[0].name == name:
        return group[0]
    assert row is not None  # a layer has one
    inside = {box.name for box in group}
    takes = tuple(each for box in group for each in box.takes if each.layer not in inside)
    written = tuple((box.name[len(name) :], box.lines, str(box.output), box.spec_path) for box in group)
    return LayerBox(name, (BoxLine(row.type, FOLDED, {}, row.count, row.remarks),), takes, group[-1].output, written)


def _stack_boxes(boxes: Sequence[LayerBox], container_types: Mapping[str, str]) -> list[LayerBox]:
    """Activations, normalisation and dropout in the box before them, where nothing else takes what that gives."""
    readers = Counter(each.layer for box in boxes for each in box.takes)
    found: dict[str, LayerBox] = {}
    names: dict[str, str] = {}
    for box in boxes:
        (box,) = rename_sources([box], names)
        before = found.get(box.takes[0].layer) if len(box.takes) == 1 else None
        if before is None or readers[before.name] > 1 or not _belongs_in(box, before, container_types):
            found[box.name] = box
            continue
        found[before.name] = replace(before, lines=before.lines + box.lines, output=box.output)
        names[box.name] = before.name
        readers[before.name] = readers[box.name]
    return list(found.values())


def _belongs_in(box: LayerBox, before: LayerBox, container_types: Mapping[str, str]) -> bool:
    is_beside = box.lines[0].kind in STACKED_KINDS and box.output.shape == before.output.shape
    is_layer = before.lines[0].kind not in ("input", FOLDED)
    return (
        is_beside
        and is_layer
        and find_container(box.name, container_types) == find_container(before.name, container_types)
    )


def find_container(name: str, container_types: Mapping[str, str]) -> str:
    """The name of the innermost block or container that a box stands in, '' where there is none.

    A residual's sum has the residual's own name.
    """
    words = name.split(".")
    around = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((each for each in around if each in container_types), "")
