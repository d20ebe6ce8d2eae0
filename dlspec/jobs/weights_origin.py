"""Compare the data of a run with those of the run whose weights it loads: classes and words must mean the same."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlspec.data.dataset import Dataset
from dlspec.data.sources.saved_preparation import MAX_PREPARE_BYTES
from dlspec.errors import Code
from dlspec.formatting import format_argument
from dlspec.jobs.spec import Spec
from dlspec.language.problems import Problems
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.network.built_network import Network
from dlspec.runs.file_names import PREPARE_FILE
from dlspec.runs.io import read_json_object

_MAX_SHOWN = 5


def check_weights_origin(spec: Spec, network: Network, data: Dataset, problems: Problems) -> None:
    """Report classes in another order and other words than those of the run whose weights are loaded.

    Their number is the same, so that the tensors fit, and the outputs would mean something else.

    Args:
        spec: The spec; nothing is compared if `weights.path` is not the folder of a run.
        network: The network that the weights were loaded into.
        data: The data.
        problems: Collects what differs.
    """
    weights = spec.weights
    if weights is None:
        return
    try:
        saved = read_json_object(Path(weights.path).expanduser() / PREPARE_FILE, MAX_PREPARE_BYTES) or {}
    except (OSError, RuntimeError):  # reported where the weights are read
        return
    found = [*_compare_classes(saved, data, network, weights), *_compare_words(saved, data, network, weights)]
    for text, layers in found:
        fresh = [*weights.fresh, *(f"{each}.*" for each in layers)]
        fix = f"give '{layers[0]}' new weights: {format_argument('weights.fresh', fresh)}"
        if "prepare" in type(spec.data).model_fields:
            fix += f"; or prepare the rows as that run did: {format_argument('data.prepare', weights.path)}"
        problems.add(Code.WEIGHTS_MISMATCH, ("weights", "path"), text, fix, at_value=True)


_Finding = tuple[str, Sequence[str]]  # what differs, and the layers whose weights depend on it


def _compare_classes(
    saved: Mapping[str, Any], data: Dataset, network: Network, weights: WeightsSpec
) -> Iterator[_Finding]:
    ends = [each.end.name for each in network.outputs.values()]
    layers = _list_loaded(ends, network, weights)
    described = saved.get("dataset")
    targets = described.get("targets") if isinstance(described, Mapping) else None
    for before in targets if isinstance(targets, list) and layers else ():
        classes = before.get("classes") if isinstance(before, Mapping) else None
        now = next((each for each in data.targets if each.name == before.get("name")), None) if classes else None
        if now is not None and isinstance(classes, list) and _differ(classes, now.classes):
            shown = f"{_format(classes)} there, {_format(now.classes)} here"
            yield (
                f"the run whose weights are loaded has other classes of '{now.name}', or another order: {shown}",
                layers,
            )


def _compare_words(
    saved: Mapping[str, Any], data: Dataset, network: Network, weights: WeightsSpec
) -> Iterator[_Finding]:
    embeddings = [each.name for each in network.layers if each.type in ("Embedding", "EmbeddingBag")]
    layers = _list_loaded(embeddings, network, weights)
    columns, own = saved.get("columns"), data.preprocessing.get("columns")
    if not layers or not isinstance(columns, Mapping) or not isinstance(own, Mapping):
        return
    for name, column in columns.items():
        words = column.get("words") if isinstance(column, Mapping) else None
        now = own[name].get("words") if isinstance(own.get(name), Mapping) else None
        if isinstance(words, list) and isinstance(now, list) and _differ(words, now):
            shown = _format([each for each, other in zip(words, now, strict=True) if each != other])
            yield f"the run whose weights are loaded has another vocabulary of '{name}': it has {shown}", layers


def _differ(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether there are as many names, but others; another number is seen in the shapes of the tensors."""
    return len(before) == len(now) and [*map(str, before)] != [*map(str, now)]


def _list_loaded(layers: Sequence[str], network: Network, weights: WeightsSpec) -> list[str]:
    """List those of the layers that have weights of the file."""
    names = [name for name, _ in network.module.named_parameters()]
    loaded = [name for name in names if not any(fnmatch.fnmatchcase(name, each) for each in weights.fresh)]
    return [each for each in dict.fromkeys(layers) if any(name.startswith(f"{each}.") for name in loaded)]


def _format(names: Sequence[Any]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(map(str, names[:_MAX_SHOWN])) + more
