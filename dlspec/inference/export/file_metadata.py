"""The texts in an exported file beside the network: names, classes, preparation, spec, hash of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.file_inputs import RawInput
from dlspec.inference.export.model_tracing import Axes
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.jobs.environment import find_package_version

FORMAT = "1"  # of these texts


def make_metadata(run: LoadedRun, model: ExportedModel, axes: Axes) -> dict[str, str]:
    """Make the texts of an exported file; all but the version are JSON.

    Args:
        run: the run
        model: what is exported
        axes: the sizes of each input as they were traced
    """
    inputs = [_describe_input(each, sizes) for each, sizes in zip(model.inputs, axes, strict=True)]
    outputs = [{"name": each.name, "target": each.target, "classes": list(each.classes), "meaning": each.meaning}
               for each in model.outputs]  # fmt: skip
    return {
        "dlspec.format": FORMAT,
        "dlspec.version": find_package_version("dlspec") or "",
        "dlspec.inputs": _encode(inputs),
        "dlspec.outputs": _encode(outputs),
        **make_run_metadata(run),
    }


def make_run_metadata(run: LoadedRun) -> dict[str, str]:
    """Make the texts that say where the weights come from."""
    preparation = None if run.preparation is None else run.preparation.to_json()
    return {
        "dlspec.preparation": _encode(preparation),
        "dlspec.spec": run.metadata.get("spec", ""),
        "dlspec.weights_sha256": hash_weights(run),
    }


def _describe_input(each: RawInput, sizes: tuple[int | str, ...]) -> dict[str, Any]:
    return {
        "name": each.name, "dtype": str(each.dtype).removeprefix("torch."), "shape": list(sizes),
        "column": each.column, "meaning": each.meaning,
    }  # fmt: skip


def hash_weights(run: LoadedRun) -> str:
    """Return the sha256 of the run's weights file."""
    with run.weights_file.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(value: Mapping[str, Any] | list[Any] | None) -> str:
    return json.dumps(value, ensure_ascii=False)
