"""An entry with all that it sees, and the places of its modules: what it takes to stand it in a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dlspec.errors import KeyPath
from dlspec.language.expand.output_names import EntryOutput, NameLevel
from dlspec.language.expand.repeat_rows import RepeatRow, find_variable_paths
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import Entry
from dlspec.language.parse.params import INDEX, Scope
from dlspec.language.parse.part import Part


@dataclass(frozen=True)
class ModulePath:
    """A module's place in the state dict, and that of its use, which differ where it is used once more."""

    path: tuple[str, ...] = ()
    use: tuple[str, ...] = ()

    def make_child(self, *names: str) -> ModulePath:
        parts = tuple(each for each in names if each)
        return ModulePath((*self.path, *parts), (*self.use, *parts))

    def paths_outward(self, name: str) -> tuple[str, ...]:
        """The paths at which a name may stand in the state dict, the nearest first; none for ''."""
        around = self.path[:-1]
        return tuple(".".join((*around[:length], name)) for length in range(len(around), -1, -1)) if name else ()


@dataclass(frozen=True)
class VisibleBlocks:
    """The blocks that can be named at a place, each with the scope and the blocks that it sees itself."""

    by_name: Mapping[str, ScopedBlock] = field(default_factory=dict)


@dataclass(frozen=True)
class ScopedBlock:
    """A block with the scope and the blocks that it sees."""

    block: Block
    scope: Scope
    blocks: VisibleBlocks = VisibleBlocks()


@dataclass(frozen=True)
class EntryList:
    """Entries in order, and all that they see."""

    entries: Sequence[Entry]
    scope: Scope
    blocks: VisibleBlocks
    level: NameLevel


@dataclass(frozen=True)
class EntryUse:
    """An entry with all that it sees where it is written: it stands there, and again where it is shared (`at`)."""

    entry: Entry
    scope: Scope
    blocks: VisibleBlocks
    level: NameLevel
    path: tuple[str, ...] = ()
    shared_path: KeyPath = ()
    repeat_row: RepeatRow = field(default_factory=dict)
    row_origins: Mapping[str, KeyPath] = field(default_factory=dict)


@dataclass(frozen=True)
class EntryCall:
    """An entry that stands: its part with all settings evaluated, what it takes, and the place of its module.

    `origins` say for its settings where the params in them were written.
    """

    use: EntryUse
    part: Part
    inputs: Mapping[int | str, EntryOutput]
    where: ModulePath
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)


def iterate_copies(use: EntryUse, rows: Sequence[RepeatRow]) -> Iterator[EntryUse]:
    """The copies of a repeated entry, each with its variables."""
    for index, row in enumerate(rows):
        origins = find_variable_paths(use.entry, row, index)
        scope = use.scope.with_values({**row, INDEX: index}, origins)
        yield replace(use, scope=scope, repeat_row=row, row_origins=origins)


def combine_copies(copies: Sequence[EntryOutput], entry: Entry) -> EntryOutput:
    """What a repeated entry's name stands for: the last copy, and each by its number."""
    present_copies = [each for each in copies if each.is_present]
    last = present_copies[-1] if present_copies else EntryOutput(None, entry.path, absent="it is repeated 0 times")
    return replace(last, copies=tuple(copies), use=None)
