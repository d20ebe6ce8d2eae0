"""Reads a YAML file into plain values and the place of each, without ever running or trusting it.

The parser's events are consumed one by one, so a file that nests without end, repeats itself through aliases or
carries a tag is refused before anything is built from it. Scalars follow YAML 1.2's core schema: `1e-3` is a number,
while `on`, `yes` and `3:30` stay the text that was written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dlspec.errors import Code, KeyPath, SourceLocation, SpecError
from dlspec.language.yaml import syntax_problems
from dlspec.language.yaml.event_reader import EventReader, SourceText, make_error_at
from dlspec.limits import explain_raising_limit, get_limit

PACKAGE_DIR = Path(__file__).parents[2]


@dataclass(frozen=True)
class Document:
    """A file's values, and where each key and each value stands in it."""

    tree: Any
    keys: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)
    values: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)

    def without_sections(self, sections: Collection[str]) -> Document:
        """The document less some top-level keys."""
        keys = {path: location for path, location in self.keys.items() if path[0] not in sections}
        values = {path: location for path, location in self.values.items() if not path or path[0] not in sections}
        return Document(self.tree, keys, values)


def load_yaml_file(path: Path, display_as: str = "") -> Document:
    """The document in `path`; raises `SpecError` with the place for whatever is not plain, small YAML."""
    name = display_as or format_file_path(path)
    try:
        size = path.stat().st_size
        if size > get_limit("file_bytes"):
            fix = f"a spec may have {get_limit('file_bytes'):,}; {explain_raising_limit('file_bytes')}"
            raise make_error_at(Code.TOO_LARGE, SourceLocation(name), f"the file has {size:,} bytes", fix)
        return load_yaml_text(path.read_text(encoding="utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise make_error_at(
            Code.FILE_UNREADABLE, SourceLocation(name), f"not UTF-8 (byte {error.start})", "save the file as UTF-8"
        ) from None
    except OSError as error:
        raise make_error_at(
            Code.FILE_UNREADABLE, SourceLocation(name), f"the file can't be read: {error.strerror}", ""
        ) from None


def format_file_path(path: Path) -> str:
    """The path as a user would write it: relative where it lies below the working directory or in dlspec's conf/."""
    working_dir, conf_dir = Path.cwd(), find_packaged_conf()
    if path.is_relative_to(working_dir):
        return str(path.relative_to(working_dir))
    return f"dlspec's conf/{path.relative_to(conf_dir)}" if path.is_relative_to(conf_dir) else str(path)


def find_packaged_conf() -> Path:
    """dlspec's own conf/: within the package where it was installed, beside it in a checkout."""
    inside = PACKAGE_DIR / "conf"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "conf"


def load_yaml_text(text: str, name: str) -> Document:
    """As `load_yaml_file`, of text; `name` stands in every place."""
    source = SourceText(name, text.splitlines())
    reader = EventReader(source)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.read_event(event)
    except yaml.MarkedYAMLError as error:
        raise SpecError([syntax_problems.diagnose_parser_error(name, source.lines, error)]) from None
    except yaml.reader.ReaderError as error:
        raise make_error_at(Code.YAML_SYNTAX, *_describe_invalid_character(name, text, error.position)) from None
    return Document(reader.tree, reader.keys, reader.values)


def _describe_invalid_character(name: str, text: str, position: int) -> tuple[SourceLocation, str, str]:
    """`position` counts bytes, as the parser does."""
    before = text.encode()[:position].decode(errors="ignore")
    location = SourceLocation(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return location, f"a character that YAML does not allow ({text[len(before)]!r})", "remove it"
