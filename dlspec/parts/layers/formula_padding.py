"""Find out what padding does to the result of a `Formula`, by evaluating it with padding and without."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import find_output_names
from dlspec.layouts import TensorInfo
from dlspec.parts.layers.dimensions import find_common_lengths
from dlspec.parts.layers.formula_constants import RANDOM_FUNCTIONS
from dlspec.parts.layers.formula_evaluator import FormulaEvaluator
from dlspec.parts.layers.formula_trial import COMPUTE_ERRORS, MAX_CPU_NUMBERS
from dlspec.parts.layers.formula_trial_values import find_dtype

_SAMPLES = 2
_TOLERANCE = 1e-9  # relative and absolute, for float64


@dataclass(frozen=True)
class PaddingTrial:
    """What padding does to the result of a formula."""

    # Whether the values of the real steps, or of a result without steps, are the same with padding and without.
    is_unaffected: bool = False
    # Whether the formula can be computed for a shorter batch.
    fits_shorter_batch: bool = False
    # The dimensions of the result whose size depends on the number of steps, counted from the batch as 0.
    padded_dims: tuple[int, ...] = ()
    # By how many steps the result is shorter in these dimensions, None if that depends on the number of steps.
    removed: int | None = None


@lru_cache(maxsize=200)
def try_formula_with_padding(formula: str, inputs: tuple[TensorInfo, ...]) -> PaddingTrial:
    """Evaluate a formula on random numbers, with padding and without.

    Args:
        formula: The formula.
        inputs: Descriptions of its inputs, in the order in which it first uses them.

    Returns:
        What padding does to the result; that it affects the result where this can't be tried.
    """
    lengths = find_common_lengths(inputs)
    padded = [each for each in inputs if each.lengths]
    steps = {each.shape[each.time_dim - 1] for each in padded if each.time_dim is not None}
    numbers = sum(torch.Size(each.shape).numel() for each in inputs) * _SAMPLES
    if lengths is None or len(steps) != 1 or numbers > MAX_CPU_NUMBERS:
        return PaddingTrial()
    total = steps.pop()
    trials = [_Trial(formula, inputs, total, length).run() for length in sorted({total - 1, (total + 1) // 2})
              if 0 < length < total]  # fmt: skip
    if not trials:
        return PaddingTrial()
    return PaddingTrial(
        all(each.is_unaffected for each in trials),
        all(each.fits_shorter_batch for each in trials),
        max((each.padded_dims for each in trials), key=len),
        trials[0].removed if len({each.removed for each in trials}) == 1 else None,
    )


class _SeededEvaluator(FormulaEvaluator):
    """Evaluates a formula with zeros in place of random numbers."""

    def apply(
        self,
        node: Any,
        function: Callable[..., Any],
        arguments: list[Any],
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        function = torch.zeros_like if function in RANDOM_FUNCTIONS else function
        return super().apply(node, function, arguments, keywords)


class _Trial:
    """One evaluation with padding and one without.

    Args:
        formula: The formula.
        inputs: Descriptions of its inputs.
        total: Steps of the padded batch.
        length: Real steps of its samples.
    """

    def __init__(self, formula: str, inputs: Sequence[TensorInfo], total: int, length: int) -> None:
        self.tree = parse_formula(formula)
        self.names = find_output_names(self.tree)
        self.inputs, self.total, self.length = inputs, total, length
        self.generator = torch.Generator().manual_seed(0)

    def run(self) -> PaddingTrial:
        batch = [self._make_random(each) for each in self.inputs]
        with warnings.catch_warnings(action="ignore"):
            try:
                whole = self._evaluate(batch)
            except COMPUTE_ERRORS:
                return PaddingTrial()
            try:
                cut = self._evaluate([self._cut(each, info) for each, info in zip(batch, self.inputs, strict=True)])
            except COMPUTE_ERRORS:
                return self._compare_other_padding(batch, whole)
        if cut.dim() != whole.dim():
            return PaddingTrial()
        dims = tuple(at for at, size in enumerate(whole.shape) if size != cut.shape[at])
        kept = whole[tuple(slice(size) for size in cut.shape)]
        removed = {(self.total - whole.shape[at], self.length - cut.shape[at]) for at in dims}
        before, after = removed.pop() if len(removed) == 1 else (0, 1)
        return PaddingTrial(_are_close(kept, cut), True, dims, before if before == after else None)

    def _compare_other_padding(self, batch: list[Tensor], whole: Tensor) -> PaddingTrial:
        """Compare with the same batch with other values in its padding, where no shorter batch is possible."""
        other = self._evaluate(
            [self._replace_padding(each, info) for each, info in zip(batch, self.inputs, strict=True)]
        )
        dims = tuple(at for at, size in enumerate(whole.shape) if at > 0 and size == self.total)
        real = tuple(slice(self.length) if at in dims else slice(None) for at in range(whole.dim()))
        return PaddingTrial(_are_close(whole[real], other[real]), False, dims, 0)

    def _make_random(self, value: TensorInfo) -> Tensor:
        shape = (_SAMPLES, *value.shape) if value.has_batch else value.shape
        if value.constant is not None and value.constant.is_computed():
            return value.constant.make_copy(torch.float64)  # type: ignore[no-any-return]  # Any in layouts
        dtype = find_dtype(value)
        if not dtype.is_floating_point:
            return torch.randint(0, value.vocab_size or 2, shape, generator=self.generator).to(dtype)
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def _cut(self, batch: Tensor, value: TensorInfo) -> Tensor:
        if value.lengths is None or value.time_dim is None:
            return batch
        return batch.narrow(value.time_dim, 0, self.length)

    def _replace_padding(self, batch: Tensor, value: TensorInfo) -> Tensor:
        if value.lengths is None or value.time_dim is None:
            return batch
        rest = self._make_random(value).narrow(value.time_dim, self.length, self.total - self.length)
        return torch.cat([self._cut(batch, value), rest], dim=value.time_dim)

    def _evaluate(self, batch: Sequence[Tensor]) -> Tensor:
        real = torch.full((_SAMPLES,), self.length)
        lengths = {name: real for name, each in zip(self.names, self.inputs, strict=True) if each.lengths}
        infos = dict(zip(self.names, self.inputs, strict=True))
        inputs = dict(zip(self.names, batch, strict=True))
        with torch.no_grad():
            result: Tensor = _SeededEvaluator(inputs, infos, lengths).evaluate(self.tree)
        return result


def _are_close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, _TOLERANCE, _TOLERANCE, equal_nan=True)
