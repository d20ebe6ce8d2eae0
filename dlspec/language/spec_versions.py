"""The versions of the spec language, and the rules that each one changed.

A rule belongs here if the same spec would otherwise give another network or another result than before. Code that has
both rules asks `Problems.refuse_changed_rule` where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPEC_VERSION = 2  # a spec without `spec_version` has this one
READ_VERSIONS = (1, 2)


@dataclass(frozen=True)
class ChangedRule:
    """A rule of the language that a version changed."""

    name: str  # as in the table of docs/language.md
    since: int  # the version that changed it
    change: str  # a sentence part: what holds now, and what held before
    former_way: str  # what to write to get the former network or result under every version


FROM_OF_COPIES = ChangedRule(
    "from of copies",
    2,
    "each copy of a repeated entry reads its own 'from' if it contains a variable of the repeat; before, only the "
    "first copy read it, and the others took the output of the copy before",
    "for the former chain write the first copy as an entry of its own, without 'repeat'",
)
NORM_OF_PROJECTIONS = ChangedRule(
    "norm of projections",
    2,
    "the projection of 'shortcut: auto' ends with the last normalization on the body's main path, also if a gate, an "
    "activation or another layer without mixing weights follows it; before, only one at the end of the body counted",
    "for the former shortcut write its layers as a list",
)
PADDING = ChangedRule(
    "padding",
    2,
    "padding does not count in normalizations over time, adaptive pooling, softmax over time and max pooling with "
    "padding, and lengths pass through Add, Concat, Formula and layers that pad or repeat steps; before, these counted "
    "padding or dropped the lengths",
    "to count padding as steps give the data without lengths",
)
RATES_OF_GROUPS = ChangedRule(
    "learning rates of groups",
    2,
    "max_lr of OneCycleLR, and base_lr and max_lr of CyclicLR, are those of the optimizer's own learning rate if they "
    "are one number, and each group's are scaled by its learning rate; before, they replaced every group's",
    "for the former learning rates write a list that has the number once for each group",
)
WARMUP_OF_EPOCHS = ChangedRule(
    "warmup beside epochs",
    2,
    "a scheduler that is stepped after every epoch stays so with 'warmup', which multiplies its learning rates during "
    "the first steps; before, 'warmup' made it count steps, and it started after the warm-up",
    "for the former learning rates set scheduler.interval to step",
)
POWERS_OF_INTEGERS = ChangedRule(
    "powers of integers",
    2,
    "a power of integers in a formula is a float, except the power 0, 1, 2 or 3 of a tensor; before, it was an "
    "integer, 0 for a negative exponent, and wrong beyond 64 bits",
    "for a power that is an integer write a product, such as x * x",
)
FORMULAS_WITHOUT_BATCH = ChangedRule(
    "formulas without a batch",
    2,
    "a formula of Parameters alone that has a name does not change '_', as a Parameter does not; before, the next "
    "entry took its output",
    "for the former input write 'from' with the formula's name",
)
LAYOUTS_OF_FORMULAS = ChangedRule(
    "layouts of formulas",
    2,
    "permute, transpose, reshape, flatten and unflatten in a formula move the layout; before, the layout followed from "
    "the number of dimensions",
    "for the former layout write it, as layout: sequence",
)
AVERAGES_OF_TWO_CLASSES = ChangedRule(
    "averages of two classes",
    2,
    "'average' and 'top_k' of a metric of two classes apply to both classes; before, they had no effect, and the "
    "metric was that of the second class",
    "for the former metric remove 'average' and 'top_k'",
)
LABELS_OF_BOOLS = ChangedRule(
    "labels of bools",
    2,
    "a bool target (N, L) has L labels, each with its own loss and metrics; before, it was a class for each of L steps",
    "for classes of steps convert the target to integers: values.astype(int)",
)
CHANGED_RULES = (
    FROM_OF_COPIES,
    NORM_OF_PROJECTIONS,
    PADDING,
    RATES_OF_GROUPS,
    WARMUP_OF_EPOCHS,
    POWERS_OF_INTEGERS,
    FORMULAS_WITHOUT_BATCH,
    LAYOUTS_OF_FORMULAS,
    AVERAGES_OF_TWO_CLASSES,
    LABELS_OF_BOOLS,
)


def get_spec_version(tree: Mapping[str, Any]) -> int:
    """Return the version of a config's rules; the current one for a version that can't be read, which is reported."""
    version = tree.get("spec_version", SPEC_VERSION)
    return int(version) if is_read_version(version) else SPEC_VERSION


def is_read_version(version: object) -> bool:
    """Whether this dlspec can read specs of a version."""
    return isinstance(version, int) and not isinstance(version, bool) and version in READ_VERSIONS
