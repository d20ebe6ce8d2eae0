"""The class that every data source returns: named fields, targets, three splits, and the facts that a spec may use.

Shapes do not include the batch dimension. All tensors are on the CPU; the trainer moves them. Lazy arrays, such as
images in files, are read batch by batch. PyTorch is imported where samples are read: exported files need no PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dlspec.data.split_indices import IntArray
from dlspec.data.target_scale import TargetScale
from dlspec.errors import Code, DataError
from dlspec.layouts import Layout
from dlspec.limits import MAX_CLASSES

if TYPE_CHECKING:
    from torch import Tensor

    from dlspec.data.lazy_array import Values


@dataclass(frozen=True)
class Field:
    """One input of the network. Tokens are int64 of shape (length,); for words, 0 is padding and 1 an unknown word."""

    name: str
    shape: tuple[int, ...]  # of one sample
    layout: Layout
    vocab_size: int | None = None  # number of different tokens; None for numbers
    has_lengths: bool = False  # whether samples differ in length; the splits then contain `NAME_lengths`

    @property
    def lengths(self) -> str:
        """Key of this field's lengths in `Split.tensors`."""
        return f"{self.name}_lengths"


@dataclass(frozen=True)
class Target:
    """What the network should predict: `classes` (int64) or `numbers` (float32).

    Classes of shape (T,) have one class for each step, classes of shape (H, W) one for each pixel.
    """

    name: str
    kind: Literal["classes", "numbers"]
    shape: tuple[int, ...] = ()  # of one sample; () for a single class or number
    classes: tuple[str, ...] = ()  # the names of the classes, in the order of their indices
    scale: TargetScale | None = None  # how numbers were scaled: results are reported in their own unit
    # The field of tokens whose next token this is at each step. The target's own name if the network gets the target
    # itself as input, shifted by one step.
    next_of: str = ""
    lengths: str = ""  # the field whose lengths are also this target's; "" if there is none
    # The names of the labels of a multi-label target (L,): numbers that are 1 for each label that a sample has, else 0.
    labels: tuple[str, ...] = ()
    # Key of each sample's weight (N,) in `Split.tensors`: its factor in the loss and in metrics; "" without weights.
    weights: str = ""
    has_ignored: bool = False  # whether the class of a pixel may be -100: such pixels count in no loss and metric
    unscaled_setting: str = ""  # the argument that makes this a target of numbers in their unit; "" if there is none

    @property
    def num_outputs(self) -> int:
        """Number of outputs that the network needs for each prediction (sample, step or pixel).

        Two classes need one logit, more classes one logit each.
        """
        if self.kind == "classes":
            return 1 if len(self.classes) == 2 else len(self.classes)
        if not self.shape:
            return 1
        return self.shape[1 if len(self.shape) == 2 else 0]  # (C), a sequence (T, C), or (C, H, W)

    @property
    def is_next_token(self) -> bool:
        """Whether this target is the next token, which the network must not see in advance."""
        return bool(self.next_of)


@dataclass(frozen=True)
class Split:
    """The samples of one split, as one tensor or lazy array for each field and target.

    The first dimension counts the samples.
    """

    tensors: Mapping[str, Values]  # every field by name, with `NAME_lengths` (int64) for fields that have lengths
    targets: Mapping[str, Values] = field(default_factory=dict)  # by name; empty for an autoencoder's data
    rows: IntArray | None = None  # (N,) number of each sample's row in its source, from 1; None if not known

    def __len__(self) -> int:
        return len(next(iter((self.targets or self.tensors).values())))

    @property
    def target(self) -> Tensor:
        """The only target, read as a whole."""
        (target,) = self.targets.values()
        return target[:]

    def take(self, rows: slice | Tensor) -> Split:
        """Return some samples: a slice, or those with these indices (int64). Nothing is read of lazy arrays."""
        from dlspec.data.lazy_array import select_rows

        taken = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return Split(
            {name: select_rows(each, rows) for name, each in self.tensors.items()},
            {name: select_rows(each, rows) for name, each in self.targets.items()},
            None if self.rows is None else self.rows[taken],
        )

    def input(self, name: str) -> Values:
        """Return the input of this name: a field, a field's lengths, or a target shifted right by one step.

        In a shifted target each step contains the token before it and the first step is 0 (teacher forcing).
        """
        found = self.tensors.get(name)
        return shift_right(self.targets[name][:]) if found is None else found

    def get_loss_target(self, name: str) -> Values:
        """Return what a loss compares an output with: a target, a field or a field's lengths."""
        found = self.targets.get(name)
        return self.tensors[name] if found is None else found


