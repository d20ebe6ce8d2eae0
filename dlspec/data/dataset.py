"""What every data set gives: named fields, one target, three splits, and the facts that a spec may ask for.

Shapes leave the batch out. All tensors lie on the CPU; the trainer moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from dlspec.layouts import Layout


@dataclass(frozen=True)
class Field:
    """One input of the network. Tokens are int64 of shape (length,); 0 is padding, 1 an unknown word."""

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
    """What is to be predicted: `classes` (int64, shape ()) or `numbers` (float32, of `shape`).

    Numbers with a `scale` (mean, deviation) are stored as (original - mean) / deviation, so that results can be told in
    the original unit.
    """

    name: str
    kind: Literal["classes", "numbers"]
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None

    @property
    def num_outputs(self) -> int:
        """How many numbers a network gives for it: one for two classes, one a class for more."""
        if self.kind == "classes":
            return 1 if len(self.classes) == 2 else len(self.classes)
        return self.shape[0] if self.shape else 1


@dataclass(frozen=True)
class Split:
    """Samples as whole tensors: every field by its name, `NAME_lengths` (int64) beside tokens that keep lengths."""

    tensors: Mapping[str, Tensor]
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Dataset:
    """A data set, opened. `preprocessing` is what a checkpoint keeps to treat new input alike (JSON can hold it)."""

    name: str
    fields: tuple[Field, ...]
    target: Target
    train: Split
    validation: Split
    test: Split
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What `${data.KEY}` answers: per field, and flat where there is only one."""
        facts: dict[str, Any] = {each.name: _field_facts(each) for each in self.fields}
        facts[self.target.name] = _target_facts(self.target)
        facts |= _target_facts(self.target)
        if len(self.fields) == 1:
            facts |= _field_facts(self.fields[0])
        return facts


def _field_facts(each: Field) -> dict[str, Any]:
    facts: dict[str, Any] = {"shape": list(each.shape), "layout": each.layout}
    if each.layout in ("tokens", "sequence"):
        facts["length"] = each.shape[0]
    if each.vocab_size is not None:
        facts["vocab_size"] = each.vocab_size
    return facts


def _target_facts(target: Target) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_outputs": target.num_outputs}
    if target.kind == "classes":
        facts["num_classes"] = len(target.classes)
    return facts
