"""An entry with all that it sees, and the places of its modules: what it takes to stand it in a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dlspec.errors import KeyPath
from dlspec.language.expand.output_names import Level, Output
from dlspec.language.expand.repeats import Row, cells
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import Entry
from dlspec.language.parse.params import INDEX, Scope
from dlspec.language.parse.part import Part


@dataclass(frozen=True)
class Where:
    """A module's place in the state dict, and that of its use, which differ where it is used once more."""

    path: tuple[str, ...] = ()
    use: tuple[str, ...] = ()

    def child(self, *names: str) -> Where:
        words = tuple(each for each in names if each)
        return Where((*self.path, *words), (*self.use, *words))

    def paths_outward(self, name: str) -> tuple[str, ...]:
        """The paths at which a name may stand in the state dict, the nearest first; none for ''."""
        around = self.path[:-1]
        return tuple(".".join((*around[:length], name)) for length in range(len(around), -1, -1)) if name else ()


@dataclass(frozen=True)
class Blocks:
    """The blocks that can be named at a place, each with the scope and the blocks that it sees itself."""

    known: Mapping[str, KnownBlock] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownBlock:
    """A block with the scope and the blocks that it sees."""

    block: Block
    scope: Scope
    blocks: Blocks = Blocks()


@dataclass(frozen=True)
class EntryList:
    """Entries in order, and all that they see."""

    entries: Sequence[Entry]
    scope: Scope
    blocks: Blocks
    level: Level


@dataclass(frozen=True)
class Use:
    """An entry with all that it sees where it is written: it stands there, and again where it is shared (`at`)."""

    entry: Entry
    scope: Scope
    blocks: Blocks
    level: Level
    path: tuple[str, ...] = ()
    at: KeyPath = ()
    row: Row = field(default_factory=dict)
    row_origins: Mapping[str, KeyPath] = field(default_factory=dict)


@dataclass(frozen=True)
class EntryCall:
    """An entry that stands: its part with all settings evaluated, what it takes, and the place of its module.

    `origins` say for its settings where the params in them were written.
    """

    use: Use
    part: Part
    inputs: Mapping[int | str, Output]
    where: Where
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)


def each_copy(use: Use, rows: Sequence[Row]) -> Iterator[Use]:
    """The copies of a repeated entry, each with its variables."""
    for index, row in enumerate(rows):
        origins = cells(use.entry, row, index)
        scope = use.scope.with_values({**row, INDEX: index}, origins)
        yield replace(use, scope=scope, row=row, row_origins=origins)


def in_all(copies: Sequence[Output], entry: Entry) -> Output:
    """What a repeated entry's name stands for: the last copy, and each by its number."""
    standing = [each for each in copies if each.stands]
    last = standing[-1] if standing else Output(None, entry.path, absent="it is repeated 0 times")
    return replace(last, copies=tuple(copies), use=None)
