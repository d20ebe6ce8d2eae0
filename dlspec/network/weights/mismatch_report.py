"""Report what differs between a file of weights and a model, with fixes that work as printed."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from dlspec.errors import Code, KeyPath
from dlspec.formatting import format_argument
from dlspec.language.problems import Problems
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.network.weights.mismatch_texts import (
    describe_conflict,
    describe_missing,
    describe_shapes,
    describe_types,
    describe_unused,
    find_missing_patterns,
)
from dlspec.network.weights.mismatches import COUNTER_SUFFIX, Mismatches, ShapeMismatch
from dlspec.network.weights.name_groups import find_patterns, format_patterns
from dlspec.network.weights.rename_suggestions import suggest_renames

WEIGHTS_PATH: KeyPath = ("weights",)
_RESIZE = "give the model the sizes of the file"
MAX_TYPED = 40  # patterns in one argument; more than that nobody types


def report_mismatches(found: Mismatches, spec: WeightsSpec, problems: Problems) -> None:
    """Report all that differs, each cause once.

    Args:
        found: What differs.
        spec: The spec's `weights` section. A fix repeats what it has, as an argument replaces a list.
        problems: Collects a problem for each kind of difference.
    """
    _Report(found, spec, problems).add_all()


class _Report:
    def __init__(self, found: Mismatches, spec: WeightsSpec, problems: Problems) -> None:
        self.found, self.spec, self.problems = found, spec, problems
        transposed = {each.name for each in found.shapes if each.fits_transposed}
        self.own_start = [  # names that can only keep their initial values
            *(each.name for each in found.shapes if each.name not in transposed),
            *(each.name for each in found.types),
            *found.missing,
        ]

    def add_all(self) -> None:
        """Add a problem for each kind of difference."""
        transposed = [each for each in self.found.shapes if each.fits_transposed]
        others = [each for each in self.found.shapes if not each.fits_transposed]
        if transposed:
            self._add(describe_shapes(transposed), self._fix_transposed(transposed))
        if others:
            self._add(describe_shapes(others), self._fix_own_start())
        if self.found.types:
            self._add(describe_types(self.found.types), self._fix_own_start())
        self._add_names()
        for first, second, file_name in self.found.conflicts:
            left_out = format_argument("weights.rename", {file_name: None})
            is_renamed = self._is_renamed(file_name)
            leave_out = "map one to null in weights.rename" if is_renamed else f"leave one out: {left_out}"
            self._add(describe_conflict(first, second), f"{leave_out}, or untie them in the model")

    def _add(self, found: str, fix: str) -> None:
        self.problems.add(Code.WEIGHTS_MISMATCH, (*WEIGHTS_PATH, "path"), found, fix, at_value=True)

    # ---- names -----------------------------------------------------------------------------------------------------

    def _add_names(self) -> None:
        """Add one problem where renaming mends both sides, else one for each."""
        found, renames = self.found, self._suggest_renames()
        if renames:
            both = f"{describe_unused(found)}; {describe_missing(found)}" if found.missing else describe_unused(found)
            self._add(both, f"rename them: {format_argument('weights.rename', renames)}")
            return
        if found.unused:
            fix = _join_fixes(self._list_free_names(), self._leave_out_unused(), self._ignore_names())
            self._add(describe_unused(found), fix)
        if found.missing:
            self._add(describe_missing(found), _join_fixes(self._fix_own_start(), self._ignore_names()))

    def _suggest_renames(self) -> dict[str, str]:
        found, names = self.found, {name for name, new in self.found.unused if name == new}
        unused = {name: each for name, each in found.file_shapes.items() if name in names}
        missing = {name: found.own_shapes[name] for name in (*found.missing, *found.missing_counters)}
        return suggest_renames(unused, missing, [name for name in found.file_shapes if name not in names])

    def _list_free_names(self) -> str:
        if not self.found.missing:
            return ""
        return (
            f"map them in weights.rename to names of the model ({format_patterns(find_missing_patterns(self.found))})"
        )

    def _leave_out_unused(self) -> str:
        names = {name for name, new in self.found.unused if name == new}
        others = [each for each in self.found.file_shapes if each not in names]
        patterns = [each.pattern for each in find_patterns(sorted(names), others)]
        if len(names) < len(self.found.unused) or len(patterns) > MAX_TYPED:
            return "map them to null in weights.rename"
        return (
            f"leave them out: {format_argument('weights.rename', dict.fromkeys(patterns))}" if self.found.filled else ""
        )

    def _ignore_names(self) -> str:
        """Say how to ignore names that match nothing; with no tensor that fits, that would load nothing."""
        return "set weights.strict=false" if self.found.filled else ""

    def _is_renamed(self, file_name: str) -> bool:
        return any(fnmatch.fnmatchcase(file_name, each) for each in self.spec.rename)

    # ---- values ----------------------------------------------------------------------------------------------------

    def _fix_own_start(self) -> str:
        """Say how to keep the initial values of all that the file can't fill: one list, for all problems."""
        if not self.found.filled and not self.found.shapes:
            return "" if self.found.unused else "leave out weights.path: no tensor of the file fits"
        if not self.found.filled:
            return f"no tensor fits: {_RESIZE}, or leave out weights.path"
        own_start = set(self.own_start)
        others = [each for each in self.found.own_shapes if each not in own_start and not each.endswith(COUNTER_SUFFIX)]
        patterns = [each.pattern for each in find_patterns(self.own_start, others)]
        if len(patterns) > MAX_TYPED:
            return f"{_RESIZE}, or list what keeps its initial values in weights.fresh"
        fix = f"keep the model's initial values: {format_argument('weights.fresh', [*self.spec.fresh, *patterns])}"
        return f"{_RESIZE}, or {fix}" if len(self.found.shapes) > self.found.filled else fix

    def _fix_transposed(self, shapes: Sequence[ShapeMismatch]) -> str:
        names = [each.files[0] for each in shapes]
        others = [each for each in self.found.file_shapes if each not in set(names)]
        patterns = [each.pattern for each in find_patterns(names, others)]
        if len(patterns) > MAX_TYPED:
            return "transpose them: list their names in weights.transpose"
        what = "it" if len(names) == 1 else "them"
        fix = f"transpose {what}: {format_argument('weights.transpose', [*self.spec.transpose, *patterns])}"
        squares = self._list_squares(names)
        note = "; these are square and fit either way, so add those that the file has transposed too"
        return (
            f"{fix}{note}: {format_patterns(find_patterns(squares, others=self._list_others(squares)))}"
            if squares
            else fix
        )

    def _list_squares(self, names: Sequence[str]) -> list[str]:
        """List square matrices in the file that no pattern transposes yet: nothing shows which way they are."""
        return [
            name
            for name, shape in self.found.file_shapes.items()
            if len(shape) == 2 and shape[0] == shape[1] > 1 and name not in names
            and not any(fnmatch.fnmatchcase(name, each) for each in self.spec.transpose)
        ]  # fmt: skip

    def _list_others(self, names: Sequence[str]) -> list[str]:
        return [each for each in self.found.file_shapes if each not in set(names)]


def _join_fixes(*fixes: str) -> str:
    return ", or ".join(each for each in fixes if each)
