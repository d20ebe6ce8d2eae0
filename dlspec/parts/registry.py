"""Registries that map the names of parts to their schemas. A schema is derived when it is first looked up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dlspec.errors import UNKNOWN_PART_CODES, Code, UserError, find_closest, suggest
from dlspec.language.parse.part import Part
from dlspec.language.problems import Problems

if TYPE_CHECKING:  # schema imports PyTorch, which registering data sources does not need
    from dlspec.parts.schema import Schema

MAX_LISTED = 40  # names that are listed whole; there are more metrics than that
LAYER_NAMES_HELP = "use a layer of torch.nn, a layer from docs/language.md, or a block"


# Where a spec names each kind of part.
_PLACES = {
    "layer": "in model.layers",
    "loss": "in the section loss",
    "optimizer": "in the section optimizer",
    "scheduler": "in the section scheduler",
    "metric": "in the section metrics",
}
_PLURALS = {"loss": "losses", "data set": "data sources"}
D = TypeVar("D")
P = TypeVar("P", bound=Callable[..., Any])


class DuplicateNameError(UserError, ValueError):
    """Two parts of the same kind have the same name."""


class Registry(Mapping[str, D]):
    """All parts of one kind: a mapping from a part's name to what `describe` returns for its class, usually a schema.

    Two tables improve the error for an unknown name: `unsupported` maps names that dlspec does not support to a fix,
    and `suggestions` maps names from other frameworks to dlspec's.
    """

    def __init__(
        self,
        kind: str,
        classes: Iterable[P],
        describe: Callable[[P], D],
        *,
        unsupported: Mapping[str, str] | None = None,
        suggestions: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self._plural = kind, _PLURALS.get(kind, f"{kind}s")
        self._classes: dict[str, Any] = {each.__name__: each for each in classes}
        self._describe = describe
        self._described: dict[str, D] = {}
        self._unsupported = unsupported or {}
        self._suggestions = suggestions or {}
        self._other_kinds: tuple[Registry[Any], ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> D:
        if name not in self._described:
            self._described[name] = self._describe(self._classes[name])
        return self._described[name]

    def classes(self) -> Iterable[type]:
        """Return the classes of all parts."""
        return self._classes.values()

    def set_other_kinds(self, *registries: Registry[Any]) -> None:
        """Set the registries whose parts are recognized where a part of this kind is expected."""
        self._other_kinds = registries

    def register(self, cls: P, name: str = "") -> P:
        """Register a class under `name`, by default its own name.

        A class that is defined again (in a notebook) replaces its earlier version.

        Raises:
            DuplicateNameError: another class has this name.
        """
        name = name or cls.__name__
        new_class, present_class = _full_name(cls), _full_name(self._classes.get(name, cls))
        if new_class != present_class:
            raise DuplicateNameError(
                f"two {self._plural} are named '{name}': {present_class} and {new_class}; rename one of them"
            )
        self._classes[name] = cls
        self._described.pop(name, None)
        return cls

    def find(
        self,
        part: Part,
        problems: Problems,
        *,
        extra_names: Iterable[str] = (),
        at_value: bool = False,
        setting_names: Collection[str] = (),
    ) -> D | None:
        """Look up a part by its name; report a problem with the closest name if it is unknown.

        Args:
            part: The part as written in the spec.
            problems: Where an unknown name is reported.
            extra_names: Other valid names to suggest, such as the files of a config group.
            at_value: Mark the value instead of the key in the excerpt of the file.
            setting_names: Settings of the parts: such a name as the part's name means that 'type' is missing.

        Returns:
            What `describe` returned for the part's class, or None if the name is unknown.
        """
        if part.type in self:
            return self[part.type]
        if part.type in self._unsupported:
            found = f"{part.type} is not supported" + (" yet" if self.kind == "data set" else "")
            code, fix = Code.NOT_YET, self._unsupported[part.type]
        else:
            code, found = UNKNOWN_PART_CODES[self.kind], f"unknown {self.kind} '{part.type}'"
            fix = self._suggest_fix(part.type, extra_names)
            if part.type in setting_names and part.settings_path != part.path:
                found, fix = f"the {self.kind} has no 'type'", f"add one: {{type: NAME, {part.type}: ...}}"
        problems.add(code, part.path, found, fix, at_value=at_value)
        return None

    def _suggest_fix(self, name: str, extra_names: Iterable[str]) -> str:
        extra = next((each for each in extra_names if each.lower() == name.lower()), "")
        if extra:
            return f"did you mean '{extra}'?"
        if name in self._suggestions:
            return f"use {self._suggestions[name]}"
        for other in self._other_kinds:
            if name in other or name in other._unsupported:
                place = other._unsupported.get(name) or f"write it {_PLACES[other.kind]}, not as {self._with_article()}"
                return f"it is {other._with_article()}: {place}"
        nearest = find_closest(name, {*self, *extra_names})
        if nearest:
            return f"did you mean '{nearest}'?"
        # A few out of more than a hundred layer names would not help.
        names = {*self, *extra_names}
        return LAYER_NAMES_HELP if self.kind == "layer" else suggest(name, names, MAX_LISTED)

    def _with_article(self) -> str:
        return f"an {self.kind}" if self.kind[0] in "aeiou" else f"a {self.kind}"

    def read(
        self: Registry[Schema], part: Part, problems: Problems, *, extra_names: Iterable[str] = ()
    ) -> tuple[Schema, dict[str, Any]] | None:
        """Look up a part's schema and check the written settings against it.

        Args:
            part: The part as written in the spec.
            problems: Where unknown names and wrong settings are reported.
            extra_names: Other valid names to suggest, such as the files of a config group.

        Returns:
            The schema and the checked settings, or None if the name is unknown.
        """
        schema = self.find(part, problems, extra_names=extra_names)
        return None if schema is None else (schema, schema.read(part, problems))


def describe_as_class_itself(cls: P) -> P:
    """Return the class unchanged: the `describe` function of registries that contain classes instead of schemas."""
    return cls


def _full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
