"""What the writer of a text that is no YAML most likely did: the parser tells where it stopped, which is seldom where
the mistake is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import yaml

from dlspec.errors import Code, Problem, SourceLocation
from dlspec.language.yaml.parser_stop import (
    MAX_LINE,
    At,
    Stop,
    cut_behind_bracket,
    mask_quoted,
    measure_indent,
    read_word,
)

_COLONS = "mapping values are not allowed"
_COMMA = "did not find expected ',' or"
_SPACE = re.compile(r"[ \t]*[^\S \t\n]")


def problem(name: str, lines: Sequence[str], error: yaml.MarkedYAMLError) -> Problem:
    """The mistake behind an error of YAML's parser, with its place and what to write."""
    found, mark = str(error.problem or "it can't be read"), error.problem_mark or error.context_mark
    if mark is None:
        return Problem(Code.YAML_SYNTAX, "", f"not YAML: {found}", "", SourceLocation(name))
    begin = error.context_mark or mark
    stop = Stop(name, lines, mark.line, mark.column, found, str(error.context), (begin.line, begin.column))
    told = (tell(stop) for tell in _TELLERS)
    return next((each for each in told if each is not None), None) or stop.here(f"not YAML: {found}", "")


def _tab(stop: Stop) -> Problem | None:
    if "\t" not in stop.text[: measure_indent(stop.text)]:
        return None
    return stop.at(stop.line, stop.text.index("\t"), 1, "a tab in the indentation", "indent with spaces")


def _strange_space(stop: Stop) -> Problem | None:
    """A space that was copied from a web page: YAML takes it for text."""
    for line in range(stop.begin[0], stop.line + 1):
        found = _SPACE.match(stop.line_text(line))
        if found is not None:
            code = ord(found[0][-1])
            fix = "replace it by a plain space"
            return stop.at(line, found.end() - 1, 1, f"a space that YAML does not know (U+{code:04X})", fix)
    return None


def _formula(stop: Stop) -> Problem | None:
    """`${...}` or `$(...)` whose brackets, comma or colon YAML took for its own."""
    if not stop.says(_COMMA) and not stop.says(_COLONS):
        return None
    masked = mask_quoted(stop.text)
    start = max(masked.rfind("${", 0, stop.column + 1), masked.rfind("$(", 0, stop.column + 1))
    if start < 0:
        return None
    written = cut_behind_bracket(stop.text[start:])
    if start + len(written) < stop.column:
        return None
    where = " within { } or [ ]" if stop.says(_COMMA) else ""
    quotes = "'" if '"' in written else '"'
    fix = f"write {quotes}{written}{quotes}"
    return stop.at(stop.line, start, len(written), f"{written[:2]}...{written[-1]} without quotes{where}", fix)


def _wrong_bracket(stop: Stop) -> Problem | None:
    if not stop.says_context("while parsing a flow") or stop.char not in ("]", "}"):
        return None
    opened, wanted = ("{", "}") if stop.says_context("mapping") else ("[", "]")
    if stop.char == wanted:
        return None
    where = f"line {stop.begin[0] + 1}, column {stop.begin[1] + 1}"
    return stop.here(f"'{stop.char}' closes no '{opened}'", f"the '{opened}' of {where} closes with '{wanted}'")


def _name_without_colon(stop: Stop) -> Problem | None:
    """`Conv2d {out_channels: 3, ...}` and `[Conv2d {...}]`."""
    masked = mask_quoted(stop.text)
    for found in re.finditer(r"(?:^\s*(?:- )?|[\[{,]\s*)(\w+) *([{\[(])", masked):
        if found.end() <= stop.column + 1 and not found[1].isdigit():
            return name_without_colon(stop.at, stop.line, found.start(1), found[1])
    return None


def name_with_brackets(at: At, line: int, column: int, key: str) -> Problem | None:
    """`Conv2d {out_channels: 3}`: YAML reads 'Conv2d {out_channels' as the key."""
    found = re.match(r"(\w+) *[{\[(]", key)
    return None if found is None else name_without_colon(at, line, column, found[1])


def name_without_colon(at: At, line: int, column: int, name: str) -> Problem:
    """The name alone is known; what stands behind it may be anything."""
    fix = f"write '{name}: {{...}}' for settings, '{name}: VALUE' for one value"
    return at(line, column, len(name), f"no ':' behind '{name}'", fix)


