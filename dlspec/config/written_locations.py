"""Where each key of a composed config was written: OmegaConf forgets it, so the files are read once more.

That is done for an error alone. Later files go over earlier ones, and the command line over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.types import Override

from dlspec.config.conf_files import PART_GROUPS
from dlspec.config.overrides import command_line_location, path_from_key, value_location
from dlspec.errors import KeyPath, SourceLocation
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import Document, format_file_path, load_yaml_file


@dataclass
class WrittenLocations:
    """The places found so far, in the order of merging."""

    keys: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    values: dict[KeyPath, SourceLocation] = field(default_factory=dict)

    def find_locations(self) -> SourceMap:
        return SourceMap(self.keys, self.values)

    def add_file(self, path: Path, package: str | None, without: Collection[str] = ()) -> None:
        """A file's keys below its package; `without` leaves out some of its top ones."""
        document = load_yaml_file(path).without_sections(without)
        prefix: KeyPath = tuple(package.split(".")) if package else ()
        for end in range(1, len(prefix) + 1):
            self.keys.setdefault(prefix[:end], SourceLocation(format_file_path(path)))
        self._remove_lists({(*prefix, *inner) for inner in _list_paths(document)})
        self.keys |= {(*prefix, *inner): location for inner, location in document.keys.items()}
        self.values |= {(*prefix, *inner): location for inner, location in document.values.items()}

    def add_choice(self, override: Override) -> None:
        """The command line chose a part by its name: the choice itself stands there. (A file has places of its own.)"""
        path = path_from_key(override.key_or_group)
        self._record_override(path, override)
        if override.key_or_group in PART_GROUPS:
            self.keys[(*path, "type")] = self.values[(*path, "type")] = value_location(override)

    def add_value(self, override: Override) -> None:
        """The command line gave a value: nothing written below it before is there any more."""
        path = path_from_key(override.key_or_group)
        value = None if override.is_sweep_override() else override.value()
        replaced = [(*path, key) for key in value] if isinstance(value, dict) else [path]
        self._remove_keys(lambda old: any(len(old) > len(each) and old[: len(each)] == each for each in replaced))
        for each in replaced:
            self._record_override(each, override)
        self._record_override(path, override)

    def keep_only(self, sections: Collection[str]) -> None:
        self._remove_keys(lambda old: not old or old[0] not in sections)

    def _record_override(self, path: KeyPath, override: Override) -> None:
        line = override.input_line or ""
        for end in range(1, len(path)):
            self.keys.setdefault(path[:end], command_line_location(line))
        self.keys[path] = command_line_location(line, 0, len(line.partition("=")[0]))
        self.values[path] = value_location(override)

    def _remove_lists(self, replaced: Collection[KeyPath]) -> None:
        """A list takes the place of the list before it whole."""
        self._remove_keys(lambda old: any(isinstance(old[at], int) and old[:at] in replaced for at in range(len(old))))

    def _remove_keys(self, is_removed: Callable[[KeyPath], bool]) -> None:
        for table in (self.keys, self.values):
            for old in [each for each in table if is_removed(each)]:
                del table[old]


def _list_paths(document: Document) -> Sequence[KeyPath]:
    """The paths of the document's lists: what an item's path has before its index."""
    return [path[:-1] for path in document.values if path and isinstance(path[-1], int)]
