"""Where YAML's parser failed, and helpers that inspect the lines around that position."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlspec.errors import Code, Problem, SourceLocation

MAX_LINE = 2_000  # characters; longer lines are not searched, so that a hostile file can't slow down a regex
# Makes a problem from a line and column (from 0), a width, what was found, and the fix.
MakeProblem = Callable[[int, int, int, str, str], Problem]
_QUOTED_OR_COMMENT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:''|[^'])*'|(?:^|\s)#.*")


@dataclass(frozen=True)
class ParseFailure:
    """Where the parser failed, and its error message. Lines and columns count from 0."""

    name: str  # of the file, in messages
    lines: Sequence[str]
    line: int
    column: int
    message: str  # of the parser
    context: str  # what the parser was reading: "while parsing a flow mapping"
    context_start: tuple[int, int]  # line and column where that started

    @property
    def text(self) -> str:
        """The line at which the parser failed."""
        return self.line_text(self.line)

    @property
    def above(self) -> str:
        """The previous line, without its comment."""
        return re.sub(r"(^|\s)#.*", "", self.line_text(self.line - 1)).rstrip()

    @property
    def char(self) -> str:
        """The character at which the parser failed; '' at the end of a line."""
        return self.text[self.column : self.column + 1]

    def message_has(self, text: str) -> bool:
        """Whether the parser's message contains this text. The parser has no error codes to check instead."""
        return text in self.message

    def context_has(self, text: str) -> bool:
        """Whether the parser's context, such as "while parsing a flow mapping", contains this text."""
        return text in self.context

    def line_text(self, number: int) -> str:
        """The line with this number, from 0; '' if there is none."""
        return self.lines[number] if 0 <= number < len(self.lines) else ""

    def problem_at(self, line: int, column: int, width: int, found: str, fix: str) -> Problem:
        """Make a problem about YAML syntax.

        Args:
            line: Line, counted from 0.
            column: Column, counted from 0.
            width: Number of characters to mark.
            found: What is wrong.
            fix: What the user can write instead.
        """
        return Problem(
            Code.YAML_SYNTAX,
            "",
            found,
            fix,
            SourceLocation(self.name, line + 1, column + 1, self.line_text(line), max(1, width)),
        )

    def problem_here(self, found: str, fix: str) -> Problem:
        """Make a problem at the character where the parser failed."""
        return self.problem_at(self.line, self.column, 1, found, fix)


def read_word(line: str) -> str:
    """Return a line without its indentation and its list dash."""
    return line.strip().removeprefix("- ").strip()


def measure_indent(line: str) -> int:
    """Return the number of blanks at the start of a line."""
    return len(line) - len(line.lstrip())


def mask_quoted(text: str) -> str:
    """Replace quoted strings and comments by blanks of the same length."""
    return _QUOTED_OR_COMMENT.sub(lambda found: " " * len(found[0]), text[:MAX_LINE])


# How much each bracket changes the nesting depth.
_BRACKET_DEPTHS = {**dict.fromkeys("{([", 1), **dict.fromkeys("})]", -1)}


def cut_after_bracket(text: str) -> str:
    """Cut a text that starts with `${` or `$(` after the bracket that closes it; keep it whole if none does."""
    depth = 0
    for at, char in enumerate(text):
        depth += _BRACKET_DEPTHS.get(char, 0)
        if at and depth == 0:
            return text[: at + 1]
    return text.rstrip()