def shift_right(tokens: Tensor) -> Tensor:
    """Shift tokens (N, T) right by one step: 0 becomes the first token and the last one is dropped."""
    from torch.nn.functional import pad

    return pad(tokens[:, :-1], (1, 0))


class Augmentation(Protocol):
    """Changes training batches at random."""

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], seed: int, epoch: int, batch: int
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Change a whole batch on the device of its tensors, by draws that depend on the numbers alone.

        Args:
            inputs: by name, in the order of the network's inputs; images as uint8 or numbers in [0, 1]
            targets: by name, in the order of the losses' targets; masks as integers
            seed: seed of the run
            epoch: number of the epoch
            batch: number of the batch in the epoch, from 0

        Returns:
            The new inputs and targets, by the same names.
        """


@dataclass(frozen=True)
class Dataset:
    """A data set that has been read, split and encoded."""

    name: str
    fields: tuple[Field, ...]
    targets: tuple[Target, ...]  # empty if the network should reconstruct its input
    train: Split
    validation: Split
    test: Split
    # How the fields were encoded, as JSON values. Checkpoints store it, so that new input is treated the same way.
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)  # settings that a saved spec keeps of data given in Python
    # Without targets: the field that the network should reconstruct; "" for every field that it takes as input.
    reconstructed_field: str = ""
    notes: tuple[str, ...] = ()  # lines for the user: what was inferred, left out or unknown
    resolved: Mapping[str, Any] = field(default_factory=dict)  # settings that a saved spec has instead of the written
    buckets: bool = False  # whether training batches consist of samples of similar length
    is_described: bool = False  # whether the samples are zeros, in place of those of a run that was loaded
    # By field: the columns of a file that it is made of, where that is not one column of the field's name.
    column_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    augmentation: Augmentation | None = None  # changes training batches at random

    @property
    def target(self) -> Target:
        """The only target."""
        (target,) = self.targets
        return target

    @property
    def effective_targets(self) -> tuple[Target, ...]:
        """The targets. Data without targets have instead the fields that the network should reconstruct, as targets."""
        reconstructed = [each for each in self.fields if self.reconstructed_field in ("", each.name)]
        return self.targets or tuple(_target_from_field(each) for each in reconstructed)

    @property
    def facts(self) -> dict[str, Any]:
        """The values of `${data.NAME.KEY}` for each field and target, and of `${data.KEY}` if there is only one."""
        facts: dict[str, Any] = {each.name: _make_field_facts(each) for each in self.fields}
        facts |= {each.name: _make_target_facts(each) | _make_step_facts(each) for each in self.targets}
        if len(self.effective_targets) == 1:
            facts |= _make_target_facts(self.effective_targets[0])
        if len(self.fields) == 1:
            facts |= _make_field_facts(self.fields[0])
        return facts

    def field(self, name: str) -> Field | None:
        """Return the input field of this name, or None.

        A target with one class for each step is also an input: shifted by one step (`Split.input`), for teacher
        forcing.
        """
        own = next((each for each in self.fields if each.name == name), None)
        target = next((each for each in self.targets if each.name == name), None)
        if own is not None or target is None or target.kind != "classes" or len(target.shape) != 1:
            return own
        return Field(name, target.shape, "tokens", len(target.classes), f"{name}_lengths" in self.train.tensors)

    def get_loss_target(self, name: str) -> Target | None:
        """Return what a loss can compare an output with: the target or field of this name, as a target, or None."""
        target = next((each for each in self.targets if each.name == name), None)
        own = next((each for each in self.fields if each.name == name), None)
        return _target_from_field(own) if target is None and own is not None else target

    def with_target(self, name: str) -> Dataset | None:
        """Return a data set with only this to predict: a target, or a field to reconstruct. None if it is neither."""
        targets = tuple(each for each in self.targets if each.name == name)
        reconstructed = "" if targets else next((each.name for each in self.fields if each.name == name), None)
        if reconstructed is None:
            return None
        kept = [each.name for each in targets]
        splits = [_select_targets(each, kept) for each in (self.train, self.validation, self.test)]
        return replace(self, targets=targets, reconstructed_field=reconstructed,
                       train=splits[0], validation=splits[1], test=splits[2])  # fmt: skip

    def with_next_token_target(self, name: str) -> Dataset:
        """Return a data set in which the field or target of this name is a next-token target.

        Its tokens are both input and output of the model, which may only see the steps before the one it predicts.
        """
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

    def get_preprocessing(self, name: str) -> Any:
        """Return how a field or target was encoded, as JSON; None if it is not one column of text or numbers."""
        columns = self.preprocessing.get("columns")
        if not isinstance(columns, Mapping):
            return self.preprocessing.get(name)
        members = self.list_columns(name)
        if members:
            return columns[members[0]] if len(members) == 1 else None
        targets = self.preprocessing["targets"].items()
        return next((saved for column, saved in targets if make_field_name(column) == name), None)

    def list_columns(self, name: str) -> list[str]:
        """List the columns of the table that a field is made of; [] for data that are not a table."""
        plan = self.preprocessing.get("fields", {}).get(name, {})
        columns: list[str] = plan.get("columns", []) if isinstance(plan, Mapping) else []
        return columns

    def sample(self, name: str, rows: int) -> Tensor:
        """Return the first `rows` training samples of an input, as `Split.input` would."""
        found = self.train.tensors.get(name)
        return shift_right(self.train.targets[name][:rows]) if found is None else found[:rows]


def make_field_name(column: str) -> str:
    """Make the name of a field or target: the column's name with `_` for other characters than letters and digits."""
    name = re.sub(r"\W", "_", column)
    return name if name.isidentifier() else f"_{name}"


