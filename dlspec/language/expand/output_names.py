"""What `from` can name: the outputs above, those of copies, and the further ones that a layer or block has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import MAX_SHOWN_PROBLEMS, Code, Finding, KeyPath, find_closest, format_value, suggest
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.problems import Problems

PREVIOUS = "_"
"""The output just before."""


@dataclass(frozen=True)
class EntryOutput:
    """What a name stands for. `ref` is its value, None where there is none: `absent` says why.

    `path` is the entry's place. `further` are outputs by word; of a layer (`is_layer`) only building it tells which
    there are. `copies` are those of a repeated entry. `also` is a branch that is
    taken with the entry. `use` is how its module came to stand there, for `share`.
    """

    ref: OutputRef | None
    path: KeyPath = ()
    named_outputs: Mapping[str, EntryOutput] = field(default_factory=dict)
    is_layer: bool = False
    copies: tuple[EntryOutput, ...] | None = None
    absent: str = ""
    branch_path: KeyPath = ()
    use: Any = field(default=None, compare=False)

    @property
    def is_present(self) -> bool:
        return self.ref is not None


INVALID_OUTPUT = EntryOutput(OutputRef("!"))
"""In the place of an output whose mistake was told: it flows on, so that what takes it is checked as well."""


@dataclass
class NameLevel:
    """One list of entries while it is expanded: the names above, those around it, and `_`.

    `before` is None where nothing stands before: `no_previous` says why, and what to write. `later` are names
    further down, `current` is that of the entry which is looking.
    """

    parent: NameLevel | None = None
    previous: EntryOutput | None = None
    no_previous: Finding | None = None
    names: dict[str, EntryOutput] = field(default_factory=dict)
    later_names: frozenset[str] = frozenset()
    current: str = ""

    def all_names(self) -> dict[str, EntryOutput]:
        """The names that can be seen, the nearest of each."""
        return {**(self.parent.all_names() if self.parent else {}), **self.names}

    def find(self, name: str) -> EntryOutput | None:
        if name in self.names or self.parent is None:
            return self.names.get(name)
        return self.parent.find(name)

    def is_later(self, name: str) -> bool:
        return name in self.later_names or (self.parent is not None and self.parent.is_later(name))


class NameLookup:
    """Looks references up. `read` grows by the places of the entries whose outputs another one takes.

    `hidden` are names that are not seen outside of what holds them, `everywhere` all names of the model's own level;
    `reader` is the entry that is looking.
    """

    def __init__(self, problems: Problems, hidden_names: Mapping[str, str], model_names: Collection[str]) -> None:
        self.problems, self.hidden_names, self.model_names = problems, hidden_names, model_names
        self.used_paths: set[KeyPath] = set()
        self.current_path: KeyPath = ()

    def find(self, text: Any, level: NameLevel, path: KeyPath, *, at_value: bool = True) -> list[EntryOutput]:
        """The outputs that `NAME`, `NAME.word` or `NAME.*` names, `WRONG` where that is a mistake; they are taken."""
        found = self.look_up(text, level, path, at_value=at_value)
        return [self._mark_taken(each, str(text), path) for each in found]

    def look_up(self, text: Any, level: NameLevel, path: KeyPath, *, at_value: bool = True) -> list[EntryOutput]:
        """As `find`, but nothing is taken."""
        if not isinstance(text, str) or not text:
            fix = "write the name of an entry above, or _ for the output just before"
            return [self._report_invalid(Code.WRONG_TYPE, path, f"{format_value(text)} is no name of an output", fix)]
        head, *words = text.split(".")
        outputs = [self._find_head(head, level, path, at_value)]
        for word in words:
            outputs = [each for output in outputs for each in self._follow_word(output, word, text, path)]
        return outputs

    def mark_used(self, name: str, level: NameLevel) -> None:
        """Notes that something which does not stand would have taken this output."""
        found = level.previous if name == PREVIOUS else level.find(name)
        if found is not None:
            self.used_paths.add(found.path)

    def _find_head(self, name: str, level: NameLevel, path: KeyPath, at_value: bool) -> EntryOutput:
        if name == PREVIOUS:
            return level.previous if level.previous is not None else self._report_no_previous(level, path, at_value)
        found = level.find(name)
        if found is not None:
            return found
        if name == level.current:
            return self._report_invalid(
                Code.CYCLE, path, f"'{name}' is this entry itself", "name an entry above, or _ for what comes in"
            )
        if level.is_later(name):
            return self._report_invalid(
                Code.OUTPUT_BELOW, path, f"'{name}' stands below", "an entry takes outputs that stand above it"
            )
        return self._report_invalid(
            Code.UNKNOWN_OUTPUT, path, f"no output '{name}' above", self._suggest_name(name, level)
        )

    def _report_no_previous(self, level: NameLevel, path: KeyPath, at_value: bool) -> EntryOutput:
        assert level.no_previous is not None  # a level has one of the two
        self.problems.add_finding(path, level.no_previous, at_value=at_value)
        return INVALID_OUTPUT

    def _suggest_name(self, name: str, level: NameLevel) -> str:
        """What may have been meant by a name that nothing above has."""
        if "," in name:
            return f"write from: [{name}]"
        if len(self.problems) > MAX_SHOWN_PROBLEMS:  # looking for what is near takes long, and nobody would see it
            return ""
        known = level.all_names()
        guess = find_closest(name, known)
        if guess:
            return f"did you mean '{guess}'?"
        if name in self.hidden_names:
            return f"{self.hidden_names[name]} has one inside, which is not seen outside"
        if name in self.model_names:
            return f"'{name}' stands outside of this block: give it as an input, inputs: [x, {name}]"
        return suggest(name, known) or "nothing above has a name: give one, as in Linear: {name: stem, ...}"

    def _follow_word(self, output: EntryOutput, word: str, text: str, path: KeyPath) -> Iterator[EntryOutput]:
        """What stands behind a dot: a copy's number, `*` for all copies, or a further output's word."""
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
            fix = suggest(word, output.named_outputs) or "it has one output: write its name alone"
            yield self._report_invalid(
                Code.UNKNOWN_OUTPUT, path, f"no output '{word}' of '{text.rpartition('.')[0]}'", fix
            )

    def _find_all_copies(self, output: EntryOutput, text: str, path: KeyPath) -> Iterator[EntryOutput]:
        if output.copies is None:
            name = text.partition(".")[0]
            yield self._report_invalid(
                Code.UNKNOWN_OUTPUT, path, f"'{text}', and '{name}' has no repeat", f"write {name}"
            )
            return
        copies = [replace(each, path=output.path) for each in output.copies if each.is_present]
        yield from copies or [output]

    def _find_copy(self, output: EntryOutput, number: int, text: str, path: KeyPath) -> EntryOutput:
        copies = output.copies or ()
        if number < len(copies):
            return replace(copies[number], path=output.path)
        fix = f"there are {len(copies)} copies, 0 to {len(copies) - 1}" if copies else "it stands 0 times"
        return self._report_invalid(Code.UNKNOWN_OUTPUT, path, f"'{text}': there is no copy {number}", fix)

    def _mark_taken(self, output: EntryOutput, text: str, path: KeyPath) -> EntryOutput:
        if output.path and output.path != self.current_path:  # a copy takes what the one before it gave
            self.used_paths |= {output.path, output.branch_path} - {()}
        if not output.is_present:
            return self._report_invalid(
                Code.OUTPUT_ABSENT,
                path,
                f"'{text}' is not there: {output.absent}",
                "give this entry the same condition",
            )
        return output

    def _report_invalid(self, code: Code, path: KeyPath, found: str, fix: str) -> EntryOutput:
        self.problems.add(code, path, found, fix, at_value=True)
        return INVALID_OUTPUT
