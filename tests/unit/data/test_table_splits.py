"""Splitting the rows of a table: which rows train, validate and test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlspec.data.split_indices import SplitIndices, SplitPlan, split_rows
from dlspec.data.splitting.conditions import check_condition, match_rows
from dlspec.data.splitting.row_numbers import hash_rows, join_groups, number_values
from dlspec.data.splitting.table_split import SplitRules, SplitTable, TableSplit, split_table
from dlspec.errors import Code, DataError

TEXT = np.dtypes.StringDType(na_object=None)
COUNT = 200


def make_table(count: int = COUNT, **columns: Any) -> SplitTable:
    """A table of distinct inputs `x`, with more columns."""
    given = {"x": [f"row {index}" for index in range(count)], **columns}
    texts = {
        name: np.array([None if each is None else str(each) for each in cells], TEXT) for name, cells in given.items()
    }
    return SplitTable(texts, ("x",))


def as_sets(split: SplitIndices) -> tuple[set[int], set[int], set[int]]:
    return set(split.train.tolist()), set(split.validation.tolist()), set(split.test.tolist())


def check_partition(found: TableSplit, count: int = COUNT) -> tuple[set[int], set[int], set[int]]:
    parts = as_sets(found.rows)
    assert sorted(row for part in parts for row in part) == list(range(count))
    return parts


def splits_of(values: list[Any], parts: tuple[set[int], ...]) -> dict[Any, set[int]]:
    """The splits in which each value occurs."""
    found: dict[Any, set[int]] = {}
    for number, part in enumerate(parts):
        for row in part:
            found.setdefault(values[row], set()).add(number)
    return found


def test_shares_are_those_of_the_other_sources() -> None:
    classes = (np.arange(COUNT) % 7 == 0).astype(np.int64)
    table = SplitTable(make_table().columns, ("x",), classes)
    found = split_table(table, SplitRules(seed=3, validation=0.2, test=0.3))
    expected = split_rows(COUNT, SplitPlan(3, 0.2, 0.3), classes)
    assert as_sets(found.rows) == as_sets(expected)
    assert [len(part) for part in as_sets(split_table(table, SplitRules()).rows)] == [140, 20, 40]


def test_equal_inputs_are_in_one_split() -> None:
    values = [f"row {index // 3}" for index in range(COUNT)]
    parts = check_partition(split_table(make_table(x=values), SplitRules(validation=0.3, test=0.3)))
    assert all(len(found) == 1 for found in splits_of(values, parts).values())


def test_rows_that_share_a_value_of_either_group_column_stay_together() -> None:
    generator = np.random.default_rng(0)
    homes, people = generator.integers(0, 120, COUNT).tolist(), generator.integers(0, 120, COUNT).tolist()
    people[:5] = [None] * 5  # empty cells join no rows
    table = make_table(home=homes, person=people)
    parts = check_partition(split_table(table, SplitRules(validation=0.3, test=0.3, group=("home", "person"))))
    for values in (homes, people):
        assert all(len(found) == 1 for value, found in splits_of(values, parts).items() if value is not None)
    assert all(parts)


def test_groups_are_connected_components() -> None:
    generator = np.random.default_rng(1)
    left, right = generator.integers(0, 60, 100), generator.integers(0, 60, 100)
    group_of_row, todo = [-1] * 100, list(range(100))
    for start in todo:  # a search by hand
        reached = [start] if group_of_row[start] < 0 else []
        while reached:
            row = reached.pop()
            if group_of_row[row] < 0:
                group_of_row[row] = start
                reached += [each for each in range(100) if left[each] == left[row] or right[each] == right[row]]
    expected = number_values(np.array(group_of_row))[0]
    assert join_groups([left, right]).tolist() == expected.tolist()
    chain = np.arange(1000)
    assert set(join_groups([chain // 2, (chain + 1) // 2]).tolist()) == {0}


def test_a_growing_file_moves_no_row_of_a_hashed_split() -> None:
    rules = SplitRules(split="hash", validation=0.2, test=0.2)
    before, after = (check_partition(split_table(make_table(count), rules), count) for count in (COUNT, 2 * COUNT))
    assert all(one <= two for one, two in zip(before, after, strict=True))
    assert all(20 <= len(part) <= 60 for part in before[1:])
    other = split_table(make_table(), SplitRules(split="hash", validation=0.2, test=0.2, seed=1))
    assert as_sets(other.rows) != before


def test_a_hashed_split_keeps_groups_together() -> None:
    groups = [index % 23 for index in range(COUNT)]
    rules = SplitRules(split="hash", validation=0.3, test=0.3, group=("group",))
    parts = check_partition(split_table(make_table(group=groups), rules))
    assert all(len(found) == 1 for found in splits_of(groups, parts).values())


def test_the_hash_of_a_row_depends_on_its_cells_alone() -> None:
    columns = make_table(3, x=["a", "bc", None], y=["bc", "a", "c"]).columns
    hashes = hash_rows(columns, ("x", "y"))
    assert len(set(hashes.tolist())) == 3
    again = hash_rows({name: column[[2, 0]] for name, column in columns.items()}, ("x", "y"))
    assert again.tolist() == hashes[[2, 0]].tolist()


@pytest.mark.parametrize(
    "write", [str, lambda day: f"2024-{1 + day // 28:02}-{1 + day % 28:02}"], ids=["number", "date"]
)
def test_time_cuts_at_one_moment(write: Any) -> None:
    days = np.random.default_rng(0).integers(0, 100, COUNT)
    table = make_table(day=[write(int(day)) for day in days])
    train, validation, test = check_partition(split_table(table, SplitRules(validation=0.2, test=0.2, time="day")))
    moments = [{int(days[row]) for row in part} for part in (train, validation, test)]
    assert max(moments[0]) < min(moments[1]) and max(moments[1]) < min(moments[2])
    assert 40 <= len(test) < 50 and 80 <= len(test | validation) < 90


def test_each_row_validates_in_one_fold() -> None:
    classes = (np.arange(COUNT) % 10 == 0).astype(np.int64)
    groups = [index // 2 for index in range(COUNT)]
    table = SplitTable(make_table(group=groups).columns, ("x",), classes)
    found = [check_partition(split_table(table, SplitRules(test=0.2, folds=4, fold=fold, group=("group",))))
             for fold in range(4)]  # fmt: skip
    tests = [parts[2] for parts in found]
    assert all(each == tests[0] for each in tests) and len(tests[0]) == 40
    assert Counter(row for parts in found for row in parts[1]) == Counter(set(range(COUNT)) - tests[0])
    for parts in found:
        assert len(parts[1]) == 40 and sum(int(classes[row]) for row in parts[1]) == 4
        assert all(len(each) == 1 for each in splits_of(groups, parts).values())


def test_a_column_can_number_the_folds() -> None:
    table = make_table(part=[index % 5 for index in range(COUNT)])
    parts = check_partition(split_table(table, SplitRules(test=0.0, folds="part", fold=3)))
    assert parts[1] == {row for row in range(COUNT) if row % 5 == 3} and not parts[2]
    with pytest.raises(DataError) as error:
        split_table(table, SplitRules(folds="part", fold=7))
    assert error.value.key == "fold"


def test_a_split_column_decides() -> None:
    names = [("train", "Dev", "TEST")[index % 3] for index in range(COUNT)]
    parts = check_partition(split_table(make_table(part=names), SplitRules(split="part")))
    assert [row % 3 for part in parts for row in sorted(part)] == sorted(row % 3 for row in range(COUNT))


def test_validation_is_a_share_of_training_where_the_column_names_none() -> None:
    names = ["test" if index < 50 else "train" for index in range(COUNT)]
    train, validation, test = check_partition(split_table(make_table(part=names), SplitRules(split="part")))
    assert test == set(range(50)) and len(validation) == 15 and len(train) == 135


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError) as error:
        split_table(make_table(part=["train"] * 199 + ["extra"]), SplitRules(split="part"))
    assert error.value.key == "split" and error.value.finding.code is Code.WRONG_VALUE


def test_a_share_beside_a_split_that_chooses_these_rows_is_refused() -> None:
    names = [("train", "val")[index % 2] for index in range(COUNT)]
    table = make_table(part=["train"] * 100 + ["test"] * 100)
    with pytest.raises(DataError) as error:
        split_table(table, SplitRules(split="part", test=0.5))
    assert error.value.finding.code is Code.CONFLICT
    parts = check_partition(split_table(make_table(part=names), SplitRules(split="part", test=0.0)))
    assert not parts[2]


CONDITIONS: list[tuple[dict[str, Any], set[int]]] = [
    ({"n": 5}, {5}),
    ({"n": "5"}, {5}),
    ({"n": [5, 7.0]}, {5, 7}),
    ({"n": {"from": 197}}, {197, 198, 199}),
    ({"day": {"from": "2024-07-01"}}, set(range(168, COUNT))),
    ({"n": {"in": "list.txt"}}, {3, 4}),
    ({"n": [1, 2, 3], "flag": True}, {2}),
]


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS, ids=str)
def test_conditions(condition: dict[str, Any], expected: set[int], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("3\n4\n\n")
    table = make_table(
        n=range(COUNT),
        day=[f"2024-{1 + row // 28:02}-{1 + row % 28:02}" for row in range(COUNT)],
        flag=["true" if row % 2 == 0 else "false" for row in range(COUNT)],
    )
    found = match_rows("test", table.columns, condition, tmp_path)
    assert set(np.flatnonzero(found).tolist()) == expected


def test_validation_is_a_share_of_the_rows_that_a_condition_leaves() -> None:
    table = make_table(n=range(COUNT))
    parts = check_partition(split_table(table, SplitRules(test={"n": {"from": 100}}, validation=0.1)))
    assert parts[2] == set(range(100, COUNT)) and len(parts[1]) == 10


def test_rows_of_two_conditions_are_test_rows_and_that_is_told() -> None:
    table = make_table(n=range(COUNT))
    found = split_table(table, SplitRules(test={"n": [1, 2]}, validation={"n": [2, 3]}))
    assert as_sets(found.rows)[1:] == ({3}, {1, 2}) and len(found.notes) == 1


def test_rows_of_two_splits_with_equal_inputs_are_told() -> None:
    values = [*(f"row {index}" for index in range(COUNT - 2)), "row 0", "row 1"]
    names = ["train"] * 150 + ["val"] * 48 + ["val", "test"]
    assert len(split_table(make_table(x=values, part=names), SplitRules(split="part")).notes) == 2
    assert not split_table(make_table(part=names), SplitRules(split="part")).notes


@pytest.mark.parametrize("wrong", [{}, {"n": {"to": 5}}, {"n": None}, {"n": []}, {"n": {"from": None}}], ids=str)
def test_wrong_conditions(wrong: dict[str, Any]) -> None:
    assert check_condition(wrong)


@pytest.mark.parametrize(
    "condition", [{"m": 1}, {"n": 1000}, {"x": {"from": 3}}, {"n": {"from": "soon"}}, {"n": {"in": "no.txt"}}], ids=str
)
def test_conditions_that_do_not_fit(condition: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        match_rows("test", make_table(n=range(COUNT)).columns, condition, tmp_path)
    assert error.value.key == "test"


def test_the_limit_is_of_each_split() -> None:
    found = split_table(make_table(), SplitRules(limit=7)).rows
    assert [len(part) for part in as_sets(found)] == [7, 7, 7]