def _move_to_targets(split: Split, name: str) -> Split:
    """Return the split with one of its fields moved to the targets."""
    rest = {key: each for key, each in split.tensors.items() if key != name}
    return replace(split, tensors=rest, targets={**split.targets, name: split.tensors[name]})


def _select_targets(split: Split, names: Collection[str]) -> Split:
    return replace(split, targets={name: each for name, each in split.targets.items() if name in names})


def _target_from_field(field: Field) -> Target:
    """Make a target of a field that the network should reconstruct."""
    lengths = field.name if field.has_lengths else ""
    if field.layout != "tokens":
        return Target(field.name, "numbers", field.shape, lengths=lengths)
    count = field.vocab_size or 0
    if count < 2:
        raise DataError("", f"'{field.name}' has only one distinct token; there is nothing to learn")
    if count > MAX_CLASSES:
        raise DataError(
            "",
            f"'{field.name}' has {count:,} distinct tokens; at most {MAX_CLASSES:,} can be predicted",
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
    """Make the facts of a target's steps: its shape, and length and vocab_size for one class at each step."""
    if target.kind != "classes" or not target.shape:
        return {"shape": list(target.shape)} if target.shape else {}
    length = {"length": target.shape[0], "vocab_size": len(target.classes)} if len(target.shape) == 1 else {}
    return {"shape": list(target.shape), **length}
