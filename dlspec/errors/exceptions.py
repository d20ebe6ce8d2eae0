"""The exceptions that users may catch."""

from __future__ import annotations

from collections.abc import Sequence

from dlspec.errors.problem import Code, Finding, KeyPath, Problem
from dlspec.errors.problem_groups import format_problems


class UserError(Exception):
    """An error in the user's input. Its text can be shown as is; the command line prints it and exits with code 2."""


class DataError(UserError):
    """A data set that can't be opened with its settings.

    Args:
        key: the setting of `data` that causes the error, '' for the data set as a whole.
        message: what is wrong.
        code: the kind of the problem.
        note: lines below the message, such as further bad rows.
        inner_path: the keys from the setting to the value within it that causes the error.
    """

    def __init__(
        self, key: str, message: str, code: Code = Code.BAD_DATA, note: str = "", inner_path: KeyPath = ()
    ) -> None:
        super().__init__("\n    ".join([message, *note.splitlines()]))
        self.key, self.inner_path = key, inner_path
        self.finding = Finding(code, message, note=note)


class InvalidSetting(ValueError):
    """A value that a validator of a section refuses, with the setting that causes it and the kind of problem.

    Args:
        path: the keys from the validated value to the setting, () for the value itself.
        message: what is wrong.
        code: the kind of the problem.
    """

    def __init__(self, path: KeyPath, message: str, code: Code = Code.WRONG_VALUE) -> None:
        super().__init__(message)
        self.path, self.code = path, code


class TrainingFailed(RuntimeError):
    """Training failed although the spec is valid. The text is one line for the user."""


class SpecError(UserError):
    """All problems that were found in a spec.

    Args:
        problems: the problems, in the order in which they are printed.
        outcome: what happened instead, at the end of the message.
    """

    def __init__(self, problems: Sequence[Problem], outcome: str = "nothing was run") -> None:
        self.problems = tuple(problems)
        self.outcome = outcome
        super().__init__(self.format_message())

    def format_message(self) -> str:
        """Return the whole message: the lines of the first problems, and the number of all."""
        count = len(self.problems)
        lines = format_problems(self.problems)
        return "\n".join([*lines, f"{count} problem{'s' if count != 1 else ''}; {self.outcome}."])
