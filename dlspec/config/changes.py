"""Puts values from the command line into a config.

No `+` is needed for a key that the YAML does not name, and what can't be reached is told with what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import DictConfig, OmegaConf, open_dict

from dlspec.compat.hydra import plain_value
from dlspec.config.model_merging import drop_unread
from dlspec.config.overrides import command_line, override_path, replaces_whole
from dlspec.errors import Code, Finding, KeyPath, Problem, SpecError, shown, suggest
from dlspec.language.entries import ENTRY_KEYS, is_entry, is_other_part, naming_keys
from dlspec.language.problems import dotted


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> list[Problem]:
    """Sets (or with `~` deletes) values in the config; gives the problems of those that can't be reached."""
    tree: dict[str, Any] = {str(key): None for key in config if key != "hydra"}
    # OmegaConf is slow: only what an override names is taken out, and put back once.
    touched: dict[str, None] = {}
    problems = _apply(config, overrides, tree, touched)
    if "model" in touched and isinstance(tree.get("model"), dict):
        tree["model"] = _without_unread(config, tree["model"], overrides)
    with open_dict(config):
        for top in touched:
            if top in tree:
                config[top] = tree[top]
            else:
                config.pop(top, None)
    return problems


def _without_unread(config: DictConfig, model: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """`model.layers.0.Conv2d.out_channels=64` takes a param's place: that nothing uses it now is no mistake."""
    before = plain_value(config, "model") if "model" in config else None
    if model == before:
        return model
    after = deepcopy(model)  # its values may be the overrides' own
    drop_unread(before, after, _given(overrides))
    return after


def change_tree(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Change a config's plain values, by their keys, as overrides of a command line would; SpecError if one can't."""
    config = OmegaConf.create(dict(tree))
    lines = {key: f"{key}={value if isinstance(value, str) else shown(value)}" for key, value in values.items()}
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


def _given(overrides: Sequence[Override]) -> dict[str, Any]:
    """What the overrides say of the model, as a model's own keys."""
    given: dict[str, Any] = {}
    for override in overrides:
        top, *path = override.key_or_group.split(".")
        if top != "model":
            continue
        node = given
        for key in path[:-1]:
            child = node.get(key)
            node[key] = node = child if isinstance(child, dict) else {}
        if path:
            node[path[-1]] = None if override.is_sweep_override() else override.value()
    return given


def _apply(
    config: DictConfig, overrides: Sequence[Override], tree: dict[str, Any], touched: dict[str, None]
) -> list[Problem]:
    """Apply the overrides to `tree`, into which what they name is taken from the config; `touched` are those keys."""
    problems: list[Problem] = []
    for override in overrides:
        top = override.key_or_group.split(".")[0]
        if top in tree and top not in touched:
            tree[top] = plain_value(config, top)
        touched.setdefault(top)
        was_there, before = top in tree, deepcopy(tree.get(top))
        reason = set_value(tree, override)
        if reason is not None:
            place = command_line(override.input_line or "")
            problems.append(reason.at(override.key_or_group, place))
            tree |= {top: before}
            if not was_there:
                del tree[top]
    return problems


def set_value(tree: dict[str, Any], override: Override) -> Finding | None:
    """Changes the tree in place, or says why it can't and what to write."""
    path = override_path(override.key_or_group)
    node: Any = tree
    for depth, part in enumerate(path[:-1], start=1):
        child = _child(node, part)
        if child is None and isinstance(node, list):
            return _unreachable(node, part)
        if child is None:
            if isinstance(path[depth], int):
                return _no_list(override, path[:depth])
            if depth > 1 and path[depth - 2] in ("layers", "blocks") and not isinstance(node, list):
                kind = "entry" if path[depth - 2] == "layers" else "block"
                return _unreachable_key(f"no {kind} '{part}'", suggest(str(part), [str(each) for each in node]))
            child = node[str(part)] = {}
            _keep_last(node, path[:depth])
        if not isinstance(child, dict | list):
            return _short_spelling(path[:depth], child, override, tree)
        node = child
    return _beside_a_name(node, path, override, tree) or _set_last(node, path, override)


def _child(node: Any, part: Any) -> Any:
    """What stands under a key or index; None where nothing does."""
    if isinstance(node, dict):
        return node.get(str(part))
    return node[part] if isinstance(part, int) and part < len(node) else None


def _no_list(override: Override, path: KeyPath) -> Finding:
    if override.is_delete():
        return _unreachable_key(f"no key '{path[-1]}' to delete an entry of")
    return _unreachable_key(f"no list '{path[-1]}' is written there", f"write it whole: {dotted(path)}=[...]")


def _set_last(node: Any, path: KeyPath, override: Override) -> Finding | None:
    last: Any = path[-1]
    if isinstance(node, list) and (not isinstance(last, int) or last >= len(node)):
        return _unreachable(node, last)
    key = last if isinstance(node, list) else str(last)
    value: Any = None if override.is_delete() else override.value()
    removes = value is None and isinstance(node, dict) and len(path) > 1 and path[-2] == "layers"
    if override.is_delete() or removes:
        if isinstance(node, dict) and key not in node:
            return _unreachable_key(f"no key '{key}' to delete", suggest(str(key), [str(each) for each in node]))
        del node[key]
        return None
    before = _child(node, last)
    node[key] = {**before, **value} if _merges(path, before, value) else value
    _keep_last(node, path)
    return None


def _keep_last(entry: Any, path: KeyPath) -> None:
    """An entry that an override has left with two layers' names keeps the one written later, the last in `path`."""
    last = path[-1]
    if not isinstance(entry, dict) or not is_entry(path[:-1]) or last in ENTRY_KEYS:
        return
    if "type" in entry and last != "type" and not str(last)[:1].isupper():
        return  # a setting of a flat entry
    is_flat = last == "type" and all(str(key)[:1].islower() for key in entry)
    for key in [each for each in naming_keys(entry) if each != last]:
        if not is_flat:
            del entry[key]


def _beside_a_name(node: Any, path: KeyPath, override: Override, tree: dict[str, Any]) -> Finding | None:
    """`model.layers.0.out_channels=64` where the entry is `Conv2d: {...}`: the layer's name was left out."""
    last = str(path[-1])
    if not isinstance(node, dict) or not is_entry(path[:-1]) or last in (*ENTRY_KEYS, "type") or "type" in node:
        return None
    names = naming_keys(node)
    if override.is_delete() or len(names) != 1 or names == [last] or not last[:1].islower():
        return None
    if last in _blocks_in(tree.get("model"), path) or isinstance(override.value(), dict):
        return None
    return Finding(
        Code.MISPLACED_KEY, f"no key '{last}' beside '{names[0]}'", f"write {dotted((*path[:-1], names[0], last))}=..."
    )


def _blocks_in(model: Any, path: KeyPath) -> dict[str, Any]:
    """The blocks that an entry at `path` sees, the nearest definition of each."""
    found: dict[str, Any] = {}
    node: Any = {"model": model}
    for part in path:
        node = _child(node, part)
        blocks = node.get("blocks") if isinstance(node, dict) else None
        found |= blocks if isinstance(blocks, dict) else {}
    return found


def _merges(path: KeyPath, before: Any, value: Any) -> bool:
    """A mapping changes the mapping before it key by key, but one that names a part or layer takes its place."""
    if not isinstance(value, dict) or not isinstance(before, dict):
        return False
    if "layers" in path[:-1] or isinstance(path[-1], int) or is_other_part(before, value, path):
        return False
    return len(path) > 1 or not replaces_whole(str(path[0]), value)


def _unreachable_key(found: str, fix: str = "") -> Finding:
    return Finding(Code.UNREACHABLE_KEY, found, fix)


def _unreachable(node: Any, part: Any) -> Finding:
    if isinstance(node, list):
        return _unreachable_key(
            f"no entry '{part}' in a list of {len(node)}",
            f"write a number from 0 to {len(node) - 1}",
        )
    return _unreachable_key(f"no key '{part}' there")


def _short_spelling(path: KeyPath, value: Any, override: Override, tree: dict[str, Any]) -> Finding:
    """An override that reaches into `Linear: 10` or `loss: MSELoss` would lose what is written there."""
    name, setting = str(path[-1]), override.key_or_group.split(".")[-1]
    change = f"{setting}: {_written_value(override)}"
    known = _value_setting(name, path, tree) if is_entry(path[:-1]) else None
    if known is not None:
        if setting == known:
            whole = f"{dotted(path)}={_written_value(override)}"
            return _unreachable_key(f"'{name}: {_flow(value)}' is a short spelling of {known}", f"write {whole}")
        full = f"{dotted(path[:-1])}={{{name}: {{{known}: {_flow(value)}, {change}}}}}"
        return _unreachable_key(f"'{name}: {_flow(value)}' is a short spelling", f"write it in full: '{full}'")
    where = dotted(path)
    if not isinstance(value, str) or not value.lstrip("$").isidentifier():
        return _unreachable_key(f"{where} is {_flow(value)} and has no keys", f"write {where}=VALUE")
    if is_entry(path) and not value.startswith("$"):
        full = f"{where}={{{value}: {{{change}}}}}"
    else:
        full = f"{where}={{type: {value}, {change}}}"
    return _unreachable_key(f"'{value}' is a short spelling", f"write it in full: '{full}'")


def _value_setting(name: str, path: KeyPath, tree: dict[str, Any]) -> str | None:
    """The setting that one value behind a layer's or block's name stands for."""
    from dlspec.parts.torch.torch_parts import LAYERS

    if name in LAYERS:
        return LAYERS[name].value_setting or "SETTING"
    block = _blocks_in(tree.get("model"), path).get(name)
    params = block.get("params") if isinstance(block, dict) else None
    return str(next(iter(params))) if isinstance(params, dict) and params else None


def _flow(value: Any) -> str:
    """A value as YAML writes it, text without quotes."""
    return value if isinstance(value, str) else shown(value)


def _written_value(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]
