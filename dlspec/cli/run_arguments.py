"""Arguments of commands that use a finished run: words such as `input=FILE`, and options of reading, `data.*=`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dlspec.config.saved_run import RUN_FIX
from dlspec.data.split_indices import SPLITS, SplitName
from dlspec.errors import UserError, format_value, replace_control_characters, suggest

DATA_PREFIX = "data."
Value = str | list[str]


@dataclass(frozen=True)
class RunArguments:
    """The words of a command, as the user writes them."""

    words: Mapping[str, Value]
    data: Mapping[str, Any]  # options of reading, by name without `data.`

    def get_text(self, name: str) -> str | None:
        """Return a word's text, None if it is not given."""
        value = self.words.get(name)
        if isinstance(value, list):
            raise UserError(f"{name} must be one value, got a list")
        return value

    def require_run(self) -> str:
        """Return the word `run`; UserError if it is not given."""
        name = self.get_text("run")
        if not name:
            raise UserError(f"no run given; {RUN_FIX}")
        return name

    def get_list(self, name: str) -> list[str] | None:
        """Return the items of a word, which may be a list in brackets; None if it is not given."""
        value = self.words.get(name)
        return [value] if isinstance(value, str) else value

    def get_flag(self, name: str) -> bool:
        """Return whether a word is true; UserError if it is neither true nor false."""
        text = self.get_text(name) or "false"
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be true or false, got {format_value(text)}")
        return text.lower() == "true"

    def get_split(self) -> SplitName | None:
        """Return the word `split`, None if it is not given; UserError for an unknown split."""
        text = self.get_text("split")
        found = next((each for each in SPLITS if each == text), None)
        if text is not None and found is None:
            raise UserError(f"split must be {', '.join(SPLITS)}, got {format_value(text)}")
        return found

    def get_number(self, name: str, convert: Callable[[str], float] = float) -> Any:
        """Return a word as a number, None if it is not given.

        Args:
            name: the word
            convert: `float` or `int`
        """
        text = self.get_text(name)
        try:
            return None if text is None else convert(text)
        except ValueError:
            kind = "a whole number" if convert is int else "a number"
            raise UserError(f"{name} must be {kind}, got {format_value(text)}") from None


def parse_run_arguments(command: str, argv: Sequence[str], words: Sequence[str]) -> RunArguments:
    """Parse the arguments of a command.

    Args:
        command: its name
        argv: the arguments after it
        words: the words that it takes, at least one

    Raises:
        UserError: if an argument is none of them.
    """
    found: dict[str, Value] = {}
    data: dict[str, Any] = {}
    for argument in argv:
        name, equals, text = argument.partition("=")
        shown = replace_control_characters(argument)
        if not equals:
            fix = "leave it out" if words[0] in found else f"write {words[0]}={shown}"
            raise UserError(f"{command} takes words such as {words[0]}=FOLDER, got '{shown}'; {fix}")
        if name.startswith(DATA_PREFIX):
            data[name.removeprefix(DATA_PREFIX)] = _parse_option(text)
        elif name not in words:
            choices = f"choose among {', '.join(words)}, or data.OPTION of reading"
            raise UserError(f"{command} has no '{replace_control_characters(name)}'; {suggest(name, words) or choices}")
        elif name in found:
            raise UserError(f"{name} is given twice; leave one of them out")
        else:
            found[name] = _parse_word(text)
    return RunArguments(found, data)


def refuse_words_of_runs(command: str, argv: Sequence[str], words: Sequence[str]) -> None:
    """Raise UserError for words that say something of a run, where a command uses an exported file.

    Args:
        command: its name
        argv: the arguments after it
        words: words that only runs have
    """
    for name in (argument.partition("=")[0] for argument in argv):
        if name in words:
            fix = "leave one of them out" if name == "run" else f"leave it out, or {command} with run=FOLDER"
            raise UserError(f"{name} has no effect with file=, which has the weights of one run; {fix}")


def parse_setting(value: Any) -> Any:
    """Parse a setting of the run's own data, which may be a number; text that can't be parsed stays as it is."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value


def _parse_word(text: str) -> Value:
    """Parse `[a, b]` as a list; remove quotes around a text. All else is taken as it is: names of files need none."""
    if text.startswith("[") and text.endswith("]"):
        items = _parse_yaml(text)
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return items
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _parse_option(text: str) -> Any:
    if text == "null":
        return None
    value = _parse_yaml(text) if text[:1] in ("[", '"', "'") and len(text) > 1 else text
    return text if value is None else value


def _parse_yaml(text: str) -> Any:
    """Parse YAML in which every scalar is a text; None if it is not valid."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
