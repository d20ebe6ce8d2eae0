"""Collects a spec's mistakes while it is read, so that all of them can be told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dlspec.errors import Code, Finding, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.source_map import SourceMap


def dotted(path: KeyPath) -> str:
    """The path as a command line writes it: `model.layers.2.Conv2d`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class ProblemAtPath:
    """What is wrong at a path of the config; `shown` is a word behind the path where that helps.

    It stands at the path's key, or where a part stands there at the part's name; with `at_key` never at the name.
    `origin` is where the value at `path` was written, where a block's param brought it there.
    """

    code: Code
    path: KeyPath
    found: str
    fix: str = ""
    at_value: bool = False
    shown: str = ""
    at_key: bool = False
    note: str = ""
    origin: KeyPath | None = None


MOST = 1_000
"""So many mistakes are collected."""


@dataclass
class Problems:
    """A list that grows; nothing raises until `refuse`.

    `origins` says for the path of a `$param` or a `${...}` where the value that it gave was written, `names` for the
    path of a part where the part's name stands (and whether that is a value): a place is looked for there.
    """

    found: list[ProblemAtPath] = field(default_factory=list)
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    names: dict[KeyPath, tuple[KeyPath, bool]] = field(default_factory=dict)
    _entered: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    _known: set[ProblemAtPath] = field(default_factory=set)

    def add(
        self,
        code: Code,
        path: KeyPath,
        found: str,
        fix: str = "",
        *,
        at_value: bool = False,
        shown: str = "",
        at_key: bool = False,
        note: str = "",
    ) -> None:
        """Notes one mistake; the same one twice (a repeated layer) is told once."""
        problem = ProblemAtPath(code, path, found, fix, at_value, shown, at_key, note, self._entered.get(path))
        if problem not in self._known and len(self._known) < MOST:
            self._known.add(problem)
            self.found.append(problem)

    def add_finding(
        self,
        path: KeyPath,
        finding: Finding,
        *,
        at_value: bool = False,
        shown: str = "",
        note: str = "",
    ) -> None:
        """Notes what a check or an exception has found; `note` counts where the finding has none."""
        more = finding.note or note
        self.add(finding.code, path, finding.found, finding.fix, at_value=at_value, shown=shown, note=more)

    def drop(self, codes: Collection[Code]) -> None:
        """Forgets the problems of some kinds."""
        self.found = [each for each in self.found if each.code not in codes]

    def enter(self, origins: Mapping[KeyPath, KeyPath]) -> None:
        """From now on mistakes are those of one part: `origins` says where the params in its settings were written.

        A block's entries stand in many places of a network, each time with other params.
        """
        self._entered = origins

    def anew(self) -> Problems:
        """An empty list that looks for places where this one does."""
        return Problems(origins=self.origins, names=self.names)

    def __len__(self) -> int:
        return len(self.found)

    def locate(self, places: SourceMap) -> list[Problem]:
        """The mistakes with their places, in the order of the files; the command line's come last.

        A wrong value that several `$param` or `${...}` brought to several places is one problem.
        """
        problems: list[Problem] = []
        told: set[tuple[SourceLocation, str]] = set()
        for each in self.found:
            place, is_origin = self._place(each, places)
            if place is not None and is_origin and (place, each.found) in told:
                continue
            if place is not None:
                told.add((place, each.found))
            path = f"{dotted(each.path)} ({each.shown})" if each.shown else dotted(each.path)
            problems.append(Problem(each.code, path, each.found, each.fix, place, each.note))
        return in_order(problems)

    def _place(self, problem: ProblemAtPath, places: SourceMap) -> tuple[SourceLocation | None, bool]:
        path, at_value = problem.path, problem.at_value
        if problem.origin is not None:
            origin = self._origin(problem.origin, at_value=True)
            return places.find(origin, at_value=at_value), True
        if path in self.names and not at_value and not problem.at_key:
            path, at_value = self.names[path]
        origin = self._origin(path, at_value)
        return places.find(origin, at_value=at_value), origin != path

    def _origin(self, path: KeyPath, at_value: bool) -> KeyPath:
        """Where what stands at `path` was written. A key stands where it is; only what is below it came along."""
        for _ in range(len(self.origins)):  # two that refer to each other would lead round for ever
            lengths = range(len(path) if at_value else len(path) - 1, 0, -1)
            length = next((each for each in lengths if path[:each] in self.origins), 0)
            if not length:
                break
            path = (*self.origins[path[:length]], *path[length:])
        return path


def in_order(problems: list[Problem]) -> list[Problem]:
    """Sorted by file, in the order in which the files first occur, then by line and column."""
    sources = list(dict.fromkeys(each.place.source for each in problems if each.place and each.place.line))

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        if place is None or not place.line:
            return len(sources), 0, 0
        return sources.index(place.source), place.line, place.column

    return sorted(problems, key=rank)


def refuse(problems: Problems, places: Callable[[], SourceMap]) -> None:
    """Raises `SpecError` with every mistake, if there is one. Places are looked for only then: it takes a while."""
    if problems:
        raise SpecError(problems.locate(places()))
