"""What the writer of a text that is no YAML most likely did: the parser tells where it stopped, which is seldom where
the mistake is.
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
_UNUSUAL_SPACE = re.compile(r"[ \t]*[^\S \t\n]")


def diagnose_parser_error(name: str, lines: Sequence[str], error: yaml.MarkedYAMLError) -> Problem:
    """The mistake behind an error of YAML's parser, with its place and what to write."""
    found, mark = str(error.problem or "it can't be read"), error.problem_mark or error.context_mark
    if mark is None:
        return Problem(Code.YAML_SYNTAX, "", f"not YAML: {found}", "", SourceLocation(name))
    context_start = error.context_mark or mark
    failure = ParseFailure(
        name, lines, mark.line, mark.column, found, str(error.context), (context_start.line, context_start.column)
    )
    problems = (find_problem(failure) for find_problem in _PROBLEM_FINDERS)
    return next((each for each in problems if each is not None), None) or failure.problem_here(f"not YAML: {found}", "")


def _find_tab(failure: ParseFailure) -> Problem | None:
    if "\t" not in failure.text[: measure_indent(failure.text)]:
        return None
    return failure.problem_at(
        failure.line, failure.text.index("\t"), 1, "a tab in the indentation", "indent with spaces"
    )


def _find_unusual_space(failure: ParseFailure) -> Problem | None:
    """A space that was copied from a web page: YAML takes it for text."""
    for line in range(failure.context_start[0], failure.line + 1):
        found = _UNUSUAL_SPACE.match(failure.line_text(line))
        if found is not None:
            code = ord(found[0][-1])
            fix = "replace it by a plain space"
            return failure.problem_at(line, found.end() - 1, 1, f"a space that YAML does not know (U+{code:04X})", fix)
    return None


def _find_unquoted_expression(failure: ParseFailure) -> Problem | None:
    """`${...}` or `$(...)` whose brackets, comma or colon YAML took for its own."""
    if not failure.message_has(_COMMA_MESSAGE) and not failure.message_has(_COLON_MESSAGE):
        return None
    masked = mask_quoted(failure.text)
    start = max(masked.rfind("${", 0, failure.column + 1), masked.rfind("$(", 0, failure.column + 1))
    if start < 0:
        return None
    written = cut_after_bracket(failure.text[start:])
    if start + len(written) < failure.column:
        return None
    where = " within { } or [ ]" if failure.message_has(_COMMA_MESSAGE) else ""
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
        f"'{failure.char}' closes no '{opened}'", f"the '{opened}' of {where} closes with '{expected}'"
    )


def _find_name_without_colon(failure: ParseFailure) -> Problem | None:
    """`Conv2d {out_channels: 3, ...}` and `[Conv2d {...}]`."""
    masked = mask_quoted(failure.text)
    for found in re.finditer(r"(?:^\s*(?:- )?|[\[{,]\s*)(\w+) *([{\[(])", masked):
        if found.end() <= failure.column + 1 and not found[1].isdigit():
            return make_colon_problem(failure.problem_at, failure.line, found.start(1), found[1])
    return None


def check_name_before_bracket(make_problem: MakeProblem, line: int, column: int, key: str) -> Problem | None:
    """`Conv2d {out_channels: 3}`: YAML reads 'Conv2d {out_channels' as the key."""
    found = re.match(r"(\w+) *[{\[(]", key)
    return None if found is None else make_colon_problem(make_problem, line, column, found[1])


def make_colon_problem(make_problem: MakeProblem, line: int, column: int, name: str) -> Problem:
    """The name alone is known; what stands behind it may be anything."""
    fix = f"write '{name}: {{...}}' for settings, '{name}: VALUE' for one value"
    return make_problem(line, column, len(name), f"no ':' behind '{name}'", fix)


def _find_missing_comma(failure: ParseFailure) -> Problem | None:
    if not failure.message_has(_COMMA_MESSAGE):
        return None
    before = failure.text[: min(failure.column, MAX_LINE)]
    word = re.search(r"[\w\"'$.]+\s*$", before) if failure.char == ":" else None
    if word is None:
        is_text = failure.line == failure.context_start[0] and failure.char not in ("", "]", "}")
        return failure.problem_here("no ',' before this", "put a ',' between two values") if is_text else None
    opened_at = measure_indent(failure.line_text(failure.context_start[0]))
    if failure.line > failure.context_start[0] and measure_indent(failure.text) <= opened_at:
        return None
    name = word[0].strip()
    return failure.problem_at(
        failure.line, word.start(), len(name), f"no ',' before '{name}'", "put a ',' between two settings"
    )


