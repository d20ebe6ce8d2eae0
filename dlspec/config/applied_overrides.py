"""Apply values from the command line to a composed config.

An override needs no `+` for a key that the YAML does not contain. An override that can't be applied is reported
together with what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import get_plain_value
from dlspec.config.job_config import change_config
from dlspec.config.model_merging import drop_unused_params
from dlspec.config.overrides import command_line_location, path_from_key, replaces_section
from dlspec.errors import Code, Finding, KeyPath, Problem, SpecError, format_value, suggest
from dlspec.formatting import quote_for_shell
from dlspec.language.entry_merging import ENTRY_KEYS, find_layer_keys, is_entry, names_different_part
from dlspec.language.problems import format_path


@dataclass
class ChangedSections:
    """What overrides change in a config, as plain values, and the problems of those that can't be applied."""

    sections: dict[str, Any]
    removed: list[str]
    problems: list[Problem]


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> list[Problem]:
    """Set (or with `~` delete) values in the config, and return the problems of overrides that can't be applied."""
    names = [str(key) for key in config if key != "hydra"]
    changed = change_sections(names, lambda name: get_plain_value(config, name), overrides)
    change_config(config, changed.sections, changed.removed)
    return changed.problems


def change_sections(
    names: Collection[str], read_section: Callable[[str], Any], overrides: Sequence[Override]
) -> ChangedSections:
    """Apply overrides to the sections of a config that they name.

    Args:
        names: the names of all sections.
        read_section: returns a new copy of a section's plain value.
        overrides: the values to set or delete.
    """
    changed = _change_by_section(names, read_section, overrides)
    after = changed.sections.get("model")
    if isinstance(after, dict):
        before = read_section("model") if "model" in names else None
        if after != before:
            # `model.layers.0.Conv2d.out_channels=64` may replace the only use of a param: an unused param is allowed.
            drop_unused_params(before, after, _collect_model_overrides(overrides))
    return changed


