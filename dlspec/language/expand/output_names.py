"""What `from` can name: the outputs above, those of copies, and the further ones that a layer or block has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import MOST_SHOWN, Code, Finding, KeyPath, near, shown, suggest
from dlspec.language.parse.deferred import Ref
from dlspec.language.problems import Problems

BEFORE = "_"
"""The output just before."""


@dataclass(frozen=True)
class Output:
    """What a name stands for. `ref` is its value, None where there is none: `absent` says why.

    `path` is the entry's place. `further` are outputs by word; of a layer (`is_layer`) only building it tells which
    there are. `copies` are those of a repeated entry. `also` is a branch that is
    taken with the entry. `use` is how its module came to stand there, for `share`.
    """

    ref: Ref | None
    path: KeyPath = ()
    further: Mapping[str, Output] = field(default_factory=dict)
    is_layer: bool = False
    copies: tuple[Output, ...] | None = None
    absent: str = ""
    also: KeyPath = ()
    use: Any = field(default=None, compare=False)

    @property
    def stands(self) -> bool:
        return self.ref is not None


WRONG = Output(Ref("!"))
"""In the place of an output whose mistake was told: it flows on, so that what takes it is checked as well."""


@dataclass
class Level:
    """One list of entries while it is expanded: the names above, those around it, and `_`.

    `before` is None where nothing stands before: `no_before` says why, and what to write. `later` are names
    further down, `current` is that of the entry which is looking.
    """

    around: Level | None = None
    before: Output | None = None
    no_before: Finding | None = None
    names: dict[str, Output] = field(default_factory=dict)
    later: frozenset[str] = frozenset()
    current: str = ""

    def all_names(self) -> dict[str, Output]:
        """The names that can be seen, the nearest of each."""
        return {**(self.around.all_names() if self.around else {}), **self.names}

    def find(self, name: str) -> Output | None:
        if name in self.names or self.around is None:
            return self.names.get(name)
        return self.around.find(name)

    def is_later(self, name: str) -> bool:
        return name in self.later or (self.around is not None and self.around.is_later(name))


class Names:
    """Looks references up. `read` grows by the places of the entries whose outputs another one takes.

    `hidden` are names that are not seen outside of what holds them, `everywhere` all names of the model's own level;
    `reader` is the entry that is looking.
    """

    def __init__(self, problems: Problems, hidden: Mapping[str, str], everywhere: Collection[str]) -> None:
        self.problems, self.hidden, self.everywhere = problems, hidden, everywhere
        self.read: set[KeyPath] = set()
        self.reader: KeyPath = ()

    def find(self, text: Any, level: Level, path: KeyPath, *, at_value: bool = True) -> list[Output]:
        """The outputs that `NAME`, `NAME.word` or `NAME.*` names, `WRONG` where that is a mistake; they are taken."""
        found = self.look_up(text, level, path, at_value=at_value)
        return [self._taken(each, str(text), path) for each in found]

    def look_up(self, text: Any, level: Level, path: KeyPath, *, at_value: bool = True) -> list[Output]:
        """As `find`, but nothing is taken."""
        if not isinstance(text, str) or not text:
            fix = "write the name of an entry above, or _ for the output just before"
            return [self._wrong(Code.WRONG_TYPE, path, f"{shown(text)} is no name of an output", fix)]
        head, *words = text.split(".")
        outputs = [self._head(head, level, path, at_value)]
        for word in words:
            outputs = [each for output in outputs for each in self._step(output, word, text, path)]
        return outputs

    def mark(self, name: str, level: Level) -> None:
        """Notes that something which does not stand would have taken this output."""
        found = level.before if name == BEFORE else level.find(name)
        if found is not None:
            self.read.add(found.path)

    def _head(self, name: str, level: Level, path: KeyPath, at_value: bool) -> Output:
        if name == BEFORE:
            return level.before if level.before is not None else self._no_before(level, path, at_value)
        found = level.find(name)
        if found is not None:
            return found
        if name == level.current:
            return self._wrong(
                Code.CYCLE, path, f"'{name}' is this entry itself", "name an entry above, or _ for what comes in"
            )
        if level.is_later(name):
            return self._wrong(
                Code.OUTPUT_BELOW, path, f"'{name}' stands below", "an entry takes outputs that stand above it"
            )
        return self._wrong(Code.UNKNOWN_OUTPUT, path, f"no output '{name}' above", self._nearest(name, level))

    def _no_before(self, level: Level, path: KeyPath, at_value: bool) -> Output:
        assert level.no_before is not None  # a level has one of the two
        self.problems.add_finding(path, level.no_before, at_value=at_value)
        return WRONG

    def _nearest(self, name: str, level: Level) -> str:
        """What may have been meant by a name that nothing above has."""
        if "," in name:
            return f"write from: [{name}]"
        if len(self.problems) > MOST_SHOWN:  # looking for what is near takes long, and nobody would see it
            return ""
        known = level.all_names()
        guess = near(name, known)
        if guess:
            return f"did you mean '{guess}'?"
        if name in self.hidden:
            return f"{self.hidden[name]} has one inside, which is not seen outside"
        if name in self.everywhere:
            return f"'{name}' stands outside of this block: give it as an input, inputs: [x, {name}]"
        return suggest(name, known) or "nothing above has a name: give one, as in Linear: {name: stem, ...}"

    def _step(self, output: Output, word: str, text: str, path: KeyPath) -> Iterator[Output]:
        """What stands behind a dot: a copy's number, `*` for all copies, or a further output's word."""
        if output.ref == WRONG.ref and output.copies is None:
            yield output
        elif word == "*":
            yield from self._all_copies(output, text, path)
        elif output.copies is not None and word.isdigit():
            yield self._copy(output, int(word), text, path)
        elif word in output.further:
            yield replace(output.further[word], path=output.path)
        elif output.is_layer and output.ref is not None:
            yield Output(Ref(output.ref.node, word), output.path)
        else:
            fix = suggest(word, output.further) or "it has one output: write its name alone"
            yield self._wrong(Code.UNKNOWN_OUTPUT, path, f"no output '{word}' of '{text.rpartition('.')[0]}'", fix)

    def _all_copies(self, output: Output, text: str, path: KeyPath) -> Iterator[Output]:
        if output.copies is None:
            name = text.partition(".")[0]
            yield self._wrong(Code.UNKNOWN_OUTPUT, path, f"'{text}', and '{name}' has no repeat", f"write {name}")
            return
        copies = [replace(each, path=output.path) for each in output.copies if each.stands]
        yield from copies or [output]

    def _copy(self, output: Output, number: int, text: str, path: KeyPath) -> Output:
        copies = output.copies or ()
        if number < len(copies):
            return replace(copies[number], path=output.path)
        fix = f"there are {len(copies)} copies, 0 to {len(copies) - 1}" if copies else "it stands 0 times"
        return self._wrong(Code.UNKNOWN_OUTPUT, path, f"'{text}': there is no copy {number}", fix)

    def _taken(self, output: Output, text: str, path: KeyPath) -> Output:
        if output.path and output.path != self.reader:  # a copy takes what the one before it gave
            self.read |= {output.path, output.also} - {()}
        if not output.stands:
            return self._wrong(
                Code.OUTPUT_ABSENT,
                path,
                f"'{text}' is not there: {output.absent}",
                "give this entry the same condition",
            )
        return output

    def _wrong(self, code: Code, path: KeyPath, found: str, fix: str) -> Output:
        self.problems.add(code, path, found, fix, at_value=True)
        return WRONG