def _find_unclosed_text(failure: ParseFailure) -> Problem | None:
    """What began in one line and did not end there is shown where it began."""
    line, column = failure.context_start
    if line >= failure.line and not failure.context_has("quoted"):
        return None
    if failure.context_has("while scanning a quoted scalar") and not failure.message_has("escape"):
        return failure.problem_at(line, column, 1, "a quote that is not closed", "close it with the same quote")
    if failure.context_has("while parsing a flow"):
        return failure.problem_at(line, column, 1, "a bracket that is not closed", "close it behind its last value")
    if failure.context_has("while scanning a simple key"):
        return _diagnose_key_without_colon(failure, line, column)
    return None


def _diagnose_key_without_colon(failure: ParseFailure, line: int, column: int) -> Problem:
    text = failure.line_text(line)[column:].split(" #")[0].rstrip()
    return (
        check_missing_space(failure.problem_at, line, column, text)
        or _check_equals_sign(failure, line, column, text)
        or failure.problem_at(line, column, len(text), f"no ':' behind '{text}'", f"write '{text}:'")
    )


def check_missing_space(make_problem: MakeProblem, line: int, column: int, text: str) -> Problem | None:
    """`epochs:3` and `-Flatten`: YAML wants a space there, and takes them for one word."""
    setting = re.match(r"(\w+):([^\s:]\S*)$", text)
    if setting is not None:
        return make_problem(
            line, column, len(text), f"no space behind ':' in '{text}'", f"write '{setting[1]}: {setting[2]}'"
        )
    entry = re.match(r"-([A-Za-z$]\S*)", text)
    if entry is not None:
        return make_problem(line, column, 1, f"no space behind the '-' of '{entry[1]}'", f"write '- {entry[1]}'")
    return None


def _check_equals_sign(failure: ParseFailure, line: int, column: int, text: str) -> Problem | None:
    found = re.match(r"(\w+) *= *(\S.*)$", text)
    if found is None:
        return None
    return failure.problem_at(line, column, len(text), f"'=' in '{text}'", f"write '{found[1]}: {found[2]}'")


def _find_problem_above(failure: ParseFailure) -> Problem | None:
    """A ':' too many in this line often means that the line above was taken for the beginning of its text."""
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
    """A list's dash that is missing above, or stands deeper than the one above: YAML joins such lines to one text."""
    line, above, number = failure.text, failure.above, failure.line
    if not failure.message_has(_COLON_MESSAGE):
        return None
    if (
        line.lstrip().startswith("- ")
        and above.lstrip().startswith("- ")
        and measure_indent(line) > measure_indent(above)
    ):
        return failure.problem_at(
            number, measure_indent(line), 1, "a '-' that stands deeper than the one above", "begin both in one column"
        )
    word = above.strip()
    if word.isidentifier() and word[0].isupper() and measure_indent(line) == measure_indent(above):
        fix = f"write '- {word}', and '- ' before each entry below"
        return failure.problem_at(number - 1, measure_indent(above), len(word), f"no '- ' before '{word}'", fix)
    return None


def _find_missing_colon(failure: ParseFailure) -> Problem | None:
    """The word in the line above, where that is alone and this line stands below it like a setting."""
    word = read_word(failure.above)
    if (
        not failure.message_has(_COLON_MESSAGE)
        or not word.isidentifier()
        or measure_indent(failure.text) <= measure_indent(failure.above)
    ):
        return None
    column = len(failure.above) - len(word)
    return failure.problem_at(
        failure.line - 1, column, len(word), f"keys below '{word}', and no ':' behind it", f"write '{word}:'"
    )


