"""What is wrong with a model as a whole, seen when all of it was expanded: outputs that nothing takes, no layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dlspec.errors import Code, KeyPath
from dlspec.language.expressions.evaluator import extract_expression
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import CONTAINERS, SHARE
from dlspec.language.parse.part import Part
from dlspec.language.problems import Problems


def check_outputs_used(
    model: Block, present_entries: Collection[KeyPath], used_paths: Collection[KeyPath], problems: Problems
) -> None:
    """An output that nothing takes was forgotten, or its layer is too much; likewise an input.

    Args:
        model: the model as written.
        stood: the places of the entries that stand somewhere.
        read: the places of the entries and inputs that something takes.
        problems: grows by what is wrong.
    """
    for path in (each for each in present_entries if each not in used_paths):
        fix = "remove it, or take it: from: NAME, or outputs: [NAME, ...]"
        problems.add(Code.UNUSED, path, "nothing takes this output", fix)
    around = {path[: len(each.path)] for path in present_entries for each in model.all_blocks()}
    blocks = [model, *(each for each in model.all_blocks() if each.path in around)]
    for each in (each for block in blocks for each in block.inputs):
        if each.path not in used_paths:
            fix, at_value = f"take it, from: {each.name}, or remove it", isinstance(each.path[-1], int)
            problems.add(Code.UNUSED, each.path, f"nothing takes the input '{each.name}'", fix, at_value=at_value)


def check_not_empty(model: Block, is_empty: bool, problems: Problems) -> None:
    """A model of which no layer is left is a mistake."""
    if is_empty and model.entries:
        found = "no layer is left: each has an 'if' or stands 0 times"
        fix = "let one stand: what is removed everywhere is no network"
        problems.add(Code.EMPTY_MODEL, (*model.path, "layers"), found, fix)


def find_absent_parts(model: Block, present_entries: Collection[KeyPath]) -> Iterator[Part]:
    """The parts of entries that stand nowhere: their names are checked all the same."""
    blocks = [model, *model.all_blocks()]
    names = {each.name for each in blocks} | {SHARE, *CONTAINERS}
    for entry in (each for block in blocks for each in block.all_entries()):
        if entry.path not in present_entries and entry.type not in names and extract_expression(entry.type) is None:
            yield entry.part
