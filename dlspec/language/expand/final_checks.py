"""Checks of a whole model after expanding it: unused outputs and inputs, no layers, absent parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dlspec.errors import Code, KeyPath
from dlspec.language.expand.entry_names import get_written_name
from dlspec.language.expand.output_names import EntryOutput, NameLookup
from dlspec.language.expressions.expression_parsing import extract_expression
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import CONTAINERS, SHARE, Entry
from dlspec.language.parse.part import Part
from dlspec.language.problems import Problems


def check_outputs_used(
    model: Block, present_entries: Collection[KeyPath], used_paths: Collection[KeyPath], problems: Problems
) -> None:
    """Report outputs and inputs that nothing uses.

    Args:
        model: the model as written.
        present_entries: the paths of the entries that are present at least once.
        used_paths: the paths of the entries and inputs that are used.
        problems: receives a problem for each unused output or input.
    """
    for path in (each for each in present_entries if each not in used_paths):
        fix = "use it in a later entry (from: NAME) or in 'outputs', or remove the entry"
        problems.add(Code.UNUSED, path, "nothing uses the output of this entry", fix)
    around = {path[: len(each.path)] for path in present_entries for each in model.all_blocks()}
    blocks = [model, *(each for each in model.all_blocks() if each.path in around)]
    for each in (each for block in blocks for each in block.inputs):
        if each.path not in used_paths:
            fix, at_value = f"use it in an entry (from: {each.name}), or remove it", isinstance(each.path[-1], int)
            problems.add(Code.UNUSED, each.path, f"nothing uses the input '{each.name}'", fix, at_value=at_value)


def check_copies_used(
    copies: Collection[tuple[Entry, int, EntryOutput]], names: NameLookup, problems: Problems
) -> None:
    """Report repeated entries of which nothing uses some copies.

    Args:
        copies: every copy of a repeated entry: the entry, the copy's number and its output.
        names: knows which outputs are used.
        problems: receives a problem for each entry with unused copies.
    """
    reported: set[KeyPath] = set()
    for entry, index, output in copies:
        is_unused = output.is_present and output.find_nodes().isdisjoint(names.used_nodes)
        # An entry that is unused as a whole is reported already.
        if not is_unused or entry.path in reported or entry.path not in names.used_paths:
            continue
        reported.add(entry.path)
        name = get_written_name(entry)
        fix = f"take all copies, from: {name}.*" if name else "name the entry, and take all copies: from: NAME.*"
        if "$" in name:
            fix = "use the output of each copy by its name"
        problems.add(Code.UNUSED, entry.path, f"nothing uses the output of copy {index}", fix)


def check_not_empty(model: Block, is_empty: bool, present_entries: Collection[KeyPath], problems: Problems) -> None:
    """Report a model without any layer, unless its present entries are wrong, which was reported.

    Args:
        model: the model as written.
        is_empty: whether its graph has no nodes.
        present_entries: the paths of the entries that are present at least once.
        problems: receives the problem.
    """
    if is_empty and model.entries and not (present_entries and len(problems)):
        cause = "its containers are empty" if present_entries else "every layer is removed by an 'if' or 'repeat: 0'"
        found = f"the network is empty: {cause}"
        fix = "keep at least one layer"
        problems.add(Code.EMPTY_MODEL, (*model.path, "layers"), found, fix)


def find_absent_parts(model: Block, present_entries: Collection[KeyPath]) -> Iterator[Part]:
    """Yield the parts of absent entries, whose names are checked nevertheless."""
    blocks = [model, *model.all_blocks()]
    names = {each.name for each in blocks} | {SHARE, *CONTAINERS}
    for entry in (each for block in blocks for each in block.all_entries()):
        if entry.path not in present_entries and entry.type not in names and extract_expression(entry.type) is None:
            yield entry.part
