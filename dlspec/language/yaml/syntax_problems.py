"""Find the most likely cause of a YAML syntax error.

The parser reports only where it failed, which is rarely where the error is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import yaml

from dlspec.errors import Code, Problem, SourceLocation
from dlspec.language.yaml.parse_failure import (
    MAX_LINE,
    MakeProblem,
    ParseFailure,
    cut_after_bracket,
    mask_quoted,
    measure_indent,
    read_word,
)

_COLON_MESSAGE = "mapping values are not allowed"
_COMMA_MESSAGE = "did not find expected ',' or"
# The setting of each container that contains its layers.
_LIST_KEYS = {"Residual": "body", "Parallel": "branches", "Sequential": "layers", "TimeDistributed": "layers"}
_UNUSUAL_SPACE = re.compile(r"[ \t]*[^\S \t\n]")


def diagnose_parser_error(name: str, lines: Sequence[str], error: yaml.MarkedYAMLError) -> Problem:
    """Find the likely cause of a YAML parser's error.

    Args:
        name: Name of the file in messages.
        lines: Lines of the file.
        error: Exception of the parser.

    Returns:
        The problem with its location and fix; the parser's own message if no cause is recognized.
    """
    found, mark = str(error.problem or "unreadable"), error.problem_mark or error.context_mark
    if mark is None:
        return Problem(Code.YAML_SYNTAX, "", f"invalid YAML: {found}", "", SourceLocation(name))
    context_start = error.context_mark or mark
    failure = ParseFailure(
        name, lines, mark.line, mark.column, found, str(error.context), (context_start.line, context_start.column)
    )
    problems = (find_problem(failure) for find_problem in _PROBLEM_FINDERS)
    return next((each for each in problems if each is not None), None) or failure.problem_here(
        f"invalid YAML: {found}", ""
    )


def _find_tab(failure: ParseFailure) -> Problem | None:
    if "\t" not in failure.text[: measure_indent(failure.text)]:
        return None
    return failure.problem_at(
        failure.line, failure.text.index("\t"), 1, "a tab in the indentation", "indent with spaces only"
    )


def _find_unusual_space(failure: ParseFailure) -> Problem | None:
    """Find a non-breaking or similar space, as copied from a web page: YAML treats it as a letter."""
    for line in range(failure.context_start[0], failure.line + 1):
        found = _UNUSUAL_SPACE.match(failure.line_text(line))
        if found is not None:
            code = ord(found[0][-1])
            fix = "replace it with a normal space"
            return failure.problem_at(
                line, found.end() - 1, 1, f"a space that YAML does not accept (U+{code:04X})", fix
            )
    return None


def _find_unquoted_expression(failure: ParseFailure) -> Problem | None:
    """Find `${...}` or `$(...)` without quotes, whose brackets, comma or colon YAML read as its own syntax."""
    if not failure.message_has(_COMMA_MESSAGE) and not failure.message_has(_COLON_MESSAGE):
        return None
    masked = mask_quoted(failure.text)
    start = max(masked.rfind("${", 0, failure.column + 1), masked.rfind("$(", 0, failure.column + 1))
    if start < 0:
        return None
    written = cut_after_bracket(failure.text[start:])
    if start + len(written) < failure.column:
        return None
    where = " inside { } or [ ]" if failure.message_has(_COMMA_MESSAGE) else ""
    quotes = "'" if '"' in written else '"'
    fix = f"write {quotes}{written}{quotes}"
    return failure.problem_at(
        failure.line, start, len(written), f"{written[:2]}...{written[-1]} without quotes{where}", fix
    )


def _find_wrong_bracket(failure: ParseFailure) -> Problem | None:
    if not failure.context_has("while parsing a flow") or failure.char not in ("]", "}"):
        return None
    opened, expected = ("{", "}") if failure.context_has("mapping") else ("[", "]")
    if failure.char == expected:
        return None
    where = f"line {failure.context_start[0] + 1}, column {failure.context_start[1] + 1}"
    return failure.problem_here(
        f"'{failure.char}' does not close '{opened}'", f"close the '{opened}' of {where} with '{expected}'"
    )


def _find_name_without_colon(failure: ParseFailure) -> Problem | None:
    """Find a name directly before a bracket: `Conv2d {out_channels: 3, ...}` or `[Conv2d {...}]`."""
    masked = mask_quoted(failure.text)
    for found in re.finditer(r"(?:^\s*(?:- )?|[\[{,]\s*)(\w+) *([{\[(])", masked):
        if found.end() <= failure.column + 1 and not found[1].isdigit():
            return make_colon_problem(failure.problem_at, failure.line, found.start(1), found[1])
    return None


def check_name_before_bracket(make_problem: MakeProblem, line: int, column: int, key: str) -> Problem | None:
    """Detect the missing colon of `Conv2d {out_channels: 3}`, where YAML reads 'Conv2d {out_channels' as the key.

    Args:
        make_problem: Makes the problem.
        line: Line of the key, counted from 0.
        column: Column of the key, counted from 0.
        key: The key as YAML reads it.

    Returns:
        The problem, or None if the key contains no bracket.
    """
    found = re.match(r"(\w+) *[{\[(]", key)
    return None if found is None else make_colon_problem(make_problem, line, column, found[1])


def make_colon_problem(make_problem: MakeProblem, line: int, column: int, name: str) -> Problem:
    """Make the problem for a name that lacks its colon.

    Args:
        make_problem: Makes the problem.
        line: Line of the name, counted from 0.
        column: Column of the name, counted from 0.
        name: The name that should be followed by a colon.
    """
    fix = f"write '{name}: {{...}}' for settings, '{name}: VALUE' for one value"
    return make_problem(line, column, len(name), f"missing ':' after '{name}'", fix)


def _find_missing_comma(failure: ParseFailure) -> Problem | None:
    if not failure.message_has(_COMMA_MESSAGE):
        return None
    before = failure.text[: min(failure.column, MAX_LINE)]
    word = re.search(r"[\w\"'$.]+\s*$", before) if failure.char == ":" else None
    if word is None:
        is_text = failure.line == failure.context_start[0] and failure.char not in ("", "]", "}")
        return failure.problem_here("missing ',' before this", "put a ',' between two values") if is_text else None
    opened_at = measure_indent(failure.line_text(failure.context_start[0]))
    if failure.line > failure.context_start[0] and measure_indent(failure.text) <= opened_at:
        return None
    name = word[0].strip()
    return failure.problem_at(
        failure.line, word.start(), len(name), f"missing ',' before '{name}'", "put a ',' between two settings"
    )


def _find_unclosed_text(failure: ParseFailure) -> Problem | None:
    """Find a quote, bracket or key that is not closed, and point at its start instead of where the parser failed."""
    line, column = failure.context_start
    if line >= failure.line and not failure.context_has("quoted"):
        return None
    if failure.context_has("while scanning a quoted scalar") and not failure.message_has("escape"):
        return failure.problem_at(line, column, 1, "this quote is not closed", "close it with the same quote")
    if failure.context_has("while parsing a flow"):
        opened, closing = ("{", "}") if failure.context_has("mapping") else ("[", "]")
        return failure.problem_at(
            line, column, 1, f"this '{opened}' is not closed", f"add a '{closing}' after its last value"
        )
    if failure.context_has("while scanning a simple key"):
        return _diagnose_key_without_colon(failure, line, column)
    return None


def _diagnose_key_without_colon(failure: ParseFailure, line: int, column: int) -> Problem:
    text = failure.line_text(line)[column:].split(" #")[0].rstrip()
    return (
        check_missing_space(failure.problem_at, line, column, text)
        or _check_equals_sign(failure, line, column, text)
        or failure.problem_at(line, column, len(text), f"missing ':' after '{text}'", f"write '{text}:'")
    )


def check_missing_space(make_problem: MakeProblem, line: int, column: int, text: str) -> Problem | None:
    """Detect the missing space of `epochs:3` or `-Flatten`, which YAML reads as one string.

    Args:
        make_problem: Makes the problem.
        line: Line of the text, counted from 0.
        column: Column of the text, counted from 0.
        text: The string as YAML reads it.

    Returns:
        The problem, or None if no space is missing.
    """
    setting = re.match(r"(\w+):([^\s:]\S*)$", text)
    if setting is not None:
        return make_problem(
            line, column, len(text), f"missing space after ':' in '{text}'", f"write '{setting[1]}: {setting[2]}'"
        )
    entry = re.match(r"-([A-Za-z$]\S*)", text)
    if entry is not None:
        return make_problem(line, column, 1, f"missing space after the '-' of '{entry[1]}'", f"write '- {entry[1]}'")
    return None


def _check_equals_sign(failure: ParseFailure, line: int, column: int, text: str) -> Problem | None:
    found = re.match(r"(\w+) *= *(\S.*)$", text)
    if found is None:
        return None
    return failure.problem_at(
        line, column, len(text), f"'=' instead of ':' in '{text}'", f"write '{found[1]}: {found[2]}'"
    )


def _find_problem_above(failure: ParseFailure) -> Problem | None:
    """Find an error in the line above: YAML then joins both lines to one string and complains about the next ':'."""
    if not failure.message_has(_COLON_MESSAGE):
        return None
    above, column = failure.above, measure_indent(failure.above)
    if above and measure_indent(failure.text) == column:
        text = above.strip()
        problem = check_missing_space(failure.problem_at, failure.line - 1, column, text) or _check_equals_sign(
            failure, failure.line - 1, column, text
        )
        if problem is not None:
            return problem
    return check_missing_space(
        failure.problem_at, failure.line, measure_indent(failure.text), failure.text.strip().split(" ")[0].rstrip(":")
    )


def _find_misplaced_dash(failure: ParseFailure) -> Problem | None:
    """Find a list dash that is missing above or indented deeper than the one above: YAML joins such lines."""
    line, above, number = failure.text, failure.above, failure.line
    if not failure.message_has(_COLON_MESSAGE):
        return None
    if (
        line.lstrip().startswith("- ")
        and above.lstrip().startswith("- ")
        and measure_indent(line) > measure_indent(above)
    ):
        return failure.problem_at(
            number,
            measure_indent(line),
            1,
            "this '-' is indented deeper than the one above",
            "start both in the same column",
        )
    word = above.strip()
    if word.isidentifier() and word[0].isupper() and measure_indent(line) == measure_indent(above):
        fix = f"write '- {word}', and '- ' before each entry below"
        return failure.problem_at(number - 1, measure_indent(above), len(word), f"missing '- ' before '{word}'", fix)
    return None


def _find_missing_colon(failure: ParseFailure) -> Problem | None:
    """Find a name without a colon in the line above, when this line is indented below it like a setting."""
    word = read_word(failure.above)
    if (
        not failure.message_has(_COLON_MESSAGE)
        or not word.isidentifier()
        or measure_indent(failure.text) <= measure_indent(failure.above)
    ):
        return None
    column = len(failure.above) - len(word)
    return failure.problem_at(
        failure.line - 1, column, len(word), f"missing ':' after '{word}', which has keys below it", f"write '{word}:'"
    )


def _find_setting_below_value(failure: ParseFailure) -> Problem | None:
    """Find a setting below a key that already has a value: `Conv2d: 32` and an indented `kernel_size: 3`."""
    found = re.match(r"\s*(?:- )?([\w$]+): (.+)$", failure.above)
    if (
        not failure.message_has(_COLON_MESSAGE)
        or found is None
        or measure_indent(failure.text) <= measure_indent(failure.above)
    ):
        return None
    word = failure.text.split(":")[0].strip()
    name, value = found[1], found[2].strip()
    description = f"'{word}' is indented below '{name}', which already has the value {value[:40]}"
    fix = f"start '{word}' in the column of '{name}', or write that value as a setting with a name below '{name}:'"
    return failure.problem_at(failure.line, measure_indent(failure.text), len(word), description, fix)


def _find_second_colon(failure: ParseFailure) -> Problem | None:
    if not failure.message_has(_COLON_MESSAGE):
        return None
    found = re.match(r"\s*(?:- )?(\w+): (\w+): *(\S.*)?$", failure.text)
    or_text = "put quotes around text that contains ':'"
    fix = f"write '{found[1]}: {{{found[2]}: {found[3] or '...'}}}', or {or_text}" if found else or_text
    return failure.problem_here("there is a second ':' in this line", fix)


def _find_text_after_end(failure: ParseFailure) -> Problem | None:
    """Find text after the end of a value: an extra bracket, or text after a closing quote."""
    before = failure.text[: failure.column].rstrip()
    if not failure.message_has("did not find expected key") and not failure.message_has("<document start>"):
        return None
    if failure.char in ("]", "}"):
        return failure.problem_here(f"an extra '{failure.char}'", "remove it")
    if before.endswith(("'", '"')):
        quote = before[-1]
        escape_hint = "a ' within '...' is written twice: ''" if quote == "'" else 'a " within "..." is written \\"'
        return failure.problem_here("text after a closing quote", f"close the quotes at the end; {escape_hint}")
    return None


def _find_wrong_indentation(failure: ParseFailure) -> Problem | None:
    if not failure.message_has("did not find expected key") or measure_indent(failure.text) != failure.column:
        return None
    columns = _find_open_columns(failure.lines[: failure.line])
    if failure.column + 1 in columns:
        return None
    nearby = [each for each in columns if abs(each - failure.column - 1) <= 4]
    expected = " or ".join(str(each) for each in nearby)
    fix = f"start in column {expected}, like a line above" if nearby else "start in the same column as a line above"
    return failure.problem_here(f"no block that is open here starts in column {failure.column + 1}", fix)


def _find_open_columns(lines: Sequence[str]) -> list[int]:
    """Return the columns, counted from 1, of the mappings and lists that a line after these could continue."""
    columns: list[int] = []
    for line in reversed(lines):
        column = measure_indent(line) + 1
        if line.strip() and line.strip()[0] != "#" and (not columns or column < columns[0]):
            columns.insert(0, column)
    return columns


def _find_list_among_settings(failure: ParseFailure) -> Problem | None:
    """Find a list's '-' in the column of the keys of a mapping, as in `shortcut: auto` followed by `- Linear: 8`."""
    if not failure.message_has("did not find expected key") or not failure.text.lstrip().startswith("- "):
        return None
    above = [each for each in failure.lines[: failure.line] if measure_indent(each) < failure.column and each.strip()]
    if failure.column != measure_indent(failure.text) or not above:
        return None
    if failure.column + 1 not in _find_open_columns(failure.lines[: failure.line]):
        return None
    found = re.match(r"\s*(?:- )?(\w+):\s*$", above[-1])
    name = found[1] if found else ""
    key = _LIST_KEYS.get(name, "")
    fix = f"write '{key}:' above the list, in the column of the settings" if key else "write a key above the list"
    return failure.problem_here(f"a list item among the settings{f' of {name!r}' if name else ''}", fix)


