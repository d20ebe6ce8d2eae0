"""Problems, their codes and locations, and how values are printed in their texts.

A `Problem` is one thing wrong in a spec: its `Code`, its path and location, what was found, and the fix. A `Finding` is
a problem without path and location: checks return it to the caller, who knows them.

Code branches on a problem's `Code`, never on its text: texts are for people and may be reworded.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

# The keys, and the indices of list items, that lead to a value of a config: ("model", "layers", 0, "Conv2d").
KeyPath = tuple[Hashable, ...]


class Code(StrEnum):
    """Kind of a problem. Codes are never printed; dlspec and its tests branch on them."""

    # Files and YAML
    FILE_UNREADABLE = "file-unreadable"  # missing, no permission, or not UTF-8
    YAML_SYNTAX = "yaml-syntax"  # invalid YAML, or YAML that most likely means something else than intended
    YAML_FEATURE = "yaml-feature"  # YAML that a spec may not use: tags, multiple documents, a list as a key
    DUPLICATE_KEY = "duplicate-key"  # a key is written twice, or in two spellings
    UNKNOWN_ANCHOR = "unknown-anchor"  # an alias without its anchor
    TOO_LARGE = "too-large"  # exceeds a limit: characters, values, nesting, layers, bytes
    # Files of a config and how they are merged
    DEFAULTS_LIST = "defaults-list"  # an item of a defaults list without a file, or that includes itself
    CONFIG_CLASH = "config-clash"  # two files that can't be merged
    HYDRA_CONFIG = "hydra-config"  # a setting of Hydra that dlspec or Hydra does not accept
    # The command line
    OVERRIDE_SYNTAX = "override-syntax"  # not of the form KEY=VALUE
    SEVERAL_VALUES = "several-values"  # multiple values for a setting, but no sweep was requested
    UNREACHABLE_KEY = "unreachable-key"  # an override of a key that the config does not contain
    NO_RUN = "no-run"  # not a run folder, or one without a spec
    CHANGED_SETTING = "changed-setting"  # a run should resume with a different setting
    NOT_INSTALLED = "not-installed"  # a library that is not installed
    # Keys and values
    UNKNOWN_KEY = "unknown-key"  # in a section, a model, a block or an input
    UNKNOWN_SETTING = "unknown-setting"  # a layer or another part has no such setting
    UNKNOWN_CHOICE = "unknown-choice"  # a value that is not one of the allowed choices
    WRONG_TYPE = "wrong-type"  # a list, mapping or string where another type is expected
    WRONG_VALUE = "wrong-value"  # a value that its setting does not accept
    MISSING_VALUE = "missing-value"  # a required value that is not given
    MISSING_NAME = "missing-name"  # the name of a part or output is expected, and there is none
    FIXED_SETTING = "fixed-setting"  # a setting that only dlspec sets
    NOT_YET = "not-yet"  # a feature that dlspec does not have yet
    MISPLACED_KEY = "misplaced-key"  # a key that is not allowed here, but elsewhere
    CONFLICT = "conflict"  # two settings that cannot be combined
    UNUSED = "unused"  # a param, block, input, output or variable that nothing uses
    INVALID_NAME = "invalid-name"  # not a valid name, or a reserved one
    NAME_TAKEN = "name-taken"  # a name that is used twice
    UNTRUSTED_CODE = "untrusted-code"  # a saved spec that would import modules
    IMPORT_FAILED = "import-failed"  # a module listed in `imports`
    CHANGED_RULE = "changed-rule"  # a rule that a later version of the spec language changed
    WRONG_VERSION = "wrong-version"  # a spec written by another version of dlspec
    # Parts by name
    UNKNOWN_LAYER = "unknown-layer"
    UNKNOWN_LOSS = "unknown-loss"
    UNKNOWN_METRIC = "unknown-metric"
    UNKNOWN_OPTIMIZER = "unknown-optimizer"
    UNKNOWN_SCHEDULER = "unknown-scheduler"
    UNKNOWN_INIT = "unknown-init"
    UNKNOWN_AVERAGE = "unknown-average"
    UNKNOWN_DATA = "unknown-data"
    UNKNOWN_AUGMENTATION = "unknown-augmentation"
    UNKNOWN_DEVICE = "unknown-device"  # no device has this name, or this machine lacks it
    # References, `${...}`
    REFERENCE_SYNTAX = "reference-syntax"  # not closed, or nested
    REFERENCE_REFUSED = "reference-refused"  # a resolver that could run code
    UNKNOWN_REFERENCE = "unknown-reference"  # the key does not exist
    MISSING_FACT = "missing-fact"  # a fact that these data do not have
    KNOWN_TOO_LATE = "known-too-late"  # a value that is known only from the opened data or the built layer
    CYCLE = "cycle"  # something that refers to itself or contains itself
    # Formulas and params
    FORMULA_SYNTAX = "formula-syntax"  # invalid syntax, or an expression inside a longer string
    FORMULA_REFUSED = "formula-refused"  # something that expressions do not support
    FORMULA_FAILED = "formula-failed"  # it can't be computed for these values
    UNKNOWN_FUNCTION = "unknown-function"
    UNKNOWN_PARAM = "unknown-param"
    # How layers are connected
    UNKNOWN_OUTPUT = "unknown-output"  # no output, copy or input has this name
    OUTPUT_BELOW = "output-below"  # an output that is defined below the entry that uses it
    OUTPUT_ABSENT = "output-absent"  # an output that an `if` or `repeat: 0` removed
    AMBIGUOUS = "ambiguous"  # multiple outputs, targets or fields where one is expected
    INPUT_COUNT = "input-count"  # too many or too few inputs
    EMPTY_MODEL = "empty-model"  # no layers, or no model
    # Layers and their inputs
    SHAPE_MISMATCH = "shape-mismatch"  # sizes that do not match
    WRONG_LAYOUT = "wrong-layout"  # a layer that expects another layout: channels first, a sequence, ...
    WRONG_DIMENSION = "wrong-dimension"  # a dimension that the tensor does not have, or that is named twice
    SAMPLES_MIXED = "samples-mixed"  # an operation on the batch dimension
    LAYER_REFUSED = "layer-refused"  # PyTorch or the layer's code raises an error
    WRONG_RESULT = "wrong-result"  # a layer's `forward` returns something that is not allowed
    COUNTS_PADDING = "counts-padding"  # a layer whose output depends on how far a sample is padded
    LENGTHS_LOST = "lengths-lost"  # a layer that needs lengths, after one that mixes steps and padding
    INPLACE = "inplace"  # an in-place operation would overwrite data or an output that is still needed
    NO_WEIGHT = "no-weight"  # a layer without a weight to tie or parametrize
    NOT_DETERMINISTIC = "not-deterministic"
    NO_MATCH = "no-match"  # a pattern that matches no parameter, tensor or part of the network
    # Losses, metrics, training
    WRONG_TARGET = "wrong-target"  # a target that a loss or metric does not support
    UNKNOWN_TARGET = "unknown-target"
    WRONG_END = "wrong-end"  # the last layer has an activation that the loss does not expect, or lacks one
    SEES_FUTURE = "sees-future"  # a language model that sees the tokens it should predict
    UNSUPPORTED = "unsupported"  # a combination of settings that cannot be trained
    NOT_FINITE = "not-finite"  # a loss, gradient or weight is nan or infinite
    WEIGHTS_MISMATCH = "weights-mismatch"  # a file of weights that does not fit the model
    # Data
    UNKNOWN_FIELD = "unknown-field"  # no field or column has this name
    BAD_DATA = "bad-data"  # values that cannot be trained on, or with a wrong shape


@dataclass(frozen=True)
class Finding:
    """A problem without its path and location."""

    code: Code
    found: str  # what is wrong
    fix: str = ""  # what to write instead
    note: str = ""  # a line below the message, such as the shapes that led to the problem

    def to_problem(self, path: str, location: SourceLocation | None = None) -> Problem:
        """Make this finding a problem at a path and location."""
        return Problem(self.code, path, self.found, self.fix, location, self.note)


# The code of an unknown name, by the kind of part or the config group.
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
    "augmentation": Code.UNKNOWN_AUGMENTATION,
}


@dataclass(frozen=True)
class SourceLocation:
    """Where something is written: a file's line and column, or an argument of the command line."""

    source: str  # the file, or the argument
    line: int = 0  # from 1; 0 for the command line
    column: int = 0  # from 1
    text: str = ""  # the whole line
    width: int = 1  # how many characters the caret underlines

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def format_excerpt(self) -> list[str]:
        """Return the line as written, and a line with carets below it."""
        if not self.text:
            return []
        start = max(self.column - 1, 0)
        shift, text = _crop_around(self.text.rstrip(), start)
        width = max(1, min(self.width, len(text) - (start - shift)))
        return [f"    {text}", "    " + " " * (start - shift) + "^" * width]


