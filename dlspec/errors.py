"""What dlspec says when a user's input is wrong.

A `Problem` is one mistake: its `Code`, where it stands, what was found, and how to mend it. A `SpecError` carries all
of them at once; the command line prints it and exits with code 2, without a traceback. A `Finding` is a problem that
does not know its place yet: exceptions and checks carry it to where the place is known.

Whoever has to know what kind of problem it is asks for the code: the texts are for people, and may be reworded.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any

KeyPath = tuple[Hashable, ...]
"""The keys, and the numbers of lists' items, that lead to a value of a config."""


class Code(StrEnum):
    """Kind of a mistake. Codes are not printed; tests and dlspec itself ask for them."""

    # Files and YAML
    FILE_UNREADABLE = "file-unreadable"  # not there, not allowed, not UTF-8
    YAML_SYNTAX = "yaml-syntax"  # no YAML, or hardly what the writer meant
    YAML_FEATURE = "yaml-feature"  # YAML that a spec may not use: tags, several documents, a list as a key
    DUPLICATE_KEY = "duplicate-key"  # a key stands twice, or in two spellings
    UNKNOWN_ANCHOR = "unknown-anchor"  # an alias without its anchor
    TOO_LARGE = "too-large"  # beyond a limit: characters, values, levels, layers, bytes
    # Files of a config and how they build on each other
    DEFAULTS_LIST = "defaults-list"  # an entry of a defaults list that names no file, or leads back to itself
    CONFIG_CLASH = "config-clash"  # two files that can't be laid over each other
    HYDRA_CONFIG = "hydra-config"  # a setting of Hydra's that is refused, or that Hydra refuses
    # The command line
    OVERRIDE_SYNTAX = "override-syntax"  # no KEY=VALUE
    SEVERAL_VALUES = "several-values"  # a sweep that was not asked for
    UNREACHABLE_KEY = "unreachable-key"  # an override of a key that is not written there
    NO_RUN = "no-run"  # no folder of a run, or no spec in it
    CHANGED_SETTING = "changed-setting"  # a run is to go on with another setting
    NOT_INSTALLED = "not-installed"  # a library that is missing
    # Keys and values
    UNKNOWN_KEY = "unknown-key"  # of a section, a model, a block or an input
    UNKNOWN_SETTING = "unknown-setting"  # of a layer or another part
    UNKNOWN_CHOICE = "unknown-choice"  # a word that is none of those there are
    WRONG_TYPE = "wrong-type"  # a list, mapping or word where another of them is wanted
    WRONG_VALUE = "wrong-value"  # a value that its setting does not take
    MISSING_VALUE = "missing-value"  # what must be written, and is not
    MISSING_NAME = "missing-name"  # no name where a part's or an output's is wanted
    FIXED_SETTING = "fixed-setting"  # a setting that dlspec decides
    NOT_YET = "not-yet"  # what dlspec does not have yet
    MISPLACED_KEY = "misplaced-key"  # a key that can't stand there, but elsewhere
    CONFLICT = "conflict"  # two settings that exclude each other
    UNUSED = "unused"  # a param, block, input, output or variable that nothing takes
    INVALID_NAME = "invalid-name"  # no name, or one that is reserved
    NAME_TAKEN = "name-taken"  # a name that is given twice
    UNTRUSTED_CODE = "untrusted-code"  # a saved spec that would import modules
    IMPORT_FAILED = "import-failed"  # a module of `imports`
    WRONG_VERSION = "wrong-version"  # a spec that another dlspec wrote
    # Parts by name
    UNKNOWN_LAYER = "unknown-layer"
    UNKNOWN_LOSS = "unknown-loss"
    UNKNOWN_METRIC = "unknown-metric"
    UNKNOWN_OPTIMIZER = "unknown-optimizer"
    UNKNOWN_SCHEDULER = "unknown-scheduler"
    UNKNOWN_INIT = "unknown-init"
    UNKNOWN_AVERAGE = "unknown-average"
    UNKNOWN_DATA = "unknown-data"
    UNKNOWN_DEVICE = "unknown-device"  # no device has the name, or this machine has none
    # References, `${...}`
    REFERENCE_SYNTAX = "reference-syntax"  # not closed, or one within another
    REFERENCE_REFUSED = "reference-refused"  # a resolver that could run code
    UNKNOWN_REFERENCE = "unknown-reference"  # no such key
    MISSING_FACT = "missing-fact"  # what these data do not tell
    KNOWN_TOO_LATE = "known-too-late"  # what only the opened data or the built layer tells
    CYCLE = "cycle"  # what refers to itself or contains itself
    # Formulas and params
    FORMULA_SYNTAX = "formula-syntax"  # no formula, or one within a text
    FORMULA_REFUSED = "formula-refused"  # what the language does not have
    FORMULA_FAILED = "formula-failed"  # it can't be computed of these values
    UNKNOWN_FUNCTION = "unknown-function"
    UNKNOWN_PARAM = "unknown-param"
    # How layers are connected
    UNKNOWN_OUTPUT = "unknown-output"  # no output, copy or input has the name
    OUTPUT_BELOW = "output-below"  # an output that stands below the entry that takes it
    OUTPUT_ABSENT = "output-absent"  # an output that an `if` or `repeat: 0` removed
    AMBIGUOUS = "ambiguous"  # several where one is meant: outputs, targets, fields
    INPUT_COUNT = "input-count"  # too many or too few inputs
    EMPTY_MODEL = "empty-model"  # no layers, or no model
    # Layers and what comes in
    SHAPE_MISMATCH = "shape-mismatch"  # sizes that don't fit
    WRONG_LAYOUT = "wrong-layout"  # a layer that wants other dimensions: channels first, a sequence, ...
    WRONG_DIMENSION = "wrong-dimension"  # a dimension that the value does not have, or that is named twice
    SAMPLES_MIXED = "samples-mixed"  # the batch's dimension is touched
    LAYER_REFUSED = "layer-refused"  # PyTorch, or the layer's own code, raises
    WRONG_RESULT = "wrong-result"  # what a layer's forward may not give
    LENGTHS_LOST = "lengths-lost"  # a layer that needs lengths, behind one that mixes steps and padding
    INPLACE = "inplace"  # the data or an output that is still needed would be overwritten
    NO_WEIGHT = "no-weight"  # a layer without a weight to tie or parametrize
    NOT_DETERMINISTIC = "not-deterministic"
    NO_MATCH = "no-match"  # a pattern that matches no parameter, tensor or part of the network
    # Losses, metrics, training
    WRONG_TARGET = "wrong-target"  # a target that a loss or metric can't compare with
    UNKNOWN_TARGET = "unknown-target"
    WRONG_END = "wrong-end"  # an activation that a loss does not want before it, or lacks
    SEES_FUTURE = "sees-future"  # a language model that looks at what it is to predict
    UNSUPPORTED = "unsupported"  # a combination of settings that can't be trained
    NOT_FINITE = "not-finite"  # a loss, gradient or weight that is nan or infinite
    WEIGHTS_MISMATCH = "weights-mismatch"  # a file of weights that does not fit the model
    # Data
    UNKNOWN_FIELD = "unknown-field"  # no field or column has the name
    BAD_DATA = "bad-data"  # values that can't be learned from, or whose shape is wrong