def _find_setting_below_value(failure: ParseFailure) -> Problem | None:
    """`Conv2d: 32`, and a setting below it."""
    found = re.match(r"\s*(?:- )?([\w$]+): (.+)$", failure.above)
    if (
        not failure.message_has(_COLON_MESSAGE)
        or found is None
        or measure_indent(failure.text) <= measure_indent(failure.above)
    ):
        return None
    word = failure.text.split(":")[0].strip()
    name, value = found[1], found[2].strip()
    description = f"'{word}' stands below '{name}', which has the value {value[:40]}"
    fix = f"begin '{word}' in the column of '{name}', or write that value as a setting of its own below '{name}:'"
    return failure.problem_at(failure.line, measure_indent(failure.text), len(word), description, fix)


def _find_second_colon(failure: ParseFailure) -> Problem | None:
    if not failure.message_has(_COLON_MESSAGE):
        return None
    found = re.match(r"\s*(?:- )?(\w+): (\w+): *(\S.*)?$", failure.text)
    or_text = "put quotes around a text that has one"
    fix = f"write '{found[1]}: {{{found[2]}: {found[3] or '...'}}}', or {or_text}" if found else or_text
    return failure.problem_here("a second ':' in one line", fix)


def _find_text_after_end(failure: ParseFailure) -> Problem | None:
    """What stands behind a value that had ended: a bracket too many, a text behind a quote."""
    before = failure.text[: failure.column].rstrip()
    if not failure.message_has("did not find expected key") and not failure.message_has("<document start>"):
        return None
    if failure.char in ("]", "}"):
        return failure.problem_here(f"a '{failure.char}' too many", "take it away")
    if before.endswith(("'", '"')):
        quote = before[-1]
        escape_hint = "a ' within '...' is written twice: ''" if quote == "'" else 'a " within "..." is written \\"'
        return failure.problem_here("text behind a closing quote", f"close the quotes at the end; {escape_hint}")
    return None


def _find_wrong_indentation(failure: ParseFailure) -> Problem | None:
    if not failure.message_has("did not find expected key") or measure_indent(failure.text) != failure.column:
        return None
    columns = sorted(
        {measure_indent(each) + 1 for each in failure.lines[: failure.line] if each.strip() and each.strip()[0] != "#"}
    )
    nearby = [each for each in columns if abs(each - failure.column - 1) <= 4]
    expected = " or ".join(str(each) for each in nearby)
    fix = f"begin in column {expected}, as a line above" if nearby else "begin in the column of a line above"
    return failure.problem_here(f"an indentation that no line above has: column {failure.column + 1}", fix)


def _find_missing_dash(failure: ParseFailure) -> Problem | None:
    if not failure.message_has("did not find expected '-'"):
        return None
    word = failure.text.strip().split(":")[0]
    fix = f"write '- {failure.text.strip()}', or begin in another column what is no entry of the list"
    return failure.problem_at(failure.line, failure.column, len(word), f"no '- ' before '{word}', in a list", fix)


# What YAML says, as its parser words it; what the writer did; what to write.
_PARSER_MESSAGES: tuple[tuple[str, str, str], ...] = (
    ("cannot start any token", "text that begins with '{char}'", "put quotes around it"),
    ("alphabetic or numeric character", "text that begins with '{char}'", 'put quotes around it: "*.bias"'),
    ("unknown escape character", "'{pair}' within \" \"", "write \\\\ for a \\, or take ' ' in place of \" \""),
    ("block sequence entries", "a list's '-' in its key's line", "begin the list in the next line, or write [...]"),
    ("block collections", "a list's '-' in its key's line", "begin the list in the next line, or write [...]"),
    ("comment or line break", "text that begins with > or |", "put quotes around it"),
    ("incompatible YAML", "a %YAML line", "take it away"),
    ("directive", "text that begins with %", "put quotes around it"),
)  # fmt: skip


def _match_parser_message(failure: ParseFailure) -> Problem | None:
    back = 1 if failure.message_has("alphabetic") else 0
    column = max(0, failure.column - back)
    pair = failure.text[column : column + 2]
    for sign, found, fix in _PARSER_MESSAGES:
        if failure.message_has(sign):
            return failure.problem_at(failure.line, column, 1, found.format(char=pair[:1], pair=pair), fix)
    return None


# The first that has something to say.
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
    _find_wrong_indentation,
    _find_missing_dash,
    _match_parser_message,
)
