"""Rows that can't be read: refused with a list of the first, or counted and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from dlspec.data.tables.table import BadRow
from dlspec.errors import DataError

MAX_LISTED = 20


class BadRowCollector(Protocol):
    """Is given the rows that can't be read, in their order."""

    def add(self, file: Path, line: int, reason: str) -> None:
        """Note a bad row.

        Args:
            file: the file
            line: its first line
            reason: why it can't be read
        """


class BadRows:
    """Collects rows that can't be read. With `refuse`, reading stops after the first 20."""

    def __init__(self, action: Literal["refuse", "skip"]) -> None:
        self._action = action
        self.first: list[BadRow] = []
        self.count = 0

    def add(self, file: Path, line: int, reason: str) -> None:
        """Note a bad row; DataError if it is one too many.

        Args:
            file: the file
            line: its first line
            reason: why it can't be read
        """
        if len(self.first) < MAX_LISTED:
            self.first.append(BadRow(f"{file}:{line}", reason))
        self.count += 1
        if self._action == "refuse" and self.count > MAX_LISTED:
            self.check()

    def check(self) -> None:
        """Raise DataError if rows were refused."""
        if self._action == "skip" or not self.count:
            return
        first = self.first[0]
        others = [f"{each.location}: {each.reason}" for each in self.first[1:]]
        if self.count > MAX_LISTED:
            others.append("...")
        fix = "correct the file, or write data.bad_rows=skip to leave such rows out"
        raise DataError("path", f"{first.location}: {first.reason}; {fix}", note="\n".join(others))
