"""Locations of the keys of a composed config.

OmegaConf does not keep them, so the files are read again, only when an error is reported. Later files override
earlier ones, and the command line overrides all files.
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
class LocationCollector:
    """Collects the locations of keys and values; add files and overrides in the order of merging."""

    keys: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    values: dict[KeyPath, SourceLocation] = field(default_factory=dict)

    def find_locations(self) -> SourceMap:
        """Return all locations collected so far."""
        return SourceMap(self.keys, self.values)

    def add_file(self, path: Path, package: str | None, omitted_sections: Collection[str] = ()) -> None:
        """Add the keys of a file.

        Args:
            path: the file.
            package: the dotted key below which Hydra puts the file's content, None for the top.
            omitted_sections: sections of the file to leave out.
        """
        document = load_yaml_file(path).without_sections(omitted_sections)
        prefix: KeyPath = tuple(package.split(".")) if package else ()
        for end in range(1, len(prefix) + 1):
            self.keys.setdefault(prefix[:end], SourceLocation(format_file_path(path)))
        self._remove_lists({(*prefix, *inner) for inner in _list_paths(document)})
        self.keys |= {(*prefix, *inner): location for inner, location in document.keys.items()}
        self.values |= {(*prefix, *inner): location for inner, location in document.values.items()}

    def add_choice(self, override: Override) -> None:
        """Add the choice of a part by its name, located at the override. (`add_file` adds a chosen file.)"""
        path = path_from_key(override.key_or_group)
        self._record_override(path, override)
        if override.key_or_group in PART_GROUPS:
            self.keys[(*path, "type")] = self.values[(*path, "type")] = value_location(override)

    def add_value(self, override: Override) -> None:
        """Add a value from the command line; it removes all earlier locations below its key."""
        path = path_from_key(override.key_or_group)
        value = None if override.is_sweep_override() else override.value()
        replaced = [(*path, key) for key in value] if isinstance(value, dict) else [path]
        self._remove_keys(lambda old: any(len(old) > len(each) and old[: len(each)] == each for each in replaced))
        for each in replaced:
            self._record_override(each, override)
        self._record_override(path, override)

    def keep_only(self, sections: Collection[str]) -> None:
        """Remove the locations of all other sections."""
        self._remove_keys(lambda old: not old or old[0] not in sections)

    def _record_override(self, path: KeyPath, override: Override) -> None:
        line = override.input_line or ""
        for end in range(1, len(path)):
            self.keys.setdefault(path[:end], command_line_location(line))
        self.keys[path] = command_line_location(line, 0, len(line.partition("=")[0]))
        self.values[path] = value_location(override)

    def _remove_lists(self, replaced: Collection[KeyPath]) -> None:
        """Remove the locations in lists that a later file replaces completely."""
        self._remove_keys(lambda old: any(isinstance(old[at], int) and old[:at] in replaced for at in range(len(old))))

    def _remove_keys(self, is_removed: Callable[[KeyPath], bool]) -> None:
        for table in (self.keys, self.values):
            for old in [each for each in table if is_removed(each)]:
                del table[old]


def _list_paths(document: Document) -> Sequence[KeyPath]:
    """List the paths of the document's lists: the part of an item's path before its index."""
    return [path[:-1] for path in document.values if path and isinstance(path[-1], int)]