def _missing_comma(stop: Stop) -> Problem | None:
    if not stop.says(_COMMA):
        return None
    before = stop.text[: min(stop.column, MAX_LINE)]
    word = re.search(r"[\w\"'$.]+\s*$", before) if stop.char == ":" else None
    if word is None:
        is_text = stop.line == stop.begin[0] and stop.char not in ("", "]", "}")
        return stop.here("no ',' before this", "put a ',' between two values") if is_text else None
    opened_at = measure_indent(stop.line_text(stop.begin[0]))
    if stop.line > stop.begin[0] and measure_indent(stop.text) <= opened_at:
        return None
    name = word[0].strip()
    return stop.at(stop.line, word.start(), len(name), f"no ',' before '{name}'", "put a ',' between two settings")


def _unfinished(stop: Stop) -> Problem | None:
    """What began in one line and did not end there is shown where it began."""
    line, column = stop.begin
    if line >= stop.line and not stop.says_context("quoted"):
        return None
    if stop.says_context("while scanning a quoted scalar") and not stop.says("escape"):
        return stop.at(line, column, 1, "a quote that is not closed", "close it with the same quote")
    if stop.says_context("while parsing a flow"):
        return stop.at(line, column, 1, "a bracket that is not closed", "close it behind its last value")
    if stop.says_context("while scanning a simple key"):
        return _no_colon(stop, line, column)
    return None


def _no_colon(stop: Stop, line: int, column: int) -> Problem:
    text = stop.line_text(line)[column:].split(" #")[0].rstrip()
    return (
        glued(stop.at, line, column, text)
        or _equals(stop, line, column, text)
        or stop.at(line, column, len(text), f"no ':' behind '{text}'", f"write '{text}:'")
    )


def glued(at: At, line: int, column: int, text: str) -> Problem | None:
    """`epochs:3` and `-Flatten`: YAML wants a space there, and takes them for one word."""
    setting = re.match(r"(\w+):([^\s:]\S*)$", text)
    if setting is not None:
        return at(line, column, len(text), f"no space behind ':' in '{text}'", f"write '{setting[1]}: {setting[2]}'")
    entry = re.match(r"-([A-Za-z$]\S*)", text)
    if entry is not None:
        return at(line, column, 1, f"no space behind the '-' of '{entry[1]}'", f"write '- {entry[1]}'")
    return None


def _equals(stop: Stop, line: int, column: int, text: str) -> Problem | None:
    found = re.match(r"(\w+) *= *(\S.*)$", text)
    if found is None:
        return None
    return stop.at(line, column, len(text), f"'=' in '{text}'", f"write '{found[1]}: {found[2]}'")


def _line_above(stop: Stop) -> Problem | None:
    """A ':' too many in this line often means that the line above was taken for the beginning of its text."""
    if not stop.says(_COLONS):
        return None
    above, column = stop.above, measure_indent(stop.above)
    if above and measure_indent(stop.text) == column:
        text = above.strip()
        told = glued(stop.at, stop.line - 1, column, text) or _equals(stop, stop.line - 1, column, text)
        if told is not None:
            return told
    return glued(stop.at, stop.line, measure_indent(stop.text), stop.text.strip().split(" ")[0].rstrip(":"))


def _misplaced_dash(stop: Stop) -> Problem | None:
    """A list's dash that is missing above, or stands deeper than the one above: YAML joins such lines to one text."""
    line, above, number = stop.text, stop.above, stop.line
    if not stop.says(_COLONS):
        return None
    if (
        line.lstrip().startswith("- ")
        and above.lstrip().startswith("- ")
        and measure_indent(line) > measure_indent(above)
    ):
        return stop.at(
            number, measure_indent(line), 1, "a '-' that stands deeper than the one above", "begin both in one column"
        )
    word = above.strip()
    if word.isidentifier() and word[0].isupper() and measure_indent(line) == measure_indent(above):
        fix = f"write '- {word}', and '- ' before each entry below"
        return stop.at(number - 1, measure_indent(above), len(word), f"no '- ' before '{word}'", fix)
    return None


def _missing_colon(stop: Stop) -> Problem | None:
    """The word in the line above, where that is alone and this line stands below it like a setting."""
    word = read_word(stop.above)
    if not stop.says(_COLONS) or not word.isidentifier() or measure_indent(stop.text) <= measure_indent(stop.above):
        return None
    column = len(stop.above) - len(word)
    return stop.at(stop.line - 1, column, len(word), f"keys below '{word}', and no ':' behind it", f"write '{word}:'")


