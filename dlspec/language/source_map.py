"""Where each key and each value of a config was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlspec.errors import KeyPath, SourceLocation


@dataclass(frozen=True)
class SourceMap:
    """Where each key and value of a config was written."""

    keys: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)
    values: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)

    def find(self, path: KeyPath, *, at_value: bool = False) -> SourceLocation | None:
        """The key's or the value's own place, or that of the nearest thing around or below it that was written."""
        if at_value and path in self.values:
            return self.values[path]
        full_path = path
        while path and path not in self.keys and path not in self.values:
            path = path[:-1]
        found = self.keys.get(path) or (self.values.get(path) if path else None)
        return found or next(
            (location for key, location in self.keys.items() if key[: len(full_path)] == full_path), None
        )
