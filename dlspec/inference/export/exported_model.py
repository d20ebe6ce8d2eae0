"""The module that is exported: raw inputs, what was fitted, the network, and probabilities or numbers at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Target, make_field_name, shift_right
from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.plain_kinds import Standardized
from dlspec.inference.answers.answer_columns import DEFAULT_THRESHOLD
from dlspec.inference.export.file_inputs import STEPS, RawInput
from dlspec.inference.export.noise_inputs import GivenNoise, describe_noise, list_draws
from dlspec.inference.export.raw_inputs import Arrays, Cells, RawColumn, describe_column
from dlspec.inference.loading.loaded_run import LoadedRun

PROBABILITIES, INDEX = "probabilities", "index"


@dataclass(frozen=True)
class ModelOutput:
    """One output of an exported file."""

    name: str
    target: str  # of which target; of the network's own outputs their name
    classes: tuple[str, ...] = ()  # the classes or labels, in the order of their numbers
    meaning: str = ""


class ExportedField(nn.Module):
    """One field of the network, made of its columns as `encode_rows` makes it.

    Args:
        plan: the field's columns and form
        columns: how each column enters, in this order
        offsets: the first token of each column, for a field of tokens
    """

    def __init__(self, plan: FieldPlan, columns: Sequence[RawColumn], offsets: Sequence[int]) -> None:
        super().__init__()
        self.form, self.offsets = plan.form, list(offsets)
        self.counts = [len(each.inputs) for each in columns]
        self.encoders = nn.ModuleList(each.encode for each in columns)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return the field, and its lengths where it has them."""
        found, start = [], 0
        for encode, count in zip(self.encoders, self.counts, strict=True):
            found.append(encode(*inputs[start : start + count]))
            start += count
        if self.form == "features":
            return [torch.cat(found, dim=1)]
        if self.form == "tokens":
            return [torch.cat([each + first for each, first in zip(found, self.offsets, strict=True)], dim=1)]
        return list(found[0]) if isinstance(found[0], tuple) else [found[0]]


