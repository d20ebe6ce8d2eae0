"""An entry with its context: its scope, the visible blocks and names, and the path of its module."""

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
    """The path of a module in the state dict, and of its use in the network. They differ for a shared module."""

    path: tuple[str, ...] = ()
    use: tuple[str, ...] = ()

    def make_child(self, *names: str) -> ModulePath:
        """Append names to both paths."""
        parts = tuple(each for each in names if each)
        return ModulePath((*self.path, *parts), (*self.use, *parts))

    def list_visible_paths(self, name: str) -> tuple[str, ...]:
        """Return the possible paths of a module with this name: next to this module first, then further outside."""
        around = self.path[:-1]
        return tuple(".".join((*around[:length], name)) for length in range(len(around), -1, -1)) if name else ()


@dataclass(frozen=True)
class VisibleBlocks:
    """The blocks that an entry can call, each with its own scope and visible blocks."""

    by_name: Mapping[str, ScopedBlock] = field(default_factory=dict)


@dataclass(frozen=True)
class ScopedBlock:
    """A block with its scope and the blocks that it can call."""

    block: Block
    scope: Scope
    blocks: VisibleBlocks = VisibleBlocks()


@dataclass(frozen=True)
class EntryList:
    """A list of entries, with their scope, visible blocks and visible names."""

    entries: Sequence[Entry]
    scope: Scope
    blocks: VisibleBlocks
    level: NameLevel


@dataclass(frozen=True)
class EntryUse:
    """An entry with everything that it can refer to where it is written. A shared entry is used more than once."""

    entry: Entry
    scope: Scope
    blocks: VisibleBlocks
    level: NameLevel
    path: tuple[str, ...] = ()  # of its module in the state dict
    shared_path: KeyPath = ()  # in the config, of the entry whose `share` names this one
    repeat_row: RepeatRow = field(default_factory=dict)  # the variables of this copy
    row_origins: Mapping[str, KeyPath] = field(default_factory=dict)  # where these variables are written


@dataclass(frozen=True)
class EntryCall:
    """An entry that is present, with its settings evaluated and its inputs found."""

    use: EntryUse
    part: Part  # with evaluated settings
    inputs: Mapping[int | str, EntryOutput]  # by position or by the name of an argument
    where: ModulePath
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)  # of a setting: where its param is written


def iterate_copies(use: EntryUse, rows: Sequence[RepeatRow]) -> Iterator[EntryUse]:
    """Yield the copies of a repeated entry, each with its variables in scope."""
    hides_index = INDEX in use.scope.values and use.scope.problems.spec_version >= 2
    for index, row in enumerate(rows):
        origins = find_variable_paths(use.entry, row, index)
        scope = use.scope.with_values({**row, INDEX: index}, origins)
        scope = replace(scope, hides_index=hides_index)
        yield replace(use, scope=scope, repeat_row=row, row_origins=origins)


def combine_copies(copies: Sequence[EntryOutput], entry: Entry) -> EntryOutput:
    """Make the output of a repeated entry: that of the last copy, with all copies in `copies`."""
    present_copies = [each for each in copies if each.is_present]
    last = present_copies[-1] if present_copies else EntryOutput(None, entry.path, absent="it is repeated 0 times")
    return replace(last, copies=tuple(copies), use=None)
