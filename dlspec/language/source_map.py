"""Where each key and each value of a config was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlspec.errors import KeyPath, SourceLocation


@dataclass(frozen=True)
class SourceMap:
    """Maps each key and each value of a config to the location where it was written."""

    keys: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)
    values: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)

    def find(self, path: KeyPath, *, at_value: bool = False) -> SourceLocation | None:
        """Find where the key at a path, or with `at_value` its value, was written.

        If the path itself has no location, the nearest written path above it is used, else any path below it.
        """
        if at_value and path in self.values:
            return self.values[path]
        full_path = path
        while path and path not in self.keys and path not in self.values:
            path = path[:-1]
        found = self.keys.get(path) or (self.values.get(path) if path else None)
        return found or next(
            (location for key, location in self.keys.items() if key[: len(full_path)] == full_path), None
        )
