"""Refuse settings of splits that have no effect on the rows at hand."""

from __future__ import annotations

from dlspec.data.split_indices import TEST, VALIDATION, IntArray
from dlspec.data.splitting.row_numbers import Columns, number_values
from dlspec.data.splitting.split_rules import HASH, SplitRules
from dlspec.errors import Code, DataError


def check_effects(columns: Columns, rules: SplitRules, reduced: SplitRules, split: IntArray, *, has_free: bool) -> None:
    """Raise DataError if a setting of the split has no effect, or a share has no rows.

    Args:
        columns: the cells of all rows
        rules: the settings as written
        reduced: the settings by which the rows were placed that no file, condition or column decides
        split: the split of each row
        has_free: whether there were such rows
    """
    has_share = bool(reduced.test or (reduced.validation and rules.folds is None))
    is_drawn = has_free and not rules.time and (has_share or isinstance(rules.folds, int))
    if rules.seed and not is_drawn and rules.limit is None:
        found = "split_seed has no effect: nothing is drawn, the other settings place every row"
        raise DataError("split_seed", f"{found}; remove split_seed", Code.UNUSED)
    for name in rules.group:
        numbers, cells = number_values(columns[name])
        if len(cells) == len(numbers) > 1:
            found = f"every row has its own '{name}', so group has no effect"
            raise DataError("group", f"{found}; remove it, or name a column that rows share", Code.UNUSED)
    if rules.group and has_free and rules.split != HASH:
        _check_shares(rules, reduced, split)


def _check_shares(rules: SplitRules, reduced: SplitRules, split: IntArray) -> None:
    """Refuse groups that are too large for a share."""
    for key, number in (("validation", VALIDATION), ("test", TEST)):
        share = getattr(reduced, key)
        if isinstance(share, float) and share and rules.folds is None and not (split == number).any():
            names = " and ".join(map(repr, rules.group))
            found = f"the groups of {names} are too large for a {key} share of {share:g}: it would have no row"
            fix = f"write data.{key}=0, a larger share, or a condition"
            raise DataError("group", f"{found}; {fix}", Code.NO_MATCH)