@dataclass(frozen=True)
class Finding:
    """What is wrong and what to write instead, wherever it stands. `note` is a line below, as in a `Problem`."""

    code: Code
    found: str
    fix: str = ""
    note: str = ""

    def to_problem(self, path: str, location: SourceLocation | None = None) -> Problem:
        """The problem that it is at its place."""
        return Problem(self.code, path, self.found, self.fix, location, self.note)


# The code of a name that no part has, by the kind of part or the config group.
UNKNOWN_PART_CODES: Mapping[str, Code] = {
    "layer": Code.UNKNOWN_LAYER,
    "loss": Code.UNKNOWN_LOSS,
    "optimizer": Code.UNKNOWN_OPTIMIZER,
    "scheduler": Code.UNKNOWN_SCHEDULER,
    "metric": Code.UNKNOWN_METRIC,
    "metrics": Code.UNKNOWN_METRIC,
    "init": Code.UNKNOWN_INIT,
    "average": Code.UNKNOWN_AVERAGE,
    "data": Code.UNKNOWN_DATA,
    "data set": Code.UNKNOWN_DATA,
}


class UserError(Exception):
    """A mistake of the user's: its text is ready to be read, and the exit code is 2."""


class DataError(UserError):
    """A data set that can't be opened as asked; `key` is the setting of `data` that it is about ('' for all of it)."""

    def __init__(self, key: str, message: str, code: Code = Code.BAD_DATA) -> None:
        super().__init__(message)
        self.key = key
        self.finding = Finding(code, message)


class TrainingFailed(RuntimeError):
    """The training itself failed, though nothing was wrong with the spec; the text is one line for the user."""


@dataclass(frozen=True)
class SourceLocation:
    """Where something was written: a file's line and column (from 1), or a command line's word."""

    source: str
    line: int = 0
    column: int = 0
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def format_excerpt(self) -> list[str]:
        """The line as it was written, and below it the caret."""
        if not self.text:
            return []
        start = max(self.column - 1, 0)
        shift, text = _crop_around(self.text.rstrip(), start)
        width = max(1, min(self.width, len(text) - (start - shift)))
        return [f"    {text}", "    " + " " * (start - shift) + "^" * width]


