"""Targets whose tokens are predicted one after another, and the texts of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlspec.data.dataset import Dataset, Target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.text_target import END, FittedTextTarget
from dlspec.errors import DataError


@dataclass(frozen=True)
class TokenTargets:
    """The targets of a run whose tokens the network predicts one after another."""

    written: Mapping[str, int | None]  # texts that the network writes: the end token of each, None if it has none
    following: Mapping[str, Target]  # by field of tokens: the target that is the token after it


def find_token_targets(data: Dataset, inputs: Sequence[str], fitted: FittedTable | None) -> TokenTargets:
    """Find the targets that the network reads itself, and those that are the next token of a field.

    Args:
        data: the data, with the tokens that the network predicts as targets
        inputs: the network's inputs
        fitted: what encodes rows
    """
    fields = {plan.name for plan in fitted.fields} if fitted is not None else {each.name for each in data.fields}
    written = [each.name for each in data.targets if each.name in inputs and each.name not in fields]
    ends = {name: END if isinstance(_find_column(fitted, name), FittedTextTarget) else None for name in written}
    following = {each.next_of: each for each in data.targets if each.next_of in fields and each.next_of in inputs}
    return TokenTargets(ends, following)


def _find_column(fitted: FittedTable | None, target: str) -> FittedColumn | None:
    return None if fitted is None else fitted.targets.get(target)


def name_token(kind: FittedColumn | None, classes: Sequence[str], token: int) -> str:
    """Return the text of a token; its number where the data do not say.

    Args:
        kind: what encodes the field of tokens
        classes: the names of the target's classes
        token: the token
    """
    try:
        return classes[token] if kind is None else kind.decode([token])
    except (NotImplementedError, DataError):
        return classes[token]
