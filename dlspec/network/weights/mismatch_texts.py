"""Describe what differs between the tensors of a file and those of a network, each cause once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dlspec.network.weights.mismatches import COUNTER_SUFFIX, Mismatches, ShapeMismatch, TypeMismatch
from dlspec.network.weights.name_groups import (
    MAX_SHOWN,
    NamePattern,
    find_patterns,
    format_patterns,
    format_rest,
    replace_numbers,
)

_Mismatch = TypeVar("_Mismatch", ShapeMismatch, TypeMismatch)


def describe_mismatches(found: Mismatches) -> list[str]:
    """Describe all that differs, one sentence for each kind of difference; [] if everything fits."""
    return [
        *([describe_shapes(found.shapes)] if found.shapes else []),
        *([describe_types(found.types)] if found.types else []),
        *([describe_unused(found)] if found.unused else []),
        *([describe_missing(found)] if found.missing else []),
        *(describe_conflict(first, second) for first, second, _ in found.conflicts),
    ]


def describe_shapes(shapes: Sequence[ShapeMismatch]) -> str:
    """Describe tensors of other shapes: both names of a single one, the shapes of each group of more."""
    if len(shapes) == 1:
        only = shapes[0]
        names = " and ".join(f"'{each}'" for each in only.files)
        return f"{names} in the file has shape {only.shape}, but the model's '{only.name}' has {only.own}"
    groups = _group(shapes, lambda each: (replace_numbers(each.name), _format_source(each), each.shape, each.own))
    texts = [f"{_format_name(each)}: {each[0].shape} instead of {each[0].own}" for each in groups]
    return f"{len(shapes)} tensors of the file have other shapes than the model's: {_join_groups(groups, texts)}"


def describe_types(types: Sequence[TypeMismatch]) -> str:
    """Describe tensors of other data types."""
    if len(types) == 1:
        only = types[0]
        return f"'{only.file}' in the file is {only.dtype}, but the model's '{only.name}' is {only.own}"
    groups = _group(types, lambda each: (replace_numbers(each.name), each.dtype, each.own))
    texts = [f"{_format_name(each)}: {each[0].dtype} instead of {each[0].own}" for each in groups]
    return f"{len(types)} tensors of the file have other types than the model's: {_join_groups(groups, texts)}"


def describe_unused(found: Mismatches) -> str:
    """Describe tensors of the file that the model does not have, with what they were renamed to."""
    own = [name for name, new in found.unused if name == new]
    unused = {name for name, _ in found.unused}
    patterns = find_patterns(own, [each for each in found.file_shapes if each not in unused])
    renamed = [f"{name} (renamed to {new})" for name, new in found.unused if name != new]
    shown = [*([format_patterns(patterns)] if patterns else []), *renamed[:MAX_SHOWN]]
    rest = [name for name, new in found.unused if name != new][MAX_SHOWN:]
    names = ", ".join([*shown, *format_rest(rest)])
    return f"no name of the model matches {format_count(len(found.unused), 'tensor')} of the file: {names}"


def describe_missing(found: Mismatches) -> str:
    """Describe tensors of the model that the file does not have."""
    names = format_patterns(find_missing_patterns(found))
    return f"the file has nothing for {format_count(len(found.missing), 'tensor')} of the model: {names}"


def describe_conflict(first: str, second: str) -> str:
    """Describe two names of one tensor for which the file has different values."""
    return f"'{first}' and '{second}' are one tensor in the model, but differ in the file"


def format_count(count: int, what: str) -> str:
    """Format a count with its noun: `1 tensor`, `3 tensors`."""
    return f"{count} {what}" + ("s" if count != 1 else "")


def _group(items: Iterable[_Mismatch], key: Callable[[_Mismatch], object]) -> list[list[_Mismatch]]:
    groups: dict[object, list[_Mismatch]] = {}
    for each in items:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _join_groups(groups: Sequence[Sequence[_Mismatch]], texts: Sequence[str]) -> str:
    names: list[str] = [each.name for group in groups[MAX_SHOWN:] for each in group]
    return "; ".join([*texts[:MAX_SHOWN], *format_rest(names)])


def _format_source(each: ShapeMismatch) -> str:
    """Format the names in the file if they differ from the model's."""
    return "" if each.files == (each.name,) else replace_numbers(" and ".join(each.files))


def _format_name(group: Sequence[_Mismatch]) -> str:
    first = group[0]
    name = first.name if len(group) == 1 else f"{replace_numbers(first.name)} ({len(group)})"
    source = _format_source(first) if isinstance(first, ShapeMismatch) else ""
    return f"{name} (in the file {source})" if source else name


def find_missing_patterns(found: Mismatches) -> list[NamePattern]:
    """Find patterns of the names in the model that the file does not have; counters may be among them."""
    missing = set(found.missing)
    others = [each for each in found.own_shapes if each not in missing and not each.endswith(COUNTER_SUFFIX)]
    return find_patterns(found.missing, others)
