"""Read YAML files into plain values and their locations. Safe for files from untrusted sources.

The parser's events are read one by one, so a file that is nested too deep, is inflated by aliases or contains tags is
refused before anything is built from it. Scalars follow YAML 1.2's core schema: `1e-3` is a number, while `on`, `yes`
and `3:30` stay strings.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dlspec.errors import Code, KeyPath, SourceLocation, SpecError, replace_control_characters
from dlspec.language.yaml import syntax_problems
from dlspec.language.yaml.event_reader import EventReader, SourceText, make_error_at
from dlspec.limits import explain_raising_limit, get_limit

PACKAGE_DIR = Path(__file__).parents[2]


@dataclass(frozen=True)
class Document:
    """A file's values, and the location of each key and each value in it."""

    tree: Any
    keys: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)
    values: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)

    def without_sections(self, sections: Collection[str]) -> Document:
        """Return the document without the locations of some top-level keys. The values are unchanged."""
        keys = {path: location for path, location in self.keys.items() if path[0] not in sections}
        values = {path: location for path, location in self.values.items() if not path or path[0] not in sections}
        return Document(self.tree, keys, values)


def load_yaml_file(path: Path, display_as: str = "") -> Document:
    """Load a YAML file.

    Args:
        path: The file.
        display_as: Name of the file in messages; default: its path, shortened.

    Raises:
        SpecError: The file can't be read, is too large, or is not plain YAML.
    """
    name = display_as or format_file_path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for a writer, a device may never end
            raise make_error_at(Code.FILE_UNREADABLE, SourceLocation(name), "not a regular file", "")
        size = status.st_size
        if size > get_limit("file_bytes"):
            fix = f"at most {get_limit('file_bytes'):,} are allowed; {explain_raising_limit('file_bytes')}"
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
    """Format a path for messages: relative to the working directory or to dlspec's conf/ if it is inside.

    Control characters are replaced: a folder's name may contain any.
    """
    short, conf_dir = shorten_path(path), find_packaged_conf()
    shown = f"dlspec's conf/{short.relative_to(conf_dir)}" if short.is_relative_to(conf_dir) else str(short)
    return replace_control_characters(shown)


def shorten_path(path: Path) -> Path:
    """Make a path relative to the working directory if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def find_packaged_conf() -> Path:
    """Find dlspec's own conf/: inside the package if installed, next to it in a Git checkout."""
    inside = PACKAGE_DIR / "conf"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "conf"


def load_yaml_text(text: str, name: str) -> Document:
    """Load YAML from a string, as `load_yaml_file` does from a file. `name` is the source in all locations."""
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
    """Return location, message and fix for a character that YAML forbids. `position` counts bytes in UTF-8."""
    before = text.encode()[:position].decode(errors="ignore")
    location = SourceLocation(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return location, f"a character that YAML does not allow ({text[len(before)]!r})", "remove it"
