"""dlspec in Python and notebooks: `build` and `train` take what a YAML file would say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlspec.app.compose import start_hydra
from dlspec.app.conf_files import GROUPS
from dlspec.app.overrides import replaces_whole
from dlspec.app.running import composed_or_refused, make_job, new_folder
from dlspec.app.sweep import register
from dlspec.data.arrays import from_arrays
from dlspec.data.dataset import Dataset
from dlspec.errors import UserError
from dlspec.preparing import Preparation
from dlspec.reading import KEYS
from dlspec.spec.mistakes import Places

CHOSEN = (*GROUPS, "run")  # a text says which file, part or run it is
Spec = Mapping[str, Any] | Sequence[str]
Data = Mapping[str, Any] | Dataset | str | None


@dataclass(frozen=True)
class Result:
    """What training gave: the network with the weights that were tested, and the results by their names."""

    network: nn.Module
    results: Mapping[str, float]
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    spec: Mapping[str, Any]
    folder: Path | None = None


def build(spec: Spec, data: Data = None) -> nn.Module:
    """The network that `spec` describes, built for `data`, its weights drawn from the spec's seed.

    `spec` is a mapping as in YAML, `{"model": "cnn", "seed": 1}` or `{"layers": [...]}`, or a list of overrides as on
    the command line. `data` is arrays by field name with a `target`, a data set's name, its settings, or what it would
    state (`{"shape": [3, 32, 32], "num_classes": 10}`). PyTorch's global generator is seeded with the spec's seed.
    Raises SpecError with every mistake, UserError for what is no spec or no data.
    """
    return _preparation(spec, data).build().network.module


def train(spec: Spec, data: Data = None, *, folder: str | Path | None = None) -> Result:
    """Trains and tests; a new run folder is made below `folder`, and nothing is written where there is none.

    `spec` and `data` are those of `build`; PyTorch's global generator is seeded as there. Raises SpecError for a wrong
    spec, TrainingFailed where the training itself fails.
    """
    job = make_job(_preparation(spec, data))
    run_folder = None if folder is None else new_folder(Path(folder), "run")
    outcome = job.run(run_folder)
    results = {**outcome.best, **outcome.test}
    history = tuple(job.trainer.state.history)
    return Result(job.trainer.network, results, outcome.best_epoch, history, job.prepared.resolved, run_folder)


def _preparation(spec: Spec, data: Data) -> Preparation:
    arrays, section = _data(data)
    written, overrides = _written(spec)
    written.pop("data" if data is not None else "", None)
    if section is not None:
        written["data"] = section
    chosen = {key: value for key, value in written.items() if key in CHOSEN and isinstance(value, str)}
    own = {key: value for key, value in written.items() if key not in chosen}
    register()
    composed = composed_or_refused([*overrides, *map(_override, chosen, chosen.values())], start_hydra())
    tree = composed.tree | {key: _merged(composed.tree.get(key), value, key) for key, value in own.items()}
    files = {group: composed.loader.files(group) for group in GROUPS}
    return Preparation(tree, lambda: _without(composed.places(), own), files, arrays)


def _written(spec: Spec) -> tuple[dict[str, Any], Sequence[str]]:
    """What a mapping says, by the config's keys, and what a list of overrides says."""
    if isinstance(spec, Mapping):
        written = dict(spec)
        if "layers" in written and "model" not in written:
            outer = {key: written.pop(key) for key in KEYS if key in written}
            written = {**outer, "model": written}
        return written, ()
    if isinstance(spec, Sequence) and not isinstance(spec, str) and all(isinstance(each, str) for each in spec):
        return {}, spec
    raise UserError(f"{spec!r} is no spec: write a mapping, {{'model': 'cnn'}}, or overrides, ['model=cnn']")


def _override(key: str, value: str) -> str:
    """`key=value` as the command line would have it, quoted where that is needed."""
    if re.fullmatch(r"[\w./-]+", value):
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def _data(data: Data) -> tuple[Dataset | None, Any]:
    """The data set itself, or what to write in the config's section."""
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Dataset):
        return data, None
    if not isinstance(data, Mapping):
        raise UserError(f"{data!r} is no data: give arrays by name, {{'x': ..., 'target': ...}}, or a data set's name")
    if "type" in data:
        return None, dict(data)
    if "target" in data or any(hasattr(each, "__array__") for each in data.values()):
        return from_arrays(data), None
    return None, {"type": "random", "size": 16, **data}


def _merged(before: Any, own: Any, group: str) -> Any:
    """A mapping changes what was chosen, key by key; one that says which part or layers it is replaces it."""
    if not isinstance(own, Mapping) or not isinstance(before, dict) or replaces_whole(group, dict(own)):
        return _plain(own)
    return {**before, **{key: _merged(before.get(key), value, "") for key, value in own.items()}}


def _plain(value: Any) -> Any:
    """Mappings, sequences and numbers as YAML would have given them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{value!r} can't stand in a spec: use numbers, text, lists and mappings")


def _without(places: Places, own: Mapping[str, Any]) -> Places:
    """The files' places, without those of keys that were given in Python."""
    keys = {path: place for path, place in places.keys.items() if not path or path[0] not in own}
    values = {path: place for path, place in places.values.items() if not path or path[0] not in own}
    return Places(keys, values)
