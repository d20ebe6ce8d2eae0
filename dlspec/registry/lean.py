"""Whether imports may leave out what dlspec does not need. Imports nothing itself: the program says so first of all."""

from __future__ import annotations


class _Switch:
    is_on = False


def lean_imports() -> None:
    """Says that the process is dlspec's alone: no code of a notebook or another program misses what is left out."""
    _Switch.is_on = True


def is_lean() -> bool:
    return _Switch.is_on
