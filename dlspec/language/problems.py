"""Collects a spec's mistakes while it is read, so that all of them can be told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dlspec.errors import Code, Finding, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.source_map import SourceMap


def format_path(path: KeyPath) -> str:
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


MAX_PROBLEMS = 1_000
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
    _part_origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    _seen: set[ProblemAtPath] = field(default_factory=set)

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
        problem = ProblemAtPath(code, path, found, fix, at_value, shown, at_key, note, self._part_origins.get(path))
        if problem not in self._seen and len(self._seen) < MAX_PROBLEMS:
            self._seen.add(problem)
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
        line_below = finding.note or note
        self.add(finding.code, path, finding.found, finding.fix, at_value=at_value, shown=shown, note=line_below)

    def remove_codes(self, codes: Collection[Code]) -> None:
        """Forgets the problems of some kinds."""
        self.found = [each for each in self.found if each.code not in codes]

    def enter_part(self, origins: Mapping[KeyPath, KeyPath]) -> None:
        """From now on mistakes are those of one part: `origins` says where the params in its settings were written.

        A block's entries stand in many places of a network, each time with other params.
        """
        self._part_origins = origins

    def make_empty_copy(self) -> Problems:
        """An empty list that looks for places where this one does."""
        return Problems(origins=self.origins, names=self.names)

    def __len__(self) -> int:
        return len(self.found)

    def locate(self, source_map: SourceMap) -> list[Problem]:
        """The mistakes with their places, in the order of the files; the command line's come last.

        A wrong value that several `$param` or `${...}` brought to several places is one problem.
        """
        problems: list[Problem] = []
        reported: set[tuple[SourceLocation, str]] = set()
        for each in self.found:
            location, is_origin = self._find_location(each, source_map)
            if location is not None and is_origin and (location, each.found) in reported:
                continue
            if location is not None:
                reported.add((location, each.found))
            path = f"{format_path(each.path)} ({each.shown})" if each.shown else format_path(each.path)
            problems.append(Problem(each.code, path, each.found, each.fix, location, each.note))
        return sort_by_location(problems)

    def _find_location(self, problem: ProblemAtPath, source_map: SourceMap) -> tuple[SourceLocation | None, bool]:
        path, at_value = problem.path, problem.at_value
        if problem.origin is not None:
            origin = self._find_origin(problem.origin, at_value=True)
            return source_map.find(origin, at_value=at_value), True
        if path in self.names and not at_value and not problem.at_key:
            path, at_value = self.names[path]
        origin = self._find_origin(path, at_value)
        return source_map.find(origin, at_value=at_value), origin != path

    def _find_origin(self, path: KeyPath, at_value: bool) -> KeyPath:
        """Where what stands at `path` was written. A key stands where it is; only what is below it came along."""
        for _ in range(len(self.origins)):  # two that refer to each other would lead round for ever
            lengths = range(len(path) if at_value else len(path) - 1, 0, -1)
            length = next((each for each in lengths if path[:each] in self.origins), 0)
            if not length:
                break
            path = (*self.origins[path[:length]], *path[length:])
        return path


def sort_by_location(problems: list[Problem]) -> list[Problem]:
    """Sorted by file, in the order in which the files first occur, then by line and column."""
    sources = list(dict.fromkeys(each.location.source for each in problems if each.location and each.location.line))

    def rank(problem: Problem) -> tuple[int, int, int]:
        location = problem.location
        if location is None or not location.line:
            return len(sources), 0, 0
        return sources.index(location.source), location.line, location.column

    return sorted(problems, key=rank)


def raise_problems(problems: Problems, make_source_map: Callable[[], SourceMap]) -> None:
    """Raises `SpecError` with every mistake, if there is one. Places are looked for only then: it takes a while."""
    if problems:
        raise SpecError(problems.locate(make_source_map()))
