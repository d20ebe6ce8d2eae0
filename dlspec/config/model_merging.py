"""Lays one file's model over another's: key by key as Hydra does, but an entry that names another layer takes the
place of the one before it whole, null removes an entry, and a param that nothing reads any more goes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, Finding, KeyPath, shown, suggest
from dlspec.language.entries import is_entry, is_other_part, naming
from dlspec.language.parse.entry import read_words

# What is a list in one file and a mapping in another can't be laid over each other.
_KINDS: Mapping[type, str] = {list: "a list", dict: "a mapping"}
_STRUCTURE = ("layers", "params", "blocks")


@dataclass(frozen=True)
class Clash:
    """What can't be laid over what was there; `path` leads to it from the config's top."""

    path: KeyPath
    finding: Finding


@dataclass
class Merging:
    """A model in the making, from the files in their order."""

    model: Any = None
    clashes: list[Clash] = field(default_factory=list)

    def add(self, over: Any, path: KeyPath = ("model",)) -> None:
        """Lays a file's model over what the files before it gave."""
        before = self.model
        self.model = self._laid(before, over, path)
        if isinstance(before, dict):
            drop_unread(before, self.model, over)

    def _laid(self, before: Any, over: Any, path: KeyPath) -> Any:
        if isinstance(over, dict) and (before is None or isinstance(before, dict)):
            if is_other_part(before, over, path):
                return over
            return self._keys_laid(before or {}, over, path)
        self._check(before, over, path)
        return over

    def _keys_laid(self, before: dict[str, Any], over: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        bare = [key for key, value in over.items() if is_layer_without_dash(key, value)]
        if path[-1] == "layers" and bare:
            fix = f"write '- {bare[0]}', and '- ' before each entry; in a mapping each has a name"
            self.clashes.append(Clash((*path, bare[0]), Finding(Code.YAML_SYNTAX, f"no '- ' before '{bare[0]}'", fix)))
            return {}
        result = dict(before)
        for key, value in over.items():
            inner = (*path, key)
            if value is None and _is_named(inner):
                self._remove(result, inner)
            else:
                result[key] = self._laid(before.get(key), value, inner)
        return result

    def _remove(self, entries: dict[str, Any], path: KeyPath) -> None:
        name = str(path[-1])
        if name not in entries:
            fix = suggest(name, entries) or "write a layer behind it"
            found = f"null removes an entry, and there is no '{name}'"
            self.clashes.append(Clash(path, Finding(Code.UNKNOWN_OUTPUT, found, fix)))
        entries.pop(name, None)

    def _check(self, before: Any, over: Any, path: KeyPath) -> None:
        old, new = (_KINDS.get(type(each), "") for each in (before, over))
        if old and new and old != new and path[-1] in _STRUCTURE:
            whole = "a list here too: it takes that one's place whole"
            fix = f"write {whole if old == 'a list' else 'a mapping here too'}, or extend another file"
            found = f"{new} over {old} in the file that this one extends"
            self.clashes.append(Clash(path, Finding(Code.CONFIG_CLASH, found, fix)))
        elif isinstance(over, dict) and is_entry(path[:-1]) and naming({str(path[-1]): over}) is not None:
            self._check_short(str(path[-1]), before, over, path)

    def _check_short(self, name: str, before: Any, over: dict[str, Any], path: KeyPath) -> None:
        """Settings laid over `Dropout: 0.5` would lose the 0.5."""
        from dlspec.parts.torch.torch_parts import LAYERS

        setting = LAYERS[name].value_setting if name in LAYERS else None
        if setting is not None and setting not in over:
            found = f"settings over the short spelling '{name}: {shown(before).strip(chr(39))}'"
            fix = f"write its value here too: {setting}: {before}"
            self.clashes.append(Clash(path, Finding(Code.CONFIG_CLASH, found, fix)))


def _is_named(path: KeyPath) -> bool:
    """Whether an entry of a mapping stands there, which has its name from it."""
    return len(path) > 1 and path[-2] == "layers"


def is_layer_without_dash(key: str, value: Any) -> bool:
    """`Flatten:` and `Linear: 10` where entries by name are wanted."""
    if not key[:1].isupper() or isinstance(value, str):
        return False
    from dlspec.parts.torch.torch_parts import LAYERS

    if key not in LAYERS:
        return False
    named = naming(value)
    return named is None or (named[0] == "key" and named[1] in LAYERS[key].settings) or ", " in named[1]


# ---- params that nothing reads any more ----------------------------------------------------------------------------


def drop_unread(before: Any, after: Any, given: Any) -> None:
    """Takes from `after` the params that something in `before` read and nothing reads now; `given` are kept.

    `layers: [...]` over a model's layers is no mistake for a param that they alone read.
    """
    for old, new, own in _blocks(before, after, given):
        kept = _mapping(own, "params").keys()
        read_before = read_words(old)
        while gone := (read_before & _mapping(new, "params").keys()) - read_words(new) - kept:
            new["params"] = {name: each for name, each in new["params"].items() if name not in gone}


def _blocks(before: Any, after: Any, given: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any], Any]]:
    """A model and the blocks in it that were there before."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return
    yield before, after, given
    old, new, own = (_mapping(each, "blocks") for each in (before, after, given))
    for name in new:
        yield from _blocks(old.get(name), new[name], own.get(name))


def _mapping(tree: Any, key: str) -> dict[str, Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}
