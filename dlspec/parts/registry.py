"""The registry of every kind of part: names to classes, each described when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dlspec.errors import UNKNOWN_PART_CODES, Code, UserError, find_closest, suggest
from dlspec.language.parse.part import Part
from dlspec.language.problems import Problems

if TYPE_CHECKING:  # it needs PyTorch, and data sources are registered without
    from dlspec.parts.schema import Schema

LAYER_NAMES_HELP = "layers have PyTorch's names (torch.nn), dlspec's own stand in docs/language.md; a block has its own"


_PLURALS = {"loss": "losses", "data set": "data sources"}
D = TypeVar("D")
P = TypeVar("P", bound=Callable[..., Any])


class DuplicateNameError(UserError, ValueError):
    """Two parts of one kind have one name."""


class Registry(Mapping[str, D]):
    """The parts of one kind by their names: what `describe` makes of each class, its schema or the class itself.

    `unsupported_values` says for names that we do not have what to write, and `foreign` for those of other frameworks what we call
    them: both for the error alone.
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
        """Those of all parts."""
        return self._classes.values()

    def register(self, cls: P, name: str = "") -> P:
        """Adds a class under its name; one that is taken is refused, both classes named.

        A class that is defined anew (in a notebook) replaces itself.
        """
        name = name or cls.__name__
        new_class, present_class = _full_name(cls), _full_name(self._classes.get(name, cls))
        if new_class != present_class:
            raise DuplicateNameError(
                f"two {self._plural} are named '{name}': {present_class} and {new_class}; give one another name"
            )
        self._classes[name] = cls
        self._described.pop(name, None)
        return cls

    def find(
        self, part: Part, problems: Problems, *, extra_names: Iterable[str] = (), at_value: bool = False
    ) -> D | None:
        """What the part's name stands for; an unknown one is a mistake, with the nearest one.

        `also` are choices beside ours; `at_value` says that the mistake stands at the value, not at the key.
        """
        if part.type in self:
            return self[part.type]
        if part.type in self._unsupported:
            code, found, fix = Code.NOT_YET, f"{part.type} is not there yet", self._unsupported[part.type]
        else:
            code, found = UNKNOWN_PART_CODES[self.kind], f"no {self.kind} '{part.type}'"
            fix = self._suggest_fix(part.type, extra_names)
        problems.add(code, part.path, found, fix, at_value=at_value)
        return None

    def _suggest_fix(self, name: str, extra_names: Iterable[str]) -> str:
        extra = next((each for each in extra_names if each.lower() == name.lower()), "")
        if extra:
            return f"did you mean '{extra}'?"
        if name in self._suggestions:
            return f"in PyTorch: {self._suggestions[name]}"
        nearest = find_closest(name, {*self, *extra_names})
        if nearest:
            return f"did you mean '{nearest}'?"
        # Some of a hundred names would tell nothing.
        return LAYER_NAMES_HELP if self.kind == "layer" else suggest(name, {*self, *extra_names})

    def read(
        self: Registry[Schema], part: Part, problems: Problems, *, extra_names: Iterable[str] = ()
    ) -> tuple[Schema, dict[str, Any]] | None:
        """The schema and the settings as written, checked; None where the name is unknown."""
        schema = self.find(part, problems, extra_names=extra_names)
        return None if schema is None else (schema, schema.read(part, problems))


def keep_class(cls: P) -> P:
    """For a registry whose names stand for the classes themselves."""
    return cls


def _full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