def _crop_around(text: str, start: int, width: int = 110) -> tuple[int, str]:
    """Return how many characters of a long line are cut off on the left, and the part around `start`."""
    if len(text) <= width:
        return 0, text
    shift = max(0, start - width // 2)
    return shift, text[shift : shift + width]


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a spec."""

    code: Code
    path: str  # the key in the config, such as model.layers.0.Conv2d
    found: str  # what is wrong
    fix: str = ""  # what to write instead
    location: SourceLocation | None = None
    note: str = ""  # lines below the message, such as the shapes that led to the problem

    def format_lines(self) -> list[str]:
        """Return the message as lines for a terminal, with long texts shortened and control characters replaced."""
        parts = [str(self.location) if self.location else "", self.path, self.found]
        head = "   ".join(
            [*(shorten_middle(each) for each in parts if each), shorten_middle(self.fix, MAX_FIX_LENGTH)]
        ).rstrip()
        note = [f"    {shorten_middle(line)}" for line in self.note.splitlines()]
        return [
            replace_control_characters(each)
            for each in (head, *(self.location.format_excerpt() if self.location else []), *note)
        ]


# Characters that a terminal acts on (all control characters but the tab), and those that reorder or hide text.
CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\U000e0000-\U000e007f]"
)


def replace_control_characters(text: str) -> str:
    """Replace control characters, which a terminal would execute, by U+FFFD."""
    return CONTROL_CHARACTERS.sub("\ufffd", text)


def replace_in_lines(text: str) -> str:
    """Replace control characters as `replace_control_characters` does, but keep the line breaks."""
    return "\n".join(map(replace_control_characters, text.split("\n")))


class PlainTextFilter(logging.Filter):
    """Replaces the control characters in the messages of a logger: they may come from a file or a folder's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record if its message has control characters, and let it pass."""
        text = record.getMessage()
        plain = replace_in_lines(text)
        if plain != text:
            record.msg, record.args = plain, None
        return True


logging.getLogger("dlspec").addFilter(PlainTextFilter())


MAX_FIX_LENGTH = 1_200  # characters; a list of all functions of a formula has 600


def shorten_middle(text: str, max_length: int = 600) -> str:
    """Cut out the middle of a text that is longer than `max_length` characters."""
    return text if len(text) <= max_length else f"{text[: max_length // 2]} ... {text[-max_length // 4 :]}"


def join_first(words: Sequence[str], max_words: int) -> str:
    """Join the first words with commas, and count the others: `a, b and 3 more`."""
    more = f" and {len(words) - max_words} more" if len(words) > max_words else ""
    return f"{', '.join(words[:max_words])}{more}"


def join_with_or(words: Sequence[str]) -> str:
    """Join words as a sentence lists them: `a`, `a or b`, `a, b or c`."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def format_value(value: Any, max_length: int = 60) -> str:
    """Format a value as YAML on one line, cut to `max_length` characters; strings are quoted."""
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
