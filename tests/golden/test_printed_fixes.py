"""Every fix that dlspec prints for a wrong spec, and that can be typed as printed, removes the problem.

The fixes of the cases in tests/golden/wrong_specs/ are read as `helpers/printed_fixes.py` says: overrides (as a shell
reads them), YAML, names, lines and calls. Each is applied where the message says, and the command is run again. Fixes
with placeholders, lists of choices, and sentences without anything to type are not run.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from dlspec.cli.main import run_command
from dlspec.errors import Code, Problem, SpecError
from dlspec.jobs import error_reporting
from helpers.applied_fixes import YAML_ON_COMMAND_LINE, NotApplied, Project, apply_fix
from helpers.printed_fixes import SKIPPED, Kind, read_fix
from helpers.wrong_spec_cases import Case, read_cases, write_files

SYNTAX = frozenset({Code.YAML_SYNTAX, Code.OVERRIDE_SYNTAX, Code.FORMULA_SYNTAX, Code.REFERENCE_SYNTAX})
SAMPLE = 20  # one of so many cases is run each time, all of them by `make soak`
CASES = [each for each in read_cases() if each.words[0] != "resume"]  # the runs that these name are not there


def find_problems(project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Problem]:
    """Run the command in a folder with the project's files, and return the problems that it reports."""
    errors: list[BaseException] = []
    explain, modules = error_reporting.message_and_exit_code, set(sys.modules)

    def record_error(error: BaseException) -> tuple[str, int] | None:
        errors.append(error)
        return explain(error)

    folder.mkdir()
    write_files(dict(project.files), folder)
    output = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(error_reporting, "message_and_exit_code", record_error)
        run_command(list(project.words))
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    return [each for error in errors if isinstance(error, SpecError) for each in error.problems]


def is_same(before: Problem, after: Problem, kind: Kind) -> bool:
    """Whether a problem is still there; inserted entries move others, and a line may occur again."""
    if before.code is not after.code:
        return False
    if kind is Kind.INSERT:
        return before.found == after.found
    is_same_line = not before.location or not after.location or before.location.line == after.location.line
    return before.path == after.path and (bool(before.path) or is_same_line)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(each, marks=[pytest.mark.soak] if at % SAMPLE else [], id=str(each))
        for at, each in enumerate(CASES)
    ],
)
def test_fixes_work_as_printed(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(case.words, case.files)
    problems = find_problems(project, tmp_path / "before", monkeypatch)
    known = {(each.code, each.found) for each in problems}
    for at, problem in enumerate(dict.fromkeys(problems)):
        fix = read_fix(problem)
        if fix.kind in SKIPPED:
            continue
        try:
            fixed = apply_fix(project, problem, fix)
        except NotApplied as reason:
            assert str(reason) == YAML_ON_COMMAND_LINE, f"no place for '{fix.text}': {reason}"
            continue
        after = find_problems(fixed, tmp_path / f"after_{at}", monkeypatch)
        left = [each for each in after if is_same(problem, each, fix.kind)]
        assert not left, f"'{fix.text}' does not remove {problem.path} {problem.found}: {left}"
        broken = [each for each in after if each.code in SYNTAX and (each.code, each.found) not in known]
        assert not broken or problem.code in SYNTAX, f"'{fix.text}' is not valid: {broken}"


def read_printed_problems() -> list[Problem]:
    """Read the problems in the messages of all cases: those with a fix as their last part."""
    lines = [line.split("   ") for case in CASES for line in case.message_has.splitlines() if line[:1] != " "]
    found = [each for each in lines if len(each) in (3, 4)]
    return [
        Problem(Code.WRONG_VALUE if len(each) == 4 else Code.YAML_SYNTAX, each[1], each[-2], each[-1]) for each in found
    ]


def test_many_fixes_can_be_typed() -> None:
    """At the last count 318 of 1,092 problems had a fix that can be typed; for one there was no file to write it in."""
    kinds = Counter(read_fix(each).kind for each in read_printed_problems())
    typed = {kind: count for kind, count in kinds.items() if kind not in SKIPPED}
    assert sum(typed.values()) >= 250, kinds
    assert set(Kind) - SKIPPED <= typed.keys()