def _crop_around(text: str, start: int, width: int = 110) -> tuple[int, str]:
    """The part of a long line around `start`, and how far it was moved."""
    if len(text) <= width:
        return 0, text
    shift = max(0, start - width // 2)
    return shift, text[shift : shift + width]


@dataclass(frozen=True)
class Problem:
    """One mistake. `code` is its kind, `path` the key's place in the config, `found` what is wrong, `fix` what to
    write instead.

    `note` is a line below all that, such as the shapes that lead to the mistake.
    """

    code: Code
    path: str
    found: str
    fix: str = ""
    location: SourceLocation | None = None
    note: str = ""

    def format_lines(self) -> list[str]:
        """As a terminal shows them: none is very long, and what would steer the terminal is a blank sign."""
        parts = [str(self.location) if self.location else "", self.path, self.found, self.fix]
        head = "   ".join(shorten_middle(part) for part in parts if part)
        note = [f"    {shorten_middle(self.note)}"] if self.note else []
        return [
            replace_control_characters(each)
            for each in (head, *(self.location.format_excerpt() if self.location else []), *note)
        ]


_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def replace_control_characters(text: str) -> str:
    """The text with a sign in the place of each character that a terminal would obey."""
    return _CONTROL_CHARACTERS.sub("\ufffd", text)


def shorten_middle(text: str, max_length: int = 600) -> str:
    """The text, its middle left out where it is very long."""
    return text if len(text) <= max_length else f"{text[: max_length // 2]} ... {text[-max_length // 4 :]}"


MAX_SHOWN_PROBLEMS = 50
"""So many mistakes are shown."""


class SpecError(UserError):
    """Every mistake that was found in one look, each with its place."""

    def __init__(self, problems: Sequence[Problem], outcome: str = "nothing was run") -> None:
        self.problems = tuple(problems)
        self.outcome = outcome
        super().__init__(self.format_message())

    def format_message(self) -> str:
        count = len(self.problems)
        lines = [line for problem in self.problems[:MAX_SHOWN_PROBLEMS] for line in problem.format_lines()]
        if count > MAX_SHOWN_PROBLEMS:
            lines.append(f"... and {count - MAX_SHOWN_PROBLEMS:,} more")
        return "\n".join([*lines, f"{count} problem{'s' if count != 1 else ''}; {self.outcome}."])


def find_closest(name: str, choices: Iterable[str]) -> str:
    """The choice that `word` was probably meant to be, or ''. Case is ignored: 'Relu' is near 'ReLU', not 'RNNCell'.

    A word that exactly one choice begins with stands for that one: 'F1' is near 'F1Score'; and one with two letters in
    the wrong order for the right one, however short: 'mpl' is near 'mlp'. 'nn.GRU' is 'GRU'.
    """
    return _find_closest(name, tuple(choices))


@lru_cache(maxsize=2_000)  # one mistake may stand in a thousand places
def _find_closest(name: str, choices: tuple[str, ...]) -> str:
    lowered = {choice.lower(): choice for choice in choices}
    found = [
        each for each in (*_swap_adjacent_letters(name.lower()), name.lower().rpartition(".")[2]) if each in lowered
    ]
    found = found or get_close_matches(name.lower(), lowered, n=1, cutoff=0.7)
    if not found and len(name) > 1:
        longer = [choice for choice in lowered if choice.startswith(name.lower())]
        found = longer if len(longer) == 1 else []
    return lowered[found[0]] if found else ""


def _swap_adjacent_letters(word: str) -> list[str]:
    """The word with each two neighbours exchanged."""
    return [word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(min(len(word), 100) - 1)]


def suggest(name: str, choices: Iterable[str], max_names: int = 12) -> str:
    """'did you mean ...?', or what there is where nothing is near."""
    names = sorted(choices)
    guess = find_closest(name, names)
    if guess:
        return f"did you mean '{guess}'?"
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"there is: {', '.join(names[:max_names])}{more}" if names else ""


def format_value(value: Any, max_length: int = 60) -> str:
    """A value as YAML would write it, cut off where it is long; text in quotes."""
    text = value if isinstance(value, str) else _format_flow_yaml(value)
    text = re.sub(r"\s+", " ", text) if "\n" in text else text
    text = text if len(text) <= max_length else text[: max_length - 3] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def _format_flow_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {_format_flow_yaml(each)}" for key, each in islice(value.items(), 20))
        return f"{{{inside}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_format_flow_yaml(each) for each in value[:20])}]"
    return str(value)
