"""Collect a spec's problems while it is read, so that all of them can be reported together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from dlspec.errors import (
    MAX_SHOWN_PLACES,
    Code,
    Finding,
    KeyPath,
    Problem,
    SourceLocation,
    SpecError,
    join_first,
)
from dlspec.language.source_map import SourceMap
from dlspec.language.spec_versions import SPEC_VERSION, ChangedRule


def format_path(path: KeyPath) -> str:
    """Format a path as the command line writes it: `model.layers.2.Conv2d`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class ProblemAtPath:
    """A problem at a path of the config, before its line and column are looked up."""

    code: Code
    path: KeyPath
    found: str  # what is wrong
    fix: str = ""  # what the user can write instead
    at_value: bool = False  # point at the value, not at the key
    shown: str = ""  # printed in parentheses after the path, to say which copy or output is meant
    at_key: bool = False  # point at the key even if the path leads to a part; default: at the part's name
    note: str = ""  # a line printed below the problem
    origin: KeyPath | None = None  # where the value was written, if a block's param brought it to `path`


MAX_PROBLEMS = 1_000  # further problems are dropped


@dataclass
class Problems:
    """The problems found so far. Nothing is raised until `raise_problems`."""

    found: list[ProblemAtPath] = field(default_factory=list)
    # From the path of a `$param` or `${...}` to the path where the value that replaced it was written.
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    # From the path of a part to the path of its name, and whether that name is a value (`- ReLU`) or a key (`ReLU:`).
    names: dict[KeyPath, tuple[KeyPath, bool]] = field(default_factory=dict)
    # `origins` for the settings of the part that is being checked, see `set_part_origins`.
    _part_origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    _seen: set[ProblemAtPath] = field(default_factory=set)
    spec_version: int = SPEC_VERSION  # whose rules the spec follows

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
        """Add a problem. One that occurs again, as in a repeated layer, is added only once.

        Args:
            code: Kind of problem.
            path: Path of the key or value that is wrong.
            found: What is wrong.
            fix: What the user can write instead.
            at_value: Point at the value, not at the key.
            shown: Text printed in parentheses after the path, to say which copy or output is meant.
            at_key: Point at the key even if the path leads to a part.
            note: A line printed below the problem.
        """
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
        """Add the finding of a check or an exception as a problem.

        Args:
            path: Path of the key or value that is wrong.
            finding: Code, message and fix.
            at_value: Point at the value, not at the key.
            shown: Text printed in parentheses after the path.
            note: A line printed below the problem, used if the finding has no note.
        """
        line_below = finding.note or note
        self.add(finding.code, path, finding.found, finding.fix, at_value=at_value, shown=shown, note=line_below)

    def refuse_changed_rule(self, rule: ChangedRule, path: KeyPath, *, at_value: bool = False) -> None:
        """Report a place where a changed rule gives another result, if the spec follows an older version.

        Args:
            rule: The rule that was changed.
            path: Path of the key or value that it applies to.
            at_value: Point at the value, not at the key.
        """
        if self.spec_version >= rule.since:
            return
        found = f"version {rule.since} changed the rule '{rule.name}', and spec_version is {self.spec_version}"
        fix = f"set spec_version to {rule.since} for the new rule; {rule.former_way}"
        note = f"{rule.name}: {rule.change}"
        self.add(Code.CHANGED_RULE, path, found, fix, at_value=at_value, note=note)

    def remove_codes(self, codes: Collection[Code]) -> None:
        """Remove all problems that have one of these codes."""
        self.found = [each for each in self.found if each.code not in codes]

    def set_part_origins(self, origins: Mapping[KeyPath, KeyPath]) -> None:
        """Locate problems by `origins` until the next call: where the params in one part's settings were written.

        Needed because a network may use a block more than once, each time with other params.
        """
        self._part_origins = origins

    def make_empty_copy(self) -> Problems:
        """Make an empty list that locates problems as this one does."""
        return Problems(origins=self.origins, names=self.names, spec_version=self.spec_version)

    def __len__(self) -> int:
        return len(self.found)

    def locate(self, source_map: SourceMap) -> list[Problem]:
        """Look up the location of every problem.

        A wrong value that multiple `$param` or `${...}` refer to is one problem.

        Returns:
            The problems in the order of the files, those of the command line last.
        """
        problems: list[Problem] = []
        first_by_origin: dict[tuple[SourceLocation, Code], int] = {}
        further_paths: dict[int, list[str]] = {}
        reported: set[tuple[SourceLocation, str]] = set()
        for each in self.found:
            location, is_origin = self._find_location(each, source_map)
            path = f"{format_path(each.path)} ({each.shown})" if each.shown else format_path(each.path)
            if location is not None and is_origin:
                first = first_by_origin.setdefault((location, each.code), len(problems))
                if (location, each.found) in reported:
                    continue
                if first < len(problems) and problems[first].path != path:
                    further_paths.setdefault(first, []).append(path)
                    continue
            if location is not None:
                reported.add((location, each.found))
            problems.append(Problem(each.code, path, each.found, each.fix, location, each.note))
        for index, paths in further_paths.items():
            note = f"the same value does not suit {join_first(paths, MAX_SHOWN_PLACES)}"
            problems[index] = replace(problems[index], note="\n".join(filter(None, [problems[index].note, note])))
        return sort_by_location(problems)

    def _find_location(self, problem: ProblemAtPath, source_map: SourceMap) -> tuple[SourceLocation | None, bool]:
        path, at_value = problem.path, problem.at_value
        # A param gives a setting's value, and its key or the part's name only if it gives the whole part.
        is_about_key = problem.at_key or (not at_value and self.names.get(path[:-1]) == (path, False))
        if problem.origin is not None and (not is_about_key or problem.origin[-1] == path[-1]):
            origin = self._find_origin(problem.origin, at_value=True)
            return source_map.find(origin, at_value=at_value), True
        if path in self.names and not at_value and not problem.at_key:
            path, at_value = self.names[path]
        origin = self._find_origin(path, at_value)
        return source_map.find(origin, at_value=at_value), origin != path

    def _find_origin(self, path: KeyPath, at_value: bool) -> KeyPath:
        """Follow `origins` to the path where the value at `path`, or with `at_value=False` its key, was written."""
        for _ in range(len(self.origins)):  # bounded, because two references may lead to each other
            # A reference brings along the values and the keys below it, but not its own key.
            lengths = range(len(path) if at_value else len(path) - 1, 0, -1)
            length = next((each for each in lengths if path[:each] in self.origins), 0)
            if not length:
                break
            path = (*self.origins[path[:length]], *path[length:])
        return path


def sort_by_location(problems: list[Problem]) -> list[Problem]:
    """Sort problems by file (in the order in which the files first occur), line and column."""
    sources = list(dict.fromkeys(each.location.source for each in problems if each.location and each.location.line))

    def rank(problem: Problem) -> tuple[int, int, int]:
        location = problem.location
        if location is None or not location.line:
            return len(sources), 0, 0
        return sources.index(location.source), location.line, location.column

    return sorted(problems, key=rank)


def raise_problems(problems: Problems, make_source_map: Callable[[], SourceMap]) -> None:
    """Raise `SpecError` with every problem, if there is one.

    `make_source_map` is called only if there are problems, because building the map takes a while.
    """
    if problems:
        raise SpecError(problems.locate(make_source_map()))
