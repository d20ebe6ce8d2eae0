"""Dumping many similar values with PyYAML, which takes milliseconds for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_REMEMBERED = 1_000  # sections; most take less than 1 KB
MAX_REMEMBERED_LENGTH = 10_000  # characters of a section's value

Keys = tuple[Any, ...]


class SectionDumper:
    """Dumps mappings, and remembers the text of each section of the last one: only sections that differ are dumped.

    A section is the value of a key, at any depth. In block style a mapping's text is that of its sections in order.

    Args:
        dump: dumps plain values (mappings, lists, strings, numbers, booleans, None) in block style, in their order.
    """

    def __init__(self, dump: Callable[[Any], str]) -> None:
        self._dump = dump
        self._texts: dict[str, tuple[str, str]] = {}  # by a section's keys: what its value looked like, and its text

    def dump(self, value: Any) -> str:
        """Dump a value; the text is the same as that of the given function."""
        if type(value) is not dict or not value or _has_anchors(value):
            return self._dump(value)
        try:
            return "".join(self._recall((key,), each) for key, each in value.items())
        except _UnusualKey:
            return self._dump(value)

    def _recall(self, keys: Keys, value: Any) -> str:
        """Return the text of a section, without the lines of the sections around it."""
        name, shown = repr(keys), repr(value)
        known = self._texts.get(name)
        if known is not None and known[0] == shown:
            return known[1]
        text = self._dump_section(keys, value)
        if len(self._texts) >= MAX_REMEMBERED:
            self._texts.clear()
        if len(shown) <= MAX_REMEMBERED_LENGTH:
            self._texts[name] = shown, text
        return text

    def _dump_section(self, keys: Keys, value: Any) -> str:
        if type(value) is dict and value:
            return _format_header(keys) + "".join(self._recall((*keys, key), each) for key, each in value.items())
        for key in reversed(keys):
            value = {key: value}
        text, headers = self._dump(value), "".join(_format_header(keys[:end]) for end in range(1, len(keys)))
        if not text.startswith(headers):
            raise _UnusualKey
        return text.removeprefix(headers)


class _UnusualKey(Exception):
    """A key is not written as it is: it needs quotes or several lines."""


def _format_header(keys: Keys) -> str:
    """Format the first line of a mapping with these keys: its own, and before it those of the mappings around it."""
    return f"{'  ' * (len(keys) - 1)}{keys[-1]}:\n"


def _has_anchors(value: Any) -> bool:
    """Whether an object appears twice in a value: YAML then writes it once, and refers to it."""
    found = [id(each) for each in _list_objects(value)]
    return len(set(found)) < len(found)


def _list_objects(value: Any) -> Iterator[Any]:
    """List a value and all values in it, except those that YAML always writes out."""
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return
    yield value
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _list_objects(each)