def _find_missing_dash(failure: ParseFailure) -> Problem | None:
    if not failure.message_has("did not find expected '-'"):
        return None
    text = failure.text.strip()
    word = text.split(":")[0]
    if (problem := check_missing_space(failure.problem_at, failure.line, failure.column, word)) is not None:
        return problem
    fix = f"write '- {text}', or indent it differently if it does not belong to the list"
    return failure.problem_at(failure.line, failure.column, len(word), f"missing '- ' before '{word}' in a list", fix)


# Part of the parser's message; what was found; the fix.
_PARSER_MESSAGES: tuple[tuple[str, str, str], ...] = (
    ("cannot start any token", "unquoted text can't begin with '{char}'", "put quotes around it"),
    ("alphabetic or numeric character", "unquoted text can't begin with '{char}'", 'put quotes around it: "{word}"'),
    ("unknown escape character", "'{pair}' is not a valid escape", "write \\\\ for a \\, or use single quotes"),
    ("block sequence entries", "a list can't start in the line of its key", "start it on a new line, or write [...]"),
    ("block collections", "a list can't start in the line of its key", "start it on a new line, or write [...]"),
    ("comment or line break", "unquoted text can't begin with > or |", "put quotes around it"),
    ("incompatible YAML", "a %YAML line", "remove it"),
    ("directive", "unquoted text can't begin with %", "put quotes around it"),
    ("unexpected ':'", "unquoted text inside {{ }} or [ ] can't contain ':'", "put quotes around the text"),
)  # fmt: skip


def _match_parser_message(failure: ParseFailure) -> Problem | None:
    # For an anchor or alias without a name, the parser points at the character after the & or *.
    back = 1 if failure.message_has("alphabetic") else 0
    column = max(0, failure.column - back)
    pair, word = failure.text[column : column + 2], re.split(r"[\s,:\]}]", failure.text[column:], maxsplit=1)[0]
    for sign, found, fix in _PARSER_MESSAGES:
        if failure.message_has(sign):
            found = found.format(char=pair[:1], pair=pair)
            return failure.problem_at(failure.line, column, 1, found, fix.format(word=word))
    return None


# Tried in this order; the first that returns a problem decides.
_PROBLEM_FINDERS: tuple[Callable[[ParseFailure], Problem | None], ...] = (
    _find_tab,
    _find_unusual_space,
    _find_unquoted_expression,
    _find_wrong_bracket,
    _find_name_without_colon,
    _find_missing_comma,
    _find_unclosed_text,
    _find_misplaced_dash,
    _find_missing_colon,
    _find_problem_above,
    _find_setting_below_value,
    _find_second_colon,
    _find_text_after_end,
    _find_list_among_settings,
    _find_wrong_indentation,
    _find_missing_dash,
    _match_parser_message,
)