def change_config_values(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's plain values with some changed by key, as overrides on the command line would change them.

    Raises:
        SpecError: if a key can't be changed.
    """
    config = OmegaConf.create(dict(tree))
    lines = {key: f"{key}={value if isinstance(value, str) else format_value(value)}" for key, value in values.items()}
    overrides = [
        Override(OverrideType.CHANGE, key, ValueType.ELEMENT, value, input_line=lines[key])
        for key, value in values.items()
    ]
    problems = apply_overrides(config, overrides)
    if problems:
        raise SpecError(problems)
    changed = OmegaConf.to_container(config, resolve=False)
    assert isinstance(changed, dict)
    return {str(key): value for key, value in changed.items()}


def _collect_model_overrides(overrides: Sequence[Override]) -> dict[str, Any]:
    """Collect the overrides of the model into one nested dict, with the same keys as a model."""
    model_overrides: dict[str, Any] = {}
    for override in overrides:
        top, *path = override.key_or_group.split(".")
        if top != "model":
            continue
        node = model_overrides
        for key in path[:-1]:
            child = node.get(key)
            node[key] = node = child if isinstance(child, dict) else {}
        if path:
            node[path[-1]] = None if override.is_sweep_override() else override.value()
    return model_overrides


def _change_by_section(
    names: Collection[str], read_section: Callable[[str], Any], overrides: Sequence[Override]
) -> ChangedSections:
    problems: list[Problem] = []
    tree: dict[str, Any] = dict.fromkeys(names)
    touched_sections: dict[str, None] = {}
    for index, override in enumerate(overrides):
        top = override.key_or_group.split(".")[0]
        if top in tree and top not in touched_sections:
            tree[top] = read_section(top)
        touched_sections.setdefault(top)
        was_there, before = top in tree, deepcopy(tree.get(top))
        reason = apply_override(tree, override) or _find_lost_override(tree, override, overrides[:index])
        if reason is not None:
            location = command_line_location(override.input_line or "")
            problems.append(reason.to_problem(override.key_or_group, location))
            tree |= {top: before}
            if not was_there:
                del tree[top]
    sections = {top: tree[top] for top in touched_sections if top in tree}
    return ChangedSections(sections, [top for top in touched_sections if top not in tree], problems)


def _find_lost_override(tree: dict[str, Any], override: Override, earlier: Sequence[Override]) -> Finding | None:
    """Find an earlier override whose key is no longer in the tree, as this override has replaced or deleted it."""
    path = path_from_key(override.key_or_group)
    for each in earlier:
        inner_path = path_from_key(each.key_or_group)
        is_below = len(inner_path) > len(path) and inner_path[: len(path)] == path
        if is_below and not each.is_delete() and each.value() is not None and not _contains_path(tree, inner_path):
            removes = override.is_delete() or override.value() is None
            fix = "remove one of them" if removes else f"write {each.input_line} after it, or remove it"
            return Finding(Code.CONFLICT, f"discards {each.input_line}, which is written before it", fix)
    return None


def _contains_path(node: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(node, dict | list) or _get_child(node, part) is None:
            return False
        node = _get_child(node, part)
    return True


def apply_override(tree: dict[str, Any], override: Override) -> Finding | None:
    """Apply one override to the tree in place. If that is impossible, return what is wrong and how to fix it."""
    path = path_from_key(override.key_or_group)
    node: Any = tree
    for depth, part in enumerate(path[:-1], start=1):
        child = _get_child(node, part)
        if child is None and isinstance(node, list):
            return _missing_entry_finding(node, part)
        if child is None:
            if isinstance(path[depth], int):
                return _missing_list_finding(override, path[:depth])
            if depth > 1 and path[depth - 2] in ("layers", "blocks") and not isinstance(node, list):
                kind = "entry" if path[depth - 2] == "layers" else "block"
                return _unreachable_key_finding(f"no {kind} '{part}'", suggest(str(part), [str(each) for each in node]))
            child = node[str(part)] = {}
            _keep_last_layer_name(node, path[:depth])
        if not isinstance(child, dict | list):
            return _shorthand_finding(path[:depth], child, override, tree)
        node = child
    return _check_omitted_layer_name(node, path, override, tree) or _set_override_value(node, path, override)


def _get_child(node: Any, part: Any) -> Any:
    """Return the value at a key or index, or None if there is none."""
    if isinstance(node, dict):
        return node.get(str(part))
    return node[part] if isinstance(part, int) and part < len(node) else None


def _missing_list_finding(override: Override, path: KeyPath) -> Finding:
    if override.is_delete():
        return _unreachable_key_finding(f"no list '{path[-1]}' to delete an entry from")
    return _unreachable_key_finding(
        f"'{path[-1]}' is not written as a list", f"write the whole list: {format_path(path)}=[...]"
    )


def _set_override_value(node: Any, path: KeyPath, override: Override) -> Finding | None:
    last: Any = path[-1]
    if isinstance(node, list) and (not isinstance(last, int) or last >= len(node)):
        return _missing_entry_finding(node, last)
    key = last if isinstance(node, list) else str(last)
    value: Any = None if override.is_delete() else override.value()
    removes = value is None and isinstance(node, dict) and len(path) > 1 and path[-2] == "layers"
    if override.is_delete() or removes:
        if isinstance(node, dict) and key not in node:
            return _unreachable_key_finding(
                f"no key '{key}' to delete", suggest(str(key), [str(each) for each in node])
            )
        del node[key]
        return None
    before = _get_child(node, last)
    node[key] = {**before, **value} if _should_merge_override(path, before, value) else value
    _keep_last_layer_name(node, path)
    return None


def _keep_last_layer_name(entry: Any, path: KeyPath) -> None:
    """If an override has left an entry with two layer names, keep only the later one: the last key of `path`."""
    last = path[-1]
    if not isinstance(entry, dict) or not is_entry(path[:-1]) or last in ENTRY_KEYS:
        return
    if "type" in entry and last != "type" and not str(last)[:1].isupper():
        return  # a setting of a flat entry
    is_flat = last == "type" and all(str(key)[:1].islower() for key in entry)
    for key in [each for each in find_layer_keys(entry) if each != last]:
        if not is_flat:
            del entry[key]


def _check_omitted_layer_name(node: Any, path: KeyPath, override: Override, tree: dict[str, Any]) -> Finding | None:
    """Find an override that leaves out the layer's name: `model.layers.0.out_channels=64` for `Conv2d: {...}`."""
    last = str(path[-1])
    if not isinstance(node, dict) or not is_entry(path[:-1]) or last in (*ENTRY_KEYS, "type") or "type" in node:
        return None
    names = find_layer_keys(node)
    if override.is_delete() or len(names) != 1 or names == [last] or not last[:1].islower():
        return None
    if last in _visible_blocks(tree.get("model"), path) or isinstance(override.value(), dict):
        return None
    return Finding(
        Code.MISPLACED_KEY,
        f"'{last}' can't be set beside '{names[0]}'",
        f"write {format_path((*path[:-1], names[0], last))}=...",
    )


def _visible_blocks(model: Any, path: KeyPath) -> dict[str, Any]:
    """Collect the blocks that an entry at `path` can use; an inner definition replaces an outer one."""
    found: dict[str, Any] = {}
    node: Any = {"model": model}
    for part in path:
        node = _get_child(node, part)
        blocks = node.get("blocks") if isinstance(node, dict) else None
        found |= blocks if isinstance(blocks, dict) else {}
    return found


def _should_merge_override(path: KeyPath, before: Any, value: Any) -> bool:
    """Whether a value is merged key by key into the mapping there, rather than replacing it.

    A mapping that names another part or layer replaces the old one.
    """
    if not isinstance(value, dict) or not isinstance(before, dict):
        return False
    if "layers" in path[:-1] or isinstance(path[-1], int) or names_different_part(before, value, path):
        return False
    if _is_column_kind(path):
        return before.keys() == value.keys()  # another kind replaces the old one
    return len(path) > 1 or not replaces_section(str(path[0]), value)


def _is_column_kind(path: KeyPath) -> bool:
    """Whether a path leads to the kind of a column: `data.columns.age`, `data.target.price`."""
    return len(path) == 3 and path[:2] in (("data", "columns"), ("data", "target"))


def _unreachable_key_finding(found: str, fix: str = "") -> Finding:
    return Finding(Code.UNREACHABLE_KEY, found, fix)


def _missing_entry_finding(node: Any, part: Any) -> Finding:
    if isinstance(node, list):
        return _unreachable_key_finding(
            f"no entry '{part}' in a list of {len(node)}",
            f"write an index from 0 to {len(node) - 1}",
        )
    return _unreachable_key_finding(f"no key '{part}'")


def _shorthand_finding(path: KeyPath, value: Any, override: Override, tree: dict[str, Any]) -> Finding:
    """Explain why an override inside a short spelling (`Linear: 10`, `loss: MSELoss`) fails.

    Applying it would lose the value or name that is written there.
    """
    name, setting = str(path[-1]), override.key_or_group.split(".")[-1]
    change = f"{setting}: {_override_value_text(override)}"
    value_setting = _find_value_setting(name, path, tree) if is_entry(path[:-1]) else None
    if value_setting is not None:
        if setting == value_setting:
            whole = f"{format_path(path)}={_override_value_text(override)}"
            return _unreachable_key_finding(
                f"'{name}: {_format_value(value)}' is short for {{{value_setting}: {_format_value(value)}}}",
                f"write {whole}",
            )
        full = f"{format_path(path[:-1])}={{{name}: {{{value_setting}: {_format_value(value)}, {change}}}}}"
        return _unreachable_key_finding(
            f"'{name}: {_format_value(value)}' is a short form, which has no settings to override",
            f"write it in full: {quote_for_shell(full)}",
        )
    path_text = format_path(path)
    if not isinstance(value, str) or not value.lstrip("$").isidentifier():
        return _unreachable_key_finding(
            f"{path_text} is {_format_value(value)} and has no keys", f"write {path_text}=VALUE"
        )
    if _is_column_kind(path):
        full = f"{path_text}={{{value}: {{{change}}}}}"
        return _unreachable_key_finding(
            f"'{value}' is a kind without settings", f"write it in full: {quote_for_shell(full)}"
        )
    if is_entry(path) and not value.startswith("$"):
        full = f"{path_text}={{{value}: {{{change}}}}}"
    else:
        full = f"{path_text}={{type: {value}, {change}}}"
    return _unreachable_key_finding(
        f"'{value}' is a short form, which has no settings to override", f"write it in full: {quote_for_shell(full)}"
    )


def _find_value_setting(name: str, path: KeyPath, tree: dict[str, Any]) -> str | None:
    """Find the setting that a single value after a layer's or block's name sets: `out_features` in `Linear: 10`."""
    from dlspec.parts.torch.torch_parts import LAYERS

    if name in LAYERS:
        return LAYERS[name].value_setting or "SETTING"
    block = _visible_blocks(tree.get("model"), path).get(name)
    params = block.get("params") if isinstance(block, dict) else None
    return str(next(iter(params))) if isinstance(params, dict) and params else None


def _format_value(value: Any) -> str:
    """Format a value as in YAML, strings without quotes."""
    return value if isinstance(value, str) else format_value(value)


def _override_value_text(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]
