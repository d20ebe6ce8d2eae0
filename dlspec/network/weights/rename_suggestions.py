"""Suggest `weights.rename` for a file that has the tensors of a model under other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlspec.network.weights.name_groups import list_numbers, replace_numbers
from dlspec.network.weights.rename_patterns import RenamePattern, rename_tensor

Shapes = Mapping[str, tuple[int, ...]]
_Prefixes = tuple[str, str]  # in the file, in the model

MAX_COMPARED = 2000  # names; more would take seconds, and nothing is suggested


def suggest_renames(unused: Shapes, missing: Shapes, used: Sequence[str]) -> dict[str, str]:
    """Find patterns that give tensors of a file the names that a model lacks, where there is only one way to do so.

    Args:
        unused: Names in the file that the model does not have, with the shapes of their tensors.
        missing: Names in the model that the file does not have, with their shapes.
        used: Other names in the file, which no pattern may match.

    Returns:
        Patterns of names in the file with the names that they become; {} if names or shapes leave a choice.
    """
    if len(unused) + len(missing) + len(used) > MAX_COMPARED:
        return {}
    left, found = dict(unused), dict[_Prefixes, dict[str, str]]()
    while left:
        name = next(iter(left))
        prefixes, renamed = _find_prefixes(name, left, missing)
        if renamed:
            found[prefixes] = renamed
        for each in renamed or [name]:
            del left[each]
    expected = {name: new for each in found.values() for name, new in each.items()}
    # Where two tensors would become one, the names are not the only thing that differs.
    if len(set(expected.values())) < len(expected):
        return {}
    for renames in (_join_copies(found), _write_patterns(found), _write_first_parts(found)):
        if renames and _gives(renames, expected, [*unused, *used]):
            return renames
    return {}


def _find_prefixes(name: str, left: Shapes, missing: Shapes) -> tuple[_Prefixes, dict[str, str]]:
    """Find the prefix of a name to replace, and all names that change with it; nothing where there is a choice."""
    ways: dict[_Prefixes, dict[str, str]] = {}
    for new, shape in missing.items():
        prefixes = _split_off_common_end(name, new) if shape == left[name] else None
        if prefixes is not None and prefixes not in ways:
            ways[prefixes] = _rename_all(prefixes, left)
    fitting = {
        key: each for key, each in ways.items() if all(missing.get(new) == left[old] for old, new in each.items())
    }
    most = max(map(len, fitting.values()), default=0)
    best = [key for key, each in fitting.items() if len(each) == most]
    same_copy = [key for key in best if list_numbers(key[0]) == list_numbers(key[1])]
    chosen = best if len(best) == 1 else same_copy
    return (chosen[0], fitting[chosen[0]]) if len(chosen) == 1 else (("", ""), {})


def _split_off_common_end(name: str, new: str) -> _Prefixes | None:
    """Split off the last parts that two names share; None if they share none."""
    parts, others, count = name.split("."), new.split("."), 0
    while count < min(len(parts), len(others)) and parts[-1 - count] == others[-1 - count]:
        count += 1
    if count == 0:
        return None
    return ".".join(parts[: len(parts) - count]), ".".join(others[: len(others) - count])


def _rename_all(prefixes: _Prefixes, names: Shapes) -> dict[str, str]:
    before, after = (f"{each}." if each else "" for each in prefixes)
    return {name: after + name[len(before) :] for name in names if name.startswith(before)}


def _write_patterns(found: Mapping[_Prefixes, object]) -> dict[str, str]:
    return {_write_pattern(before): _write_pattern(after) for before, after in found}


def _write_first_parts(found: Mapping[_Prefixes, Mapping[str, str]]) -> dict[str, str]:
    """Write a pattern for the first part of each name where a prefix is added, as `*` would match all of the file."""
    renames: dict[str, str] = {}
    for (before, after), names in found.items():
        firsts = dict.fromkeys(name.partition(".")[0] for name in names) if not before else {}
        renames |= {_write_pattern(first): _write_pattern(f"{after}.{first}") for first in firsts}
        renames |= {} if firsts else {_write_pattern(before): _write_pattern(after)}
    return renames


def _write_pattern(prefix: str) -> str:
    return f"{prefix}.*" if prefix else "*"


def _join_copies(found: Mapping[_Prefixes, object]) -> dict[str, str]:
    """Write one pattern for all copies of a block: `blocks.*.attn.*` becomes `blocks.*.attention.*`."""
    return dict(_iterate_joined(found))


def _iterate_joined(found: Mapping[_Prefixes, object]) -> Iterator[tuple[str, str]]:
    for before, after in found:
        is_same_copy = list_numbers(before) == list_numbers(after)
        pair = (replace_numbers(before), replace_numbers(after)) if is_same_copy else (before, after)
        yield _write_pattern(pair[0]), _write_pattern(pair[1])


def _gives(renames: Mapping[str, str], expected: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether patterns give the expected names, and change no other."""
    patterns = [RenamePattern(pattern, (each,)) for pattern, each in renames.items()]
    return all(rename_tensor(name, patterns)[1] == (expected.get(name, name),) for name in names)
