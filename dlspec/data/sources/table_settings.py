"""The settings that sources of rows share: columns, targets, fields and splits. Checked without reading a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from dlspec.data.sources.source import DataSource
from dlspec.data.tables.read_options import ReadOptions
from dlspec.errors import Code, DataError, InvalidSetting

if TYPE_CHECKING:
    from dlspec.data.encoding.column_choice import WrittenKind
    from dlspec.data.splitting.table_split import SplitRules

HASH = "hash"
Share = Annotated[float, Field(ge=0, lt=1)]
# A share of the rows, one or more files, or a condition such as {year: 2020}.
SplitChoice = Share | str | list[str] | dict[str, Any] | None


class TableSettings(ReadOptions, DataSource):
    """Rows of named columns, from any place: which columns are inputs, what is predicted, how rows are split."""

    selects_target: ClassVar[bool] = True
    reading_keys: ClassVar[tuple[str, ...]] = ("cache",)

    validation: SplitChoice = Field(  # type: ignore[assignment]
        None,
        description="validation rows: a share, files, or a condition {COLUMN: VALUE}; null: 0.1 if nothing else is",
    )
    test: SplitChoice = Field(
        None, description="test rows: a share, files, or a condition {COLUMN: VALUE}; null: 0.2 if nothing else is"
    )
    target: str | list[str] | dict[str, Any] | None = Field(  # type: ignore[assignment]
        None, description="the column to predict, several, or {COLUMN: KIND}; a field's name to reconstruct it"
    )
    columns: dict[str, Any] = Field(
        {}, description="kinds of columns by name or pattern; null leaves a column out; others are inferred"
    )
    only: list[str] = Field([], description="names and patterns of the only columns to use")
    drop: list[str] = Field([], description="names and patterns of columns to leave out")
    fields: dict[str, list[str]] = Field(
        {}, description="fields by name, each a list of columns; null: one field of features, others by themselves"
    )
    id: str | None = Field(None, description="the column that identifies a row; not an input")
    weight: str | None = Field(None, description="the column with the factor of each row in the loss and in metrics")
    group: str | list[str] | None = Field(
        None, description="one or more columns: rows that share a value of either are in one split"
    )
    time: str | None = Field(
        None, description="a column of dates or numbers, or row: training rows come before validation and test rows"
    )
    split: str | None = Field(
        None, description="a column that says train, val or test, or hash: rows keep their split as a file grows"
    )
    folds: int | str | None = Field(None, description="a number of folds, or a column that numbers them")
    fold: int | str | None = Field(None, description="the fold that validates, from 0")
    where: str | None = Field(None, description="which rows to use: a formula of columns such as age >= 18")
    extract: dict[str, str] = Field({}, description="new columns from parts of another: {COLUMN: PATTERN with {name}}")
    prepare: str | None = Field(
        None, description="the folder of a run whose preparation is used instead of fitting one"
    )
    bucket: Literal["auto"] | None = Field(
        None, description="auto: batches of samples of similar length, which have less padding"
    )
    cache: Literal["auto", "memory", "disk", False] = Field(
        "auto", description="where decoded images are kept: memory, disk, auto, or false to decode them in every epoch"
    )
    _is_outline: bool = PrivateAttr(False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_stream(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and settings.get("stream"):
            found = "streaming is not supported yet: all rows are read into memory; leave stream out"
            raise InvalidSetting(("stream",), found, Code.NOT_YET)
        return settings

    @field_validator("validation", "test")
    @classmethod
    def _check_split(cls, choice: Any) -> Any:
        if isinstance(choice, Mapping):
            from dlspec.data.splitting.conditions import check_condition

            problem = check_condition(choice)
            if problem:
                raise InvalidSetting((), problem)
        return choice

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, Any]) -> dict[str, Any]:
        written = {name: kind for name, kind in columns.items() if kind is not None}
        if written:
            from dlspec.data.prepare.kinds.kind import COLUMN_KINDS

            _check_kinds("columns", written, COLUMN_KINDS)
        return columns

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: Any) -> Any:
        if isinstance(target, Mapping):
            from dlspec.data.prepare.kinds.kind import TARGET_KINDS

            _check_kinds("target", {name: kind for name, kind in target.items() if kind is not None}, TARGET_KINDS)
        if target is not None and not target:
            raise ValueError("the target is empty; name the column to predict")
        if isinstance(target, list) and len(set(target)) < len(target):
            raise ValueError("target lists a column twice")
        return target

    @model_validator(mode="after")
    def _check_splits(self) -> TableSettings:
        shares = [each for each in (self.validation, self.test) if isinstance(each, float)]
        if sum(shares) >= 1:
            found = "validation and test leave no rows to train on: their sum must be below 1"
            raise InvalidSetting(("validation",), found)
        methods = [key for key in ("split", "time", "folds") if getattr(self, key) is not None]
        if len(methods) > 1:
            found = f"{methods[0]} and {methods[1]} both decide the splits; leave one of them out"
            raise InvalidSetting((methods[1],), found, Code.CONFLICT)
        if self.time is not None and self.group is not None:
            found = "group has no effect with time, which cuts all groups at one moment; leave group out"
            raise InvalidSetting(("group",), found, Code.UNUSED)
        self._check_folds()
        return self

    def _check_folds(self) -> None:
        if self.folds is None:
            if self.fold is not None:
                raise InvalidSetting(("fold",), "fold has no effect without folds; add folds=5", Code.UNUSED)
            return
        if self.validation is not None:
            found = "validation has no effect with folds: the fold that validates is data.fold"
            raise InvalidSetting(("validation",), found, Code.CONFLICT)
        if isinstance(self.folds, str):
            if self.fold is None:
                found = f"fold is missing: the value of '{self.folds}' that validates"
                raise InvalidSetting(("folds",), found, Code.MISSING_VALUE)
        elif self.folds < 2:
            raise InvalidSetting(("folds",), f"folds must be at least 2, got {self.folds}")
        elif not isinstance(self.fold or 0, int) or not 0 <= int(self.fold or 0) < self.folds:
            raise InvalidSetting(("fold",), f"fold must be a whole number from 0 to {self.folds - 1}, got {self.fold}")

    @model_validator(mode="after")
    def _check_prepare(self) -> TableSettings:
        if self.prepare is not None:
            for key in ("columns", "only", "drop", "fields", "thousands"):
                if getattr(self, key):
                    found = f"{key} has no effect with prepare, which takes everything from that run"
                    raise InvalidSetting((key,), found, Code.CONFLICT)
            if self.decimal != ".":
                found = "decimal has no effect with prepare, which reads numbers as that run did"
                raise InvalidSetting(("decimal",), found, Code.CONFLICT)
        return self

    def shrink(self) -> TableSettings:
        """Return a source that opens with two rows in each split. Facts are still those of all rows."""
        outline = self.model_copy()
        outline._is_outline = True
        return outline

    @property
    def is_outline(self) -> bool:
        """Whether only a few rows of each split are encoded."""
        return self._is_outline

    def list_targets(self) -> dict[str, WrittenKind]:
        """Return the targets by column, each with its kind as written; None where it is inferred."""
        if isinstance(self.target, str):
            return {self.target: None}
        return dict(self.target) if isinstance(self.target, Mapping) else dict.fromkeys(self.target or ())

    def list_groups(self) -> tuple[str, ...]:
        """Return the columns of `group`."""
        return (self.group,) if isinstance(self.group, str) else tuple(self.group or ())

    def make_read_options(self) -> ReadOptions:
        """Return the settings of reading files."""
        return ReadOptions(**{key: getattr(self, key) for key in ReadOptions.model_fields})

    def make_split_rules(self, folder: str = "") -> SplitRules:
        """Return how rows are split. `folder` is where files of conditions start."""
        from pathlib import Path

        from dlspec.data.splitting.table_split import SplitRules

        fold = 0 if self.fold is None and self.folds is not None else self.fold
        return SplitRules(
            self.split_seed, _keep_rule(self.validation), _keep_rule(self.test), self.split or "", self.folds, fold,
            self.time or "", self.list_groups(), self.limit, Path(folder),
        )  # fmt: skip


def list_paths(choice: object) -> list[str]:
    """Return the files that `validation` or `test` names; [] for a share or condition."""
    if isinstance(choice, str):
        return [choice]
    return [str(each) for each in choice] if isinstance(choice, Sequence) else []


def _keep_rule(choice: object) -> Any:
    """Return a share or condition; None for files, whose rows are placed already."""
    return None if isinstance(choice, str | list) else choice


def _check_kinds(key: str, written: Mapping[str, Any], registry: Any) -> None:
    from dlspec.data.encoding.kind_settings import make_kind

    for name, kind in written.items():
        try:
            make_kind(key, name, kind, registry)
        except DataError as error:
            path = tuple(error.key.removeprefix(f"{key}.{name}").strip(".").split("."))
            raise InvalidSetting((name, *filter(None, path)), str(error), error.finding.code) from None
