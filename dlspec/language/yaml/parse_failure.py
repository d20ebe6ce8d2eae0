"""Where YAML's parser stopped, and what is read of the lines there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlspec.errors import Code, Problem, SourceLocation

MAX_LINE = 2_000  # characters: nobody writes a longer line, and a hostile one shall not keep an expression busy
MakeProblem = Callable[[int, int, int, str, str], Problem]
"""Makes the problem at a line and column (from 0) of a width, with what was found and how to mend it."""
_QUOTED_OR_COMMENT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:''|[^'])*'|(?:^|\s)#.*")


@dataclass(frozen=True)
class ParseFailure:
    """Where the parser stopped (lines and columns from 0), what it said, and where what it was reading began."""

    name: str
    lines: Sequence[str]
    line: int
    column: int
    message: str
    context: str
    context_start: tuple[int, int]

    @property
    def text(self) -> str:
        return self.line_text(self.line)

    @property
    def above(self) -> str:
        """The line before, without its comment."""
        return re.sub(r"(^|\s)#.*", "", self.line_text(self.line - 1)).rstrip()

    @property
    def char(self) -> str:
        return self.text[self.column : self.column + 1]

    def message_has(self, text: str) -> bool:
        """Whether these words stand in the parser's complaint: it has no codes, so nothing else tells its kind."""
        return text in self.message

    def context_has(self, text: str) -> bool:
        """The same of what the parser was reading: `while parsing a flow mapping`."""
        return text in self.context

    def line_text(self, number: int) -> str:
        return self.lines[number] if 0 <= number < len(self.lines) else ""

    def problem_at(self, line: int, column: int, width: int, found: str, fix: str) -> Problem:
        return Problem(
            Code.YAML_SYNTAX,
            "",
            found,
            fix,
            SourceLocation(self.name, line + 1, column + 1, self.line_text(line), max(1, width)),
        )

    def problem_here(self, found: str, fix: str) -> Problem:
        return self.problem_at(self.line, self.column, 1, found, fix)


def read_word(line: str) -> str:
    return line.strip().removeprefix("- ").strip()


def measure_indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def mask_quoted(text: str) -> str:
    """The text with blanks in the place of what is quoted or a comment."""
    return _QUOTED_OR_COMMENT.sub(lambda found: " " * len(found[0]), text[:MAX_LINE])


# How much deeper within brackets each sign leads.
_BRACKET_DEPTHS = {**dict.fromkeys("{([", 1), **dict.fromkeys("})]", -1)}


def cut_after_bracket(text: str) -> str:
    """The beginning of `${...} ...` up to the bracket that closes it, or to the end."""
    depth = 0
    for at, char in enumerate(text):
        depth += _BRACKET_DEPTHS.get(char, 0)
        if at and depth == 0:
            return text[: at + 1]
    return text.rstrip()
