"""What every data set gives: named fields, targets, three splits, and the facts that a spec may ask for.

Shapes leave the batch out. All tensors lie on the CPU; the trainer moves them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import pad

from dlspec.errors import Code, DataError
from dlspec.layouts import Layout
from dlspec.limits import MAX_CLASSES


@dataclass(frozen=True)
class Field:
    """One input of the network. Tokens are int64 of shape (length,); among words 0 is padding, 1 an unknown one."""

    name: str
    shape: tuple[int, ...]
    layout: Layout
    vocab_size: int | None = None
    has_lengths: bool = False

    @property
    def lengths(self) -> str:
        """The name under which a split holds this field's lengths."""
        return f"{self.name}_lengths"


@dataclass(frozen=True)
class Target:
    """What is to be predicted: `classes` (int64) or `numbers` (float32), of `shape` a sample.

    Classes of shape (T,) are one a step, of (H, W) one a pixel; `next_of` is the tokens' field of which each step is
    the next token (the target's own name where a network takes it too, moved by one step). `lengths` names the field
    whose lengths are the target's, too. Numbers with a `scale` (mean, deviation) are stored as (original - mean) /
    deviation, so that results can be told in the original unit.
    """

    name: str
    kind: Literal["classes", "numbers"]
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    next_of: str = ""
    lengths: str = ""

    @property
    def num_outputs(self) -> int:
        """How many numbers a network gives for it (a step, a pixel): one for two classes, one a class for more."""
        if self.kind == "classes":
            return 1 if len(self.classes) == 2 else len(self.classes)
        if not self.shape:
            return 1
        return self.shape[1 if len(self.shape) == 2 else 0]  # (C), a sequence (T, C), or (C, H, W)

    @property
    def is_next(self) -> bool:
        """Whether it is the next token, which the network must not see before."""
        return bool(self.next_of)


@dataclass(frozen=True)
class Split:
    """Samples as whole tensors: every field by its name, `NAME_lengths` (int64) beside those that keep lengths.

    `targets` are by their names too; what has none of its own is an autoencoder's data.
    """

    tensors: Mapping[str, Tensor]
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter((self.targets or self.tensors).values())))

    @property
    def target(self) -> Tensor:
        """The only target."""
        (target,) = self.targets.values()
        return target

    def input(self, name: str) -> Tensor:
        """What the network takes under this name: a field, its lengths, or a target moved by one step.

        So moved each step holds the one before it, and 0 stands first: a decoder is taught with the right past.
        """
        found = self.tensors.get(name)
        return shift_right(self.targets[name]) if found is None else found

    def get_loss_target(self, name: str) -> Tensor:
        """What a loss compares with under this name: a target, a field or a field's lengths."""
        found = self.targets.get(name)
        return self.tensors[name] if found is None else found


def shift_right(tokens: Tensor) -> Tensor:
    """(N, T) with the token 0 first and without the last one."""
    return pad(tokens[:, :-1], (1, 0))


