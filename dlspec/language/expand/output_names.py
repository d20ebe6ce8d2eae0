"""Look up the names that `from` can contain: outputs above, outputs of copies, and additional outputs of a layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import MAX_SHOWN_PROBLEMS, Code, Finding, KeyPath, find_closest, format_value, suggest
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import FORMULAS_WITHOUT_BATCH

PREVIOUS = "_"  # the name of the output just before


@dataclass(frozen=True)
class EntryOutput:
    """The output of an entry, which a name refers to."""

    ref: OutputRef | None  # None if the entry is absent
    path: KeyPath = ()  # of the entry
    named_outputs: Mapping[str, EntryOutput] = field(default_factory=dict)  # of a block or Parallel
    is_layer: bool = False  # a layer's further outputs are known only when it is built
    copies: tuple[EntryOutput, ...] | None = None  # of a repeated entry
    absent: str = ""  # why the entry is absent
    branch_path: KeyPath = ()  # of a branch that counts as used together with the entry
    use: Any = field(default=None, compare=False)  # the entry's `EntryUse`, for `share`

    @property
    def is_present(self) -> bool:
        """Whether the entry is present."""
        return self.ref is not None

    def find_nodes(self) -> set[str]:
        """Return the nodes of all its outputs, those of its copies included."""
        nodes = set() if self.ref is None else {self.ref.node}
        return nodes.union(*(each.find_nodes() for each in (*self.named_outputs.values(), *(self.copies or ()))))


# Replaces an output with a problem that has been reported, so that the following entries are checked, too.
INVALID_OUTPUT = EntryOutput(OutputRef("!"))


@dataclass
class NameLevel:
    """The names that are visible in one list of entries while it is expanded."""

    parent: NameLevel | None = None  # the list around this one
    previous: EntryOutput | None = None  # the meaning of `_`
    no_previous: Finding | None = None  # why `_` is not defined
    names: dict[str, EntryOutput] = field(default_factory=dict)  # of entries above
    later_names: frozenset[str] = frozenset()  # of entries below
    current: str = ""  # of the entry that is being expanded
    passed_over: EntryOutput | None = None  # a formula without a batch after it, which was `_` in spec version 1

    def all_names(self) -> dict[str, EntryOutput]:
        """Return all visible names; inner ones hide outer ones."""
        return {**(self.parent.all_names() if self.parent else {}), **self.names}

    def find(self, name: str) -> EntryOutput | None:
        """Return the output with this name, None without one."""
        if name in self.names or self.parent is None:
            return self.names.get(name)
        return self.parent.find(name)

    def is_defined_later(self, name: str) -> bool:
        """Whether an entry below has this name."""
        return name in self.later_names or (self.parent is not None and self.parent.is_defined_later(name))

    def is_inside(self, name: str) -> bool:
        """Whether the list of entries belongs to a container with this name."""
        return self.parent is not None and (self.parent.current == name or self.parent.is_inside(name))


class NameLookup:
    """Looks up the names of outputs, reports unknown ones, and records which outputs are used: in `used_paths` by their
    entries, in `used_nodes` by the nodes of each copy.

    Args:
        problems: receives unknown names.
        hidden_names: names inside containers and blocks, with a description of the container or block.
        model_names: names of entries that are not nested.
    """

    def __init__(self, problems: Problems, hidden_names: Mapping[str, str], model_names: Collection[str]) -> None:
        self.problems, self.hidden_names, self.model_names = problems, hidden_names, model_names
        self.used_paths: set[KeyPath] = set()
        self.used_nodes: set[str] = set()
        self.nodes_without_batch: set[str] = set()  # a Parameter, and what is computed from Parameters alone
        self.nodes_without_inputs: set[str] = set()  # a Parameter, and a formula of constants
        self.current_path: KeyPath = ()

    def find(self, text: Any, level: NameLevel, path: KeyPath, *, at_value: bool = True) -> list[EntryOutput]:
        """Find the outputs for `NAME`, `NAME.word` or `NAME.*`, and mark them as used.

        Args:
            text: the name as written.
            level: the visible names.
            path: the path of the name in the config, for problems.
            at_value: whether a problem is located at the value instead of the key.

        Returns:
            The outputs, `INVALID_OUTPUT` if the name is unknown.
        """
        found = self.find_without_marking(text, level, path, at_value=at_value)
        return [self._mark_taken(each, str(text), path) for each in found]

    def find_without_marking(
        self, text: Any, level: NameLevel, path: KeyPath, *, at_value: bool = True
    ) -> list[EntryOutput]:
        """Find outputs as `find` does, without marking them as used.

        Args:
            text: the name as written.
            level: the visible names.
            path: the path of the name in the config, for problems.
            at_value: whether a problem is located at the value instead of the key.

        Returns:
            The outputs, `INVALID_OUTPUT` if the name is unknown.
        """
        if not isinstance(text, str) or not text:
            is_named_only = path[-1:] == ("share",) or path[-2:-1] == ("outputs",)  # where `_` has no meaning
            fix = "write the name of an entry above" + (", or _ for the previous output" if not is_named_only else "")
            kind = "entry to share" if path[-1:] == ("share",) else "output"
            found = f"expected the name of an {kind}, got {format_value(text)}"
            return [self._report_invalid(Code.WRONG_TYPE, path, found, fix)]
        head, *words = text.split(".")
        outputs = [self._find_head(head, level, path, at_value)]
        for word in words:
            outputs = [each for output in outputs for each in self._find_after_dot(output, word, text, path)]
        return outputs

    def mark_used(self, name: str, level: NameLevel) -> None:
        """Mark an output as used by an absent entry."""
        found = level.previous if name == PREVIOUS else level.find(name)
        if found is not None:
            self.used_paths.add(found.path)
            self.used_nodes |= found.find_nodes()

    def mark_node_used(self, output: EntryOutput | None) -> None:
        """Mark the node of an output as used; of a repeated entry that is the last copy."""
        if output is not None and output.ref is not None:
            self.used_nodes.add(output.ref.node)

    def _find_head(self, name: str, level: NameLevel, path: KeyPath, at_value: bool) -> EntryOutput:
        if name == PREVIOUS and level.passed_over is not None:
            self.problems.refuse_changed_rule(FORMULAS_WITHOUT_BATCH, path, at_value=at_value)
        if name == PREVIOUS:
            return level.previous if level.previous is not None else self._report_no_previous(level, path, at_value)
        found = level.find(name)
        if found is not None:
            return found
        if name == level.current:
            return self._report_invalid(
                Code.CYCLE,
                path,
                f"'{name}' is this entry itself",
                "write the name of an entry above, or _ for the previous output",
            )
        if level.is_defined_later(name):
            return self._report_invalid(
                Code.OUTPUT_BELOW, path, f"'{name}' is defined below", "an entry can only use outputs above it"
            )
        if level.is_inside(name):
            fix = "write the name of an entry above that does not contain it"
            return self._report_invalid(Code.UNKNOWN_OUTPUT, path, f"'{name}' contains this entry", fix)
        return self._report_invalid(
            Code.UNKNOWN_OUTPUT, path, f"no output named '{name}' above", self._suggest_name(name, level, path)
        )

    def _report_no_previous(self, level: NameLevel, path: KeyPath, at_value: bool) -> EntryOutput:
        assert level.no_previous is not None  # either previous or no_previous is set
        self.problems.add_finding(path, level.no_previous, at_value=at_value)
        return INVALID_OUTPUT

    def _suggest_name(self, name: str, level: NameLevel, path: KeyPath) -> str:
        """Suggest a fix for a name that no entry above has."""
        if "," in name:
            return f"write from: [{name}]"
        if len(self.problems) > MAX_SHOWN_PROBLEMS:  # searching for similar names is slow, and the problem is not shown
            return ""
        known = level.all_names()
        guess = find_closest(name, known)
        if guess:
            return f"did you mean '{guess}'?"
        if name in self.hidden_names:
            return f"it is inside {self.hidden_names[name]}, and names inside are not visible outside"
        if name in self.model_names and "TimeDistributed" in path:
            return f"'{name}' is outside of TimeDistributed: pass it as an input, from: [_, {name}]"
        if name in self.model_names:
            return f"'{name}' is outside of this block: pass it as an input, inputs: [x, {name}]"
        return suggest(name, known) or "no entry above has a name: add one, as in Linear: {name: stem, ...}"

    def _find_after_dot(self, output: EntryOutput, word: str, text: str, path: KeyPath) -> Iterator[EntryOutput]:
        """Yield the outputs for a word after a dot: a copy's number, `*` for all copies, or the name of an output."""
        if output.ref == INVALID_OUTPUT.ref and output.copies is None:
            yield output
        elif word == "*":
            yield from self._find_all_copies(output, text, path)
        elif output.copies is not None and word.isdigit():
            yield self._find_copy(output, int(word), text, path)
        elif word in output.named_outputs:
            yield replace(output.named_outputs[word], path=output.path)
        elif output.is_layer and output.ref is not None:
            yield EntryOutput(OutputRef(output.ref.node, word), output.path)
        else:
            fix = suggest(word, output.named_outputs) or "it has one output: write only its name"
            yield self._report_invalid(
                Code.UNKNOWN_OUTPUT, path, f"unknown output '{word}' of '{text.rpartition('.')[0]}'", fix
            )

    def _find_all_copies(self, output: EntryOutput, text: str, path: KeyPath) -> Iterator[EntryOutput]:
        if output.copies is None:
            name = text.partition(".")[0]
            yield self._report_invalid(
                Code.UNKNOWN_OUTPUT,
                path,
                f"'{text}' needs a repeated entry, and '{name}' has no repeat",
                f"write '{name}' without '.*'",
            )
            return
        copies = [replace(each, path=output.path) for each in output.copies if each.is_present]
        yield from copies or [output]

    def _find_copy(self, output: EntryOutput, number: int, text: str, path: KeyPath) -> EntryOutput:
        copies = output.copies or ()
        if number < len(copies):
            return replace(copies[number], path=output.path)
        fix = f"there are {len(copies)} copies, 0 to {len(copies) - 1}" if copies else "it is repeated 0 times"
        return self._report_invalid(Code.UNKNOWN_OUTPUT, path, f"'{text}': copy {number} does not exist", fix)

    def _mark_taken(self, output: EntryOutput, text: str, path: KeyPath) -> EntryOutput:
        if output.path and output.path != self.current_path:  # copies that read each other do not count
            self.used_paths |= {output.path, output.branch_path} - {()}
        self.mark_node_used(output)
        if not output.is_present:
            return self._report_invalid(
                Code.OUTPUT_ABSENT,
                path,
                f"'{text}' does not exist: {output.absent}",
                self._suggest_for_absent(output, path),
            )
        return output

    def _suggest_for_absent(self, output: EntryOutput, path: KeyPath) -> str:
        if path[-2:-1] == ("outputs",):
            return "remove it from 'outputs', or keep the entry"
        if "repeated" in output.absent:
            return "repeat it at least once, or remove this entry with an 'if'"
        return "give this entry the same 'if'"

    def _report_invalid(self, code: Code, path: KeyPath, found: str, fix: str) -> EntryOutput:
        self.problems.add(code, path, found, fix, at_value=True)
        return INVALID_OUTPUT
