"""Compare what an exported file computes with the run itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.errors import UserError
from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.export.check_rows import CHECK_BATCHES, CheckRows
from dlspec.inference.export.exported_model import INDEX, ExportedModel
from dlspec.inference.export.file_inputs import LENGTHS, STEPS, RawInput
from dlspec.inference.export.model_tracing import Axes
from dlspec.inference.loading.loaded_run import LoadedRun

TOLERANCE = 1e-4  # of the largest difference, relative to the largest number of an output
Outputs = Mapping[str, NDArray[np.generic]]
RunInputs = Callable[[Sequence[Tensor]], Outputs]  # computes the outputs for inputs
RunRows = Callable[[slice], Outputs]  # computes the outputs for some of the rows


@dataclass(frozen=True)
class CheckResult:
    """How the outputs of a file differ from those of the run."""

    rows: int
    largest: float  # difference, relative to the largest number of an output where that is above 1
    changed: int  # labels
    labels: int  # that were compared


def compute_expected(run: LoadedRun, model: ExportedModel, rows: CheckRows) -> dict[str, NDArray[np.generic]]:
    """Compute the outputs as `predict` does.

    Args:
        run: the run
        model: what is exported, which names the outputs
        rows: the rows
    """
    if model.criterion is None:
        with torch.inference_mode():
            found: Sequence[Tensor] = model(*rows.inputs)
    else:
        values = _predict(run, model, rows)
        with torch.inference_mode():
            found = model.convert_predictions({name: each.float() for name, each in values.items()})
    return {output.name: each.numpy() for output, each in zip(model.outputs, found, strict=True)}


def is_mixed(run: LoadedRun) -> bool:
    """Whether the run predicts in half precision, which exported files do not."""
    return run.backend.precision.name in ("bf16", 16)


def _predict(run: LoadedRun, model: ExportedModel, rows: CheckRows) -> Mapping[str, Tensor]:
    if not is_mixed(run):
        return BatchPredictor(run).predict_inputs(rows.network_inputs, range(len(rows)))
    with torch.inference_mode():
        return run.criterion.predict_targets(model.run_network(rows.network_inputs, rows.noise))


def check_file(run_rows: RunRows, model: ExportedModel, expected: Outputs, rows: CheckRows) -> CheckResult:
    """Run a file in batches of 1, 2 and 33 rows, and compare.

    Args:
        run_rows: runs the file
        model: what was exported, which says what the outputs are
        expected: the outputs of the run itself
        rows: the rows

    Raises:
        UserError: if an output differs by more than the tolerance.
    """
    largest, changed, labels = 0.0, 0, 0
    for size in CHECK_BATCHES:
        for part in _divide(len(rows), size):
            found = run_rows(part)
            for output in model.outputs:
                one, other = found[output.name], expected[output.name][part]
                if output.name.endswith(f".{INDEX}"):
                    changed, labels = changed + int((one != other).sum()), labels + other.size
                else:
                    largest = max(largest, _compare(output.name, one, other))
    if largest > TOLERANCE:
        found_text = f"the exported file differs from the run by {largest:.1e}, more than {TOLERANCE:.0e}"
        raise UserError(f"{found_text}; nothing was written. Try another format, or train with trainer.precision: 32")
    return CheckResult(rows.different, largest, changed, labels)


def check_fewer_steps(run_inputs: RunInputs, model: ExportedModel, axes: Axes, inputs: Sequence[Tensor]) -> None:
    """Run a file on two rows with half the steps, where its steps may differ, and compare with the network.

    Args:
        run_inputs: runs the file
        model: what was exported
        axes: the sizes of each input as they were traced
        inputs: the inputs of some rows

    Raises:
        UserError: if an output differs by more than the tolerance.
    """
    if not any(STEPS in sizes for sizes in axes):
        return
    shorter = [_shorten(each[:2], described, sizes)
               for each, described, sizes in zip(inputs, model.inputs, axes, strict=True)]  # fmt: skip
    steps = max(each.shape[1] for each, sizes in zip(shorter, axes, strict=True) if STEPS in sizes)
    shorter = [each.clamp(max=steps) if described.name.endswith(LENGTHS) else each
               for each, described in zip(shorter, model.inputs, strict=True)]  # fmt: skip
    with torch.inference_mode():
        expected = model(*shorter)
    found = run_inputs(shorter)
    largest = max(_compare(output.name, found[output.name], each.numpy())
                  for output, each in zip(model.outputs, expected, strict=True))  # fmt: skip
    if largest > TOLERANCE:
        raise UserError(
            f"with {steps} steps the exported file differs from the run by {largest:.1e}; nothing was written"
        )


def _shorten(values: Tensor, described: RawInput, sizes: tuple[int | str, ...]) -> Tensor:
    """Keep the first half of the steps, at least as many as the network needs."""
    if STEPS not in sizes:
        return values
    return values[:, : max(described.fewest_steps, 2, values.shape[1] // 2)]


def _divide(count: int, size: int) -> list[slice]:
    """Divide rows into batches; of the smallest sizes only the first few."""
    starts = range(0, count - size + 1, size)
    return [slice(start, start + size) for start in (starts[:4] if size < 3 else starts)]


def _compare(name: str, found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    if found.shape != expected.shape:
        raise UserError(
            f"the exported file returns '{name}' of shape {found.shape}, and the run {expected.shape}; nothing was "
            "written. Try another format"
        )
    one, other = found.astype(np.float64), expected.astype(np.float64)
    scale = max(1.0, float(np.abs(other).max(initial=0)))
    difference = np.abs(one - other).max(initial=0.0) / scale
    return float("inf") if np.isnan(difference) else float(difference)