@dataclass(frozen=True)
class Dataset:
    """A data set, opened. `preprocessing` is what a checkpoint keeps to treat new input alike (JSON can hold it).

    Without targets the data are their own: `again` is the field that a network is to give again, '' for each that it
    takes. `origin` are settings that a saved spec keeps of data that were given in Python.
    """

    name: str
    fields: tuple[Field, ...]
    targets: tuple[Target, ...]
    train: Split
    validation: Split
    test: Split
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    reconstructed_field: str = ""

    @property
    def target(self) -> Target:
        """The only target."""
        (target,) = self.targets
        return target

    @property
    def effective_targets(self) -> tuple[Target, ...]:
        """What a network may be for: the targets, or where there is none the fields that it is to give again."""
        reconstructed = [each for each in self.fields if self.reconstructed_field in ("", each.name)]
        return self.targets or tuple(_target_from_field(each) for each in reconstructed)

    @property
    def facts(self) -> dict[str, Any]:
        """What `${data.KEY}` answers: per field and target, and flat where there is only one of a kind."""
        facts: dict[str, Any] = {each.name: _make_field_facts(each) for each in self.fields}
        facts |= {each.name: _make_target_facts(each) | _make_step_facts(each) for each in self.targets}
        if len(self.effective_targets) == 1:
            facts |= _make_target_facts(self.effective_targets[0])
        if len(self.fields) == 1:
            facts |= _make_field_facts(self.fields[0])
        return facts

    def field(self, name: str) -> Field | None:
        """The input of this name, None where there is none.

        A target of a class a step is one too: the step before each (`Split.input`), for teacher forcing.
        """
        own = next((each for each in self.fields if each.name == name), None)
        target = next((each for each in self.targets if each.name == name), None)
        if own is not None or target is None or target.kind != "classes" or len(target.shape) != 1:
            return own
        return Field(name, target.shape, "tokens", len(target.classes), f"{name}_lengths" in self.train.tensors)

    def get_loss_target(self, name: str) -> Target | None:
        """What a loss may compare an output with under this name, None where there is nothing: a target, or a field."""
        target = next((each for each in self.targets if each.name == name), None)
        own = next((each for each in self.fields if each.name == name), None)
        return _target_from_field(own) if target is None and own is not None else target

    def with_target(self, name: str) -> Dataset | None:
        """These data with one thing to predict: a target, or a field that is to be given again; None for neither."""
        targets = tuple(each for each in self.targets if each.name == name)
        reconstructed = "" if targets else next((each.name for each in self.fields if each.name == name), None)
        if reconstructed is None:
            return None
        kept = [each.name for each in targets]
        splits = [_select_targets(each, kept) for each in (self.train, self.validation, self.test)]
        return replace(
            self,
            targets=targets,
            reconstructed_field=reconstructed,
            train=splits[0],
            validation=splits[1],
            test=splits[2],
        )

    def with_next_token_target(self, name: str) -> Dataset:
        """These data with tokens that a model takes and is to give: a target, and it sees each step's past alone."""
        target = self.get_loss_target(name)
        if target is None:
            return self
        next_target = replace(target, next_of=target.next_of or name)
        if target in self.targets:
            return replace(self, targets=tuple(next_target if each == target else each for each in self.targets))
        rest = tuple(each for each in self.fields if each.name != name)
        splits = [_move_to_targets(each, name) for each in (self.train, self.validation, self.test)]
        return replace(self, fields=rest, targets=(*self.targets, next_target),
                       train=splits[0], validation=splits[1], test=splits[2])  # fmt: skip

    def sample(self, name: str, rows: int) -> Tensor:
        """The training split's first rows of an input, as `Split.input` gives it."""
        found = self.train.tensors.get(name)
        return shift_right(self.train.targets[name][:rows]) if found is None else found[:rows]


def _move_to_targets(split: Split, name: str) -> Split:
    """The split with one of its fields among the targets."""
    tensors = {key: each for key, each in split.tensors.items() if key != name}
    return Split(tensors, {**split.targets, name: split.tensors[name]})


def _select_targets(split: Split, names: Collection[str]) -> Split:
    return replace(split, targets={name: each for name, each in split.targets.items() if name in names})


def _target_from_field(field: Field) -> Target:
    """A field that a network is to give again."""
    lengths = field.name if field.has_lengths else ""
    if field.layout != "tokens":
        return Target(field.name, "numbers", field.shape, lengths=lengths)
    count = field.vocab_size or 0
    if count < 2:
        raise DataError("", f"'{field.name}' has one token only; there is nothing to learn")
    if count > MAX_CLASSES:
        raise DataError(
            "",
            f"'{field.name}' has {count:,} tokens, more than the {MAX_CLASSES:,} that can be predicted",
            Code.TOO_LARGE,
        )
    words = tuple(str(index) for index in range(count))
    return Target(field.name, "classes", field.shape, words, lengths=lengths)


def _make_field_facts(each: Field) -> dict[str, Any]:
    facts: dict[str, Any] = {"shape": list(each.shape), "layout": each.layout}
    if each.layout in ("tokens", "sequence"):
        facts["length"] = each.shape[0]
    if each.vocab_size is not None:
        facts["vocab_size"] = each.vocab_size
    return facts


def _make_target_facts(target: Target) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_outputs": target.num_outputs}
    if target.kind == "classes":
        facts["num_classes"] = len(target.classes)
    return facts


def _make_step_facts(target: Target) -> dict[str, Any]:
    """What a target's own name answers beside the rest: those of tokens, where it has a class a step."""
    if target.kind != "classes" or not target.shape:
        return {"shape": list(target.shape)} if target.shape else {}
    length = {"length": target.shape[0], "vocab_size": len(target.classes)} if len(target.shape) == 1 else {}
    return {"shape": list(target.shape), **length}
