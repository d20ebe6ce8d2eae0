"""A registry: names to parts, their schemas derived when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dlspec.errors import UNKNOWN_PARTS, Code, near, suggest
from dlspec.language.parse.part import Part
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema

LAYERS_ARE = "layers have PyTorch's names (torch.nn), dlspec's own stand in docs/language.md; a block has its own"


class Registry:
    """The parts of one kind. `foreign` maps other frameworks' names to ours, for the error alone."""

    def __init__(
        self,
        kind: str,
        classes: Iterable[type],
        derive: Callable[[type], Schema],
        *,
        not_yet: Mapping[str, str] | None = None,
        foreign: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._classes: dict[str, type] = {each.__name__: each for each in classes}
        self._derive = derive
        self._schemas: dict[str, Schema] = {}
        self._not_yet = not_yet or {}
        self._foreign = foreign or {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> Schema:
        if name not in self._schemas:
            self._schemas[name] = self._derive(self._classes[name])
        return self._schemas[name]

    def classes(self) -> Iterable[type]:
        """Those of all parts."""
        return self._classes.values()

    def register(self, cls: type, name: str = "") -> type:
        """Adds a class under its name; one that is taken is refused, both classes named.

        A class that is defined anew (in a notebook) replaces itself.
        """
        name = name or cls.__name__
        mine, theirs = _full_name(cls), _full_name(self._classes.get(name, cls))
        if mine != theirs:
            raise ValueError(f"two {self.kind}s are named '{name}': {theirs} and {mine}; give one another name")
        self._classes[name] = cls
        self._schemas.pop(name, None)
        return cls

    def find(self, part: Part, problems: Problems, *, also: Iterable[str] = ()) -> Schema | None:
        """The part's schema; an unknown name is a mistake, with the nearest one. `also` are choices beside ours."""
        if part.type in self:
            return self[part.type]
        if part.type in self._not_yet:
            problems.add(Code.NOT_YET, part.path, f"{part.type} is not there yet", self._not_yet[part.type])
            return None
        problems.add(
            UNKNOWN_PARTS[self.kind], part.path, f"no {self.kind} '{part.type}'", self._suggestion(part.type, also)
        )
        return None

    def _suggestion(self, name: str, also: Iterable[str]) -> str:
        own = next((each for each in also if each.lower() == name.lower()), "")
        if own:
            return f"did you mean '{own}'?"
        if name in self._foreign:
            return f"in PyTorch: {self._foreign[name]}"
        exact = near(name, {*self, *also})
        if exact:
            return f"did you mean '{exact}'?"
        # Some of a hundred names would tell nothing.
        return LAYERS_ARE if self.kind == "layer" else suggest(name, {*self, *also})

    def read(self, part: Part, problems: Problems, *, also: Iterable[str] = ()) -> tuple[Schema, dict[str, Any]] | None:
        """The schema and the settings as written, checked; None where the name is unknown."""
        schema = self.find(part, problems, also=also)
        return None if schema is None else (schema, schema.read(part, problems))


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