def _below_a_value(stop: Stop) -> Problem | None:
    """`Conv2d: 32`, and a setting below it."""
    found = re.match(r"\s*(?:- )?([\w$]+): (.+)$", stop.above)
    if not stop.says(_COLONS) or found is None or measure_indent(stop.text) <= measure_indent(stop.above):
        return None
    word = stop.text.split(":")[0].strip()
    name, value = found[1], found[2].strip()
    told = f"'{word}' stands below '{name}', which has the value {value[:40]}"
    fix = f"begin '{word}' in the column of '{name}', or write that value as a setting of its own below '{name}:'"
    return stop.at(stop.line, measure_indent(stop.text), len(word), told, fix)


def _two_colons(stop: Stop) -> Problem | None:
    if not stop.says(_COLONS):
        return None
    found = re.match(r"\s*(?:- )?(\w+): (\w+): *(\S.*)?$", stop.text)
    or_text = "put quotes around a text that has one"
    fix = f"write '{found[1]}: {{{found[2]}: {found[3] or '...'}}}', or {or_text}" if found else or_text
    return stop.here("a second ':' in one line", fix)


def _closed_before(stop: Stop) -> Problem | None:
    """What stands behind a value that had ended: a bracket too many, a text behind a quote."""
    before = stop.text[: stop.column].rstrip()
    if not stop.says("did not find expected key") and not stop.says("<document start>"):
        return None
    if stop.char in ("]", "}"):
        return stop.here(f"a '{stop.char}' too many", "take it away")
    if before.endswith(("'", '"')):
        quote = before[-1]
        twice = "a ' within '...' is written twice: ''" if quote == "'" else 'a " within "..." is written \\"'
        return stop.here("text behind a closing quote", f"close the quotes at the end; {twice}")
    return None


def _indentation(stop: Stop) -> Problem | None:
    if not stop.says("did not find expected key") or measure_indent(stop.text) != stop.column:
        return None
    columns = sorted(
        {measure_indent(each) + 1 for each in stop.lines[: stop.line] if each.strip() and each.strip()[0] != "#"}
    )
    near = [each for each in columns if abs(each - stop.column - 1) <= 4]
    wanted = " or ".join(str(each) for each in near)
    fix = f"begin in column {wanted}, as a line above" if near else "begin in the column of a line above"
    return stop.here(f"an indentation that no line above has: column {stop.column + 1}", fix)


def _no_dash(stop: Stop) -> Problem | None:
    if not stop.says("did not find expected '-'"):
        return None
    word = stop.text.strip().split(":")[0]
    fix = f"write '- {stop.text.strip()}', or begin in another column what is no entry of the list"
    return stop.at(stop.line, stop.column, len(word), f"no '- ' before '{word}', in a list", fix)


# What YAML says, as its parser words it; what the writer did; what to write.
_SAYINGS: tuple[tuple[str, str, str], ...] = (
    ("cannot start any token", "text that begins with '{char}'", "put quotes around it"),
    ("alphabetic or numeric character", "text that begins with '{char}'", 'put quotes around it: "*.bias"'),
    ("unknown escape character", "'{pair}' within \" \"", "write \\\\ for a \\, or take ' ' in place of \" \""),
    ("block sequence entries", "a list's '-' in its key's line", "begin the list in the next line, or write [...]"),
    ("block collections", "a list's '-' in its key's line", "begin the list in the next line, or write [...]"),
    ("comment or line break", "text that begins with > or |", "put quotes around it"),
    ("incompatible YAML", "a %YAML line", "take it away"),
    ("directive", "text that begins with %", "put quotes around it"),
)  # fmt: skip


def _saying(stop: Stop) -> Problem | None:
    back = 1 if stop.says("alphabetic") else 0
    column = max(0, stop.column - back)
    pair = stop.text[column : column + 2]
    for sign, found, fix in _SAYINGS:
        if stop.says(sign):
            return stop.at(stop.line, column, 1, found.format(char=pair[:1], pair=pair), fix)
    return None


# The first that has something to say.
_TELLERS: tuple[Callable[[Stop], Problem | None], ...] = (
    _tab,
    _strange_space,
    _formula,
    _wrong_bracket,
    _name_without_colon,
    _missing_comma,
    _unfinished,
    _misplaced_dash,
    _missing_colon,
    _line_above,
    _below_a_value,
    _two_colons,
    _closed_before,
    _indentation,
    _no_dash,
    _saying,
)
