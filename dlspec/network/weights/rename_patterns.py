"""Rename tensors of a file by patterns, as the spec's `weights.rename` says."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class RenamePattern:
    """A pattern for names in the file, and the names in the model to use instead.

    Each `*` in a replacement stands for the text that the same `*` of the pattern matched. If a replacement has
    fewer `*` than the pattern, they stand for the pattern's last ones, so that a prefix can be dropped.
    """

    pattern: str
    replacements: tuple[str, ...] | None  # multiple: the tensor is split; None: it is left out

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts = (fnmatch.translate(each)[len("(?s:") : -len(r")\Z")] for each in self.pattern.split("*"))
        return re.compile("(.*?)".join(parts), re.DOTALL)

    def rename(self, name: str) -> tuple[str, ...] | None:
        """Return the new names of `name`: () where it is left out, None where the pattern does not match."""
        # fnmatch decides in one pass; a regex with many groups would try all divisions of a name that does not match.
        found = self._regex.fullmatch(name) if fnmatch.fnmatchcase(name, self.pattern) else None
        if found is None or self.replacements is None:
            return None if found is None else ()
        return tuple(_fill_wildcards(each, found.groups()) for each in self.replacements)


def rename_tensor(name: str, renames: Sequence[RenamePattern]) -> tuple[int, tuple[str, ...]]:
    """Return the index of the first rename that matches and the new names; -1 and the old name where none does."""
    for at, each in enumerate(renames):
        names = each.rename(name)
        if names is not None:
            return at, names
    return -1, (name,)


def _fill_wildcards(text: str, matches: Sequence[str]) -> str:
    first, *pieces = text.split("*")
    matches = [*matches, *[""] * len(pieces)] if len(matches) < len(pieces) else matches[len(matches) - len(pieces) :]
    return first + "".join(word + piece for word, piece in zip(matches, pieces, strict=False))
