"""Merging of equal consecutive copies in a picture, such as the blocks of a GPT or a residual network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from dlspec.cli.graph.layer_boxes import LayerBox, rename_sources
from dlspec.cli.summary.layer_rows import shorten_name
from dlspec.network.built_network import InputEdge


@dataclass(frozen=True)
class BoxGroup:
    """A layer or block of a network: all boxes whose names start with `name`."""

    name: str
    boxes: tuple[LayerBox, ...]

    @cached_property
    def names(self) -> dict[str, str]:
        """The part of each box's name after the group's name."""
        return {box.name: box.name[len(self.name) :] for box in self.boxes}

    @cached_property
    def sources(self) -> dict[tuple[str, str], int]:
        """The group's inputs from other boxes, numbered; a key is the name of the box and of its output."""
        takes = [(each.layer, each.output) for box in self.boxes for each in box.takes if each.layer not in self.names]
        return {each: at for at, each in enumerate(dict.fromkeys(takes))}

    @cached_property
    def structure(self) -> list[Any]:
        """Everything in which two copies must be equal: all properties except the sources of their inputs."""
        return [
            (
                self.names[box.name],
                box.lines,
                str(box.output),
                box.spec_path,
                [self._describe_edge(each) for each in box.takes],
            )
            for box in self.boxes
        ]

    def _describe_edge(self, edge: InputEdge) -> tuple[str | int, str, str]:
        outside = self.sources.get((edge.layer, edge.output))
        return (self.names[edge.layer] if outside is None else outside, edge.output, str(edge.value))


def merge_copies(boxes: Sequence[LayerBox]) -> tuple[list[LayerBox], dict[str, int]]:
    """Keep only the first of equal consecutive copies.

    Returns:
        The remaining boxes, and the number of copies by the name of the first one.
    """
    found, copies = list(boxes), dict[str, int]()
    for depth in range(1, max((box.name.count(".") for box in boxes), default=0) + 2):
        names: dict[str, str] = {}
        removed: set[str] = set()
        for run in _group_copies(found, depth):
            first, *others = run
            copies[first.name] = len(run)
            for unit in others:
                removed |= unit.names.keys()
                names |= {name: first.name + suffix for name, suffix in unit.names.items()}
        found = rename_sources((box for box in found if box.name not in removed), names)
    return found, {name: count for name, count in copies.items() if count > 1}


def _group_copies(boxes: Sequence[LayerBox], depth: int) -> Iterator[list[BoxGroup]]:
    """Yield runs of consecutive copies: equal groups, each of which reads the output of the one before.

    A group is all boxes whose names start with the same `depth` parts.
    """
    readers: dict[str, set[str]] = {}
    for box in boxes:
        for each in box.takes:
            readers.setdefault(each.layer, set()).add(box.name)
    deep = [box for box in boxes if box.name.count(".") + 1 >= depth and not box.name.startswith("<")]
    run: list[BoxGroup] = []
    for name, group in groupby(deep, key=lambda box: shorten_name(box.name, depth)):
        unit = BoxGroup(name, tuple(group))
        if run and _is_next_copy(run, unit, readers):
            run.append(unit)
            continue
        if run:
            yield run
        run = [unit]
    if run:
        yield run


def _is_next_copy(run: Sequence[BoxGroup], candidate: BoxGroup, readers: Mapping[str, set[str]]) -> bool:
    """Whether `candidate` is the next copy in a run: it equals the run's last group and reads its output.

    No layer outside these two groups may read the last group's outputs.
    """
    last = run[-1]
    if shorten_name(last.name, last.name.count(".")) != shorten_name(candidate.name, candidate.name.count(".")):
        return False
    if len(last.boxes) != len(candidate.boxes) or last.structure != candidate.structure:
        return False
    inside = last.names.keys() | candidate.names.keys()
    if any(reader not in inside for name in last.names for reader in readers.get(name, ())):
        return False
    chained = _match_inputs_of_copies(last, candidate)
    return chained is not None and (len(run) == 1 or chained == _match_inputs_of_copies(run[-2], last))


def _match_inputs_of_copies(previous_copy: BoxGroup, next_copy: BoxGroup) -> tuple[tuple[str, str], ...] | None:
    """Return for each input of `next_copy` the box in `previous_copy`, and its output, that the input comes from.

    Both are empty where the two groups have the same source outside. Return None if `next_copy` does not follow
    `previous_copy`.
    """
    found = []
    for (one, word), (other, its_word) in zip(previous_copy.sources, next_copy.sources, strict=True):
        if other in previous_copy.names:
            found.append((previous_copy.names[other] or ".", its_word))
        elif (one, word) == (other, its_word):
            found.append(("", ""))
        else:
            return None
    return tuple(found) if any(name for name, _ in found) else None
