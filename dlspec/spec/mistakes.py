"""Collects a spec's mistakes while it is read, so that all of them can be told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dlspec.errors import Place, Problem, SpecError
from dlspec.spec.yaml_files import KeyPath


def dotted(path: KeyPath) -> str:
    """The path as a command line writes it: `model.layers.2.Conv2d`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class Mistake:
    """What is wrong at a path of the config; `shown` is a word behind the path where that helps."""

    path: KeyPath
    found: str
    fix: str = ""
    at_value: bool = False
    shown: str = ""


@dataclass
class Mistakes:
    """A list that grows; nothing raises until `raise_if_any`."""

    found: list[Mistake] = field(default_factory=list)

    def add(self, path: KeyPath, found: str, fix: str = "", *, at_value: bool = False, shown: str = "") -> None:
        """Notes one mistake; the same one twice (a repeated layer) is told once."""
        mistake = Mistake(path, found, fix, at_value, shown)
        if mistake not in self.found:
            self.found.append(mistake)

    def __len__(self) -> int:
        return len(self.found)

    def problems(self, places: Places) -> list[Problem]:
        """The mistakes with their places, in the order of the files."""
        return [
            Problem(f"{dotted(each.path)} {each.shown}".strip(), each.found, each.fix, places.find(each))
            for each in self.found
        ]


@dataclass(frozen=True)
class Places:
    """Where each key and value of a config was written."""

    keys: Mapping[KeyPath, Place] = field(default_factory=dict)
    values: Mapping[KeyPath, Place] = field(default_factory=dict)

    def find(self, mistake: Mistake) -> Place | None:
        """The mistake's own place, or that of the nearest thing around it that was written."""
        path = mistake.path
        if mistake.at_value and path in self.values:
            return self.values[path]
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path)


def refuse(mistakes: Mistakes, places: Callable[[], Places]) -> None:
    """Raises `SpecError` with every mistake, if there is one. Places are looked for only then: it takes a while."""
    if mistakes:
        raise SpecError(mistakes.problems(places()))
