"""Merging of a file's model into the model of the files before it.

Keys are merged one by one as in Hydra, with three exceptions: an entry that names another layer replaces the old entry
completely, null removes an entry, and a param that is no longer used is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, Finding, KeyPath, format_value, suggest
from dlspec.language.entry_merging import find_layer_name, is_entry, names_different_part
from dlspec.language.parse.entry import find_expression_words

# A list in one file can't be merged with a mapping in another.
_KIND_NAMES: Mapping[type, str] = {list: "a list", dict: "a mapping"}
_STRUCTURAL_KEYS = ("layers", "params", "blocks")


@dataclass(frozen=True)
class MergeConflict:
    """A value that can't be merged into the one before it; `path` leads to it from the top of the config."""

    path: KeyPath
    finding: Finding


@dataclass
class ModelMerger:
    """Merges the models of files in their order: `model` is the result so far."""

    model: Any = None
    conflicts: list[MergeConflict] = field(default_factory=list)

    def add(self, newer: Any, path: KeyPath = ("model",)) -> None:
        """Merge a file's model into the model of the files before it."""
        before = self.model
        self.model = self._merge(before, newer, path)
        if isinstance(before, dict):
            drop_unused_params(before, self.model, newer)

    def _merge(self, before: Any, newer: Any, path: KeyPath) -> Any:
        if isinstance(newer, dict) and (before is None or isinstance(before, dict)):
            if names_different_part(before, newer, path):
                return newer
            return self._merge_keys(before or {}, newer, path)
        self._check_list_or_mapping(before, newer, path)
        return newer

    def _merge_keys(self, before: dict[str, Any], newer: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        layers_without_dash = [key for key, value in newer.items() if is_layer_without_dash(key, value)]
        if path[-1] == "layers" and layers_without_dash:
            fix = f"write '- {layers_without_dash[0]}' and '- ' before every entry; in a mapping every entry has a name"
            self.conflicts.append(
                MergeConflict(
                    (*path, layers_without_dash[0]),
                    Finding(Code.YAML_SYNTAX, f"no '- ' before '{layers_without_dash[0]}'", fix),
                )
            )
            return {}
        result = dict(before)
        for key, value in newer.items():
            inner = (*path, key)
            if value is None and _is_named_entry(inner):
                self._remove_entry(result, inner)
            else:
                result[key] = self._merge(before.get(key), value, inner)
        return result

    def _remove_entry(self, entries: dict[str, Any], path: KeyPath) -> None:
        name = str(path[-1])
        if name not in entries:
            fix = suggest(name, entries) or "write a layer after it"
            found = f"null removes an entry, but entry '{name}' does not exist"
            self.conflicts.append(MergeConflict(path, Finding(Code.UNKNOWN_OUTPUT, found, fix)))
        entries.pop(name, None)

    def _check_list_or_mapping(self, before: Any, newer: Any, path: KeyPath) -> None:
        old, new = (_KIND_NAMES.get(type(each), "") for each in (before, newer))
        if old and new and old != new and path[-1] in _STRUCTURAL_KEYS:
            whole = "a list here too, which replaces the other list"
            fix = f"write {whole if old == 'a list' else 'a mapping here too'}, or extend another file"
            found = f"'{path[-1]}' is {new} here, but {old} in the file that this one extends"
            self.conflicts.append(MergeConflict(path, Finding(Code.CONFIG_CLASH, found, fix)))
        elif isinstance(newer, dict) and is_entry(path[:-1]) and find_layer_name({str(path[-1]): newer}) is not None:
            self._check_shorthand(str(path[-1]), before, newer, path)

    def _check_shorthand(self, name: str, before: Any, newer: dict[str, Any], path: KeyPath) -> None:
        """Refuse settings merged into a short spelling: merged into `Dropout: 0.5` they would lose the 0.5."""
        from dlspec.parts.torch.torch_parts import LAYERS

        setting = LAYERS[name].value_setting if name in LAYERS else None
        if setting is not None and setting not in newer:
            found = f"settings can't be merged into the short spelling '{name}: {format_value(before).strip(chr(39))}'"
            fix = f"write its value here too: {setting}: {before}"
            self.conflicts.append(MergeConflict(path, Finding(Code.CONFIG_CLASH, found, fix)))


def _is_named_entry(path: KeyPath) -> bool:
    """Whether the path leads to an entry of `layers`."""
    return len(path) > 1 and path[-2] == "layers"


def is_layer_without_dash(key: str, value: Any) -> bool:
    """Whether a key of a mapping of named entries is an entry without its dash: `Flatten:` or `Linear: 10`."""
    if not key[:1].isupper() or isinstance(value, str):
        return False
    from dlspec.parts.torch.torch_parts import LAYERS

    if key not in LAYERS:
        return False
    named = find_layer_name(value)
    return named is None or (named[0] == "key" and named[1] in LAYERS[key].settings) or ", " in named[1]


# ---- params that are no longer used --------------------------------------------------------------------------------


def drop_unused_params(before: Any, after: Any, newer: Any) -> None:
    """Remove from `after` the params that were used in `before` and no longer are, except those set in `newer`.

    Without it, replacing a model's layers would leave params that only the old layers used, which is an error.

    Args:
        before: the model before merging.
        after: the model after merging; it is changed in place.
        newer: what was merged into it.
    """
    for old, new, new_own in _iterate_merged_blocks(before, after, newer):
        kept = _get_mapping(new_own, "params").keys()
        read_before = find_expression_words(old)
        while unused := (read_before & _get_mapping(new, "params").keys()) - find_expression_words(new) - kept:
            new["params"] = {name: each for name, each in new["params"].items() if name not in unused}


def _iterate_merged_blocks(before: Any, after: Any, newer: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any], Any]]:
    """Yield (before, after, newer) of the model and of each block that is in both `before` and `after`."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return
    yield before, after, newer
    old, new, new_own = (_get_mapping(each, "blocks") for each in (before, after, newer))
    for name in new:
        yield from _iterate_merged_blocks(old.get(name), new[name], new_own.get(name))


def _get_mapping(tree: Any, key: str) -> dict[str, Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}