class ExportedModel(nn.Module):
    """A run's network with its preparation, as one module of tensors.

    Args:
        run: the run, in eval mode on the CPU
        fitted: its preparation; None for the bare network
    """

    def __init__(self, run: LoadedRun, fitted: FittedTable | None) -> None:
        super().__init__()
        self.run_inputs, self.dtype = run.inputs, run.backend.precision.weights_dtype
        self.draws = list_draws(run)
        self.network = run.network
        self.criterion = run.criterion if fitted is not None and run.criterion.predicted_targets else None
        self.targets = tuple(run.data.get_loss_target(each.name) or each for each in run.criterion.predicted_targets)
        self.plans = () if fitted is None else tuple(each for each in fitted.fields if each.name in run.inputs)
        self.columns = [_describe_field(each, fitted, run) for each in self.plans if fitted is not None]
        self.fields = nn.ModuleList(
            ExportedField(plan, list(columns.values()), _list_offsets(plan, fitted))
            for plan, columns in zip(self.plans, self.columns, strict=True)
            if fitted is not None
        )
        self.shifted = {each.name for each in self.targets if each.next_of == each.name and each.name in run.inputs}
        self.inverses = nn.ModuleDict(_find_inverses(self.targets, fitted) if self.criterion is not None else {})
        self.bare_outputs = tuple(run.built.outputs)
        self.inputs = self._list_inputs(run)
        self.outputs = self._list_outputs()

    # ---- what goes in and out ------------------------------------------------------------------------------------

    def _list_inputs(self, run: LoadedRun) -> tuple[RawInput, ...]:
        found = self._list_field_inputs(run)
        taken = {name for each in found for name in (each.name, each.column)} | {each.name for each in self.targets}
        return (*found, *describe_noise(self.draws, taken | set(self.bare_outputs)))

    def _list_field_inputs(self, run: LoadedRun) -> list[RawInput]:
        if self.plans:
            return [each for columns in self.columns for column in columns.values() for each in column.inputs]
        found, are_tokens = [], {each.name: each.layout == "tokens" for each in run.data.fields}
        for name in self.run_inputs:
            zeros = run.data.train.input(name)
            sizes: tuple[int | str, ...] = tuple(zeros.shape[1:])
            may_be_shorter = run.built.allows_trimming and f"{name}_lengths" in self.run_inputs
            if sizes and (may_be_shorter or are_tokens.get(name)):
                sizes = (STEPS, *sizes[1:])
            found.append(RawInput(name, self.convert_input(read_rows(zeros)).dtype, sizes, "as the network takes it"))
        return found

    def _list_outputs(self) -> tuple[ModelOutput, ...]:
        if self.criterion is None:
            return tuple(ModelOutput(name, name, meaning="as the network returns it") for name in self.bare_outputs)
        found = []
        taken = {name for each in self.inputs for name in (each.name, each.column)}
        for target in self.targets:
            name = f"{target.name}.predicted" if target.name in taken else target.name
            classes = target.labels or target.classes
            if classes:
                shares = "the probability of each label" if target.labels else "the probability of each class"
                found.append(ModelOutput(f"{name}.{PROBABILITIES}", target.name, classes, shares))
            if target.classes and not target.labels:
                meaning = "the number of the most probable class"
                found.append(ModelOutput(f"{name}.{INDEX}", target.name, classes, meaning))
            elif not classes:
                found.append(ModelOutput(name, target.name, meaning="in its own unit"))
        return tuple(found)

    @property
    def notes(self) -> list[str]:
        """What the user should know about the inputs."""
        notes = [column.note for columns in self.columns for column in columns.values() if column.note]
        shifted = [f"'{name}' holds the tokens so far: step t of the output predicts token t" for name in self.shifted]
        return notes + shifted

    def read_cells(self, cells: Cells) -> Arrays:
        """Convert cells of some rows to the inputs."""
        found: list[Any] = []
        for columns in self.columns:
            for column in columns.values():
                found += column.read(cells)[: len(column.inputs)]
        return tuple(found)

    # ---- computing ------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        count = len(inputs) - len(self.draws)
        output = self.run_network(self._encode(inputs[:count]), inputs[count:])
        if self.criterion is None:
            return tuple(output.values()) if isinstance(output, Mapping) else (output,)
        return self.convert_predictions(self.criterion.predict_targets(output))

    def run_network(self, inputs: Sequence[Tensor], noise: Sequence[Tensor]) -> Any:
        """Run the network.

        Args:
            inputs: what it takes
            noise: what it draws, in this order
        """
        with GivenNoise(noise) if noise else nullcontext():
            return self.network(*inputs)

    def _encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if not self.plans:
            return list(inputs)
        values: dict[str, Tensor] = {}
        start = 0
        for plan, field in zip(self.plans, self.fields, strict=True):
            assert isinstance(field, ExportedField)  # a ModuleList has any modules
            count = sum(field.counts)
            names = (plan.name, f"{plan.name}_lengths")
            values |= zip(names, field(*inputs[start : start + count]), strict=False)
            start += count
        values |= {name: shift_right(values[name]) for name in self.shifted}
        return [self.convert_input(values[name]) for name in self.run_inputs]

    def convert_input(self, values: Tensor) -> Tensor:
        """Convert numbers to the precision of the network."""
        return values.to(self.dtype) if self.dtype is not None and values.is_floating_point() else values

    def convert_predictions(self, found: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Convert predictions by target to the outputs."""
        outputs: list[Tensor] = []
        for target in self.targets:
            values = found[target.name]
            if target.labels:
                outputs.append(values)
            elif target.classes:
                outputs += self._convert_classes(target, values)
            else:
                outputs.append(self.inverses[target.name](values) if target.name in self.inverses else values)
        return tuple(outputs)

    def _convert_classes(self, target: Target, values: Tensor) -> list[Tensor]:
        if values.dim() > 1 + len(target.shape):
            return [values, values.argmax(-1)]
        return [torch.stack([1 - values, values], dim=-1), (values > DEFAULT_THRESHOLD).long()]


def _describe_field(plan: FieldPlan, fitted: FittedTable, run: LoadedRun) -> dict[str, RawColumn]:
    """Describe the columns of a field; lengths that the network does not take are left out."""
    shape = tuple(run.data.train.input(plan.name).shape[1:])
    as_tokens, has_lengths = plan.form == "tokens", f"{plan.name}_lengths" in run.inputs
    found = {name: describe_column(name, fitted.inputs[name], shape, as_tokens) for name in plan.columns}
    found = {name: each.require_steps(run.built.fewest_steps.get(plan.name, 1)) for name, each in found.items()}
    if has_lengths:
        return found
    return {name: each.without_lengths() for name, each in found.items()}


def _list_offsets(plan: FieldPlan, fitted: FittedTable) -> list[int]:
    """Return the first token of each column in a field of tokens."""
    sizes = [fitted.inputs[name].vocab_size or 0 for name in plan.columns]
    return [sum(sizes[:at]) for at in range(len(sizes))]


class _Unscale(nn.Module):
    """Converts numbers of a reconstructed field to their own unit, as its column's `invert` does."""

    shift: Tensor
    divisor: Tensor

    def __init__(self, shift: Any, divisor: Any) -> None:
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float64))
        self.register_buffer("divisor", torch.as_tensor(divisor, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        return (values.double() * self.divisor + self.shift).float()


def _find_inverses(targets: Sequence[Target], fitted: FittedTable | None) -> dict[str, nn.Module]:
    """Find how reconstructed fields are converted to their own unit."""
    plans = {each.name: each for each in (() if fitted is None else fitted.fields) if each.form == "own"}
    found: dict[str, nn.Module] = {}
    for target in targets:
        if target.name in plans and fitted is not None and not target.classes and not target.labels:
            inverse = _make_inverse(fitted.inputs[plans[target.name].columns[0]])
            found |= {} if inverse is None else {make_field_name(target.name): inverse}
    return found


def _make_inverse(column: FittedColumn) -> nn.Module | None:
    if isinstance(column, Standardized):
        return _Unscale(column.scale.shift, column.scale.divisor)
    if isinstance(column, FittedArray) and column.divisor != 1:
        return _Unscale(0.0, column.divisor)
    if isinstance(column, FittedImage) and column.mean:
        spread = (torch.tensor(each, dtype=torch.float64).view(-1, 1, 1) for each in (column.mean, column.std))
        return _Unscale(*spread)
    return None
