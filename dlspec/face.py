"""dlspec in Python and notebooks: `build` and `train` take what a YAML file would say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.app.compose import start_hydra
from dlspec.app.conf_files import GROUPS, group_files
from dlspec.app.running import composed_or_refused, make_job
from dlspec.app.sweep import register
from dlspec.data.arrays import from_arrays
from dlspec.data.dataset import Dataset
from dlspec.errors import UserError
from dlspec.preparing import Preparation
from dlspec.run_folder import create_run_folder
from dlspec.spec.mistakes import Places

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
    state (`{"shape": [3, 32, 32], "num_classes": 10}`). Raises SpecError with every mistake.
    """
    return _preparation(spec, data).build().network.module


def train(spec: Spec, data: Data = None, *, folder: str | Path | None = None) -> Result:
    """Trains and tests; a new run folder is made below `folder`, and nothing is written where there is none.

    Raises SpecError for a wrong spec, TrainingFailed where the training itself fails.
    """
    job = make_job(_preparation(spec, data))
    run_folder = None if folder is None else create_run_folder(Path(folder), "run")
    outcome = job.run(run_folder)
    results = {**outcome.best, **outcome.test}
    history = tuple(job.trainer.state.history)
    return Result(job.trainer.network, results, outcome.best_epoch, history, job.prepared.resolved, run_folder)


def _preparation(spec: Spec, data: Data) -> Preparation:
    written = dict(spec) if isinstance(spec, Mapping) else {}
    if "layers" in written:
        written = {"model": written}
    arrays, section = _data(data)
    if section is not None:
        written["data"] = section
    choices = [f"{key}={value}" for key, value in written.items() if key in GROUPS and isinstance(value, str)]
    overrides = choices if isinstance(spec, Mapping) else [*spec, *choices]
    register()
    composed = composed_or_refused(overrides, start_hydra())
    own = {key: value for key, value in written.items() if not (key in GROUPS and isinstance(value, str))}
    tree = composed.tree | {key: _merged(composed.tree.get(key), value) for key, value in own.items()}
    files = {group: group_files(group) for group in GROUPS}
    return Preparation(tree, lambda: _without(composed.places(), own), files, arrays)


def _data(data: Data) -> tuple[Dataset | None, Any]:
    """The data set itself, or what to write in the config's section."""
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Dataset):
        return data, None
    if "type" in data:
        return None, dict(data)
    if any(isinstance(each, Tensor) or hasattr(each, "__array__") for each in data.values()):
        return from_arrays(data), None
    if "target" in data:
        return from_arrays(data), None
    return None, {"type": "random", "size": 16, **data}


def _merged(before: Any, own: Any) -> Any:
    """A mapping changes what was chosen, key by key; one that says which part or layers it is replaces it."""
    replaces = not isinstance(own, Mapping) or not isinstance(before, dict) or "type" in own or "layers" in own
    if replaces:
        return _plain(own)
    return {**before, **{key: _merged(before.get(key), value) for key, value in own.items()}}


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
    raise UserError(f"a {type(value).__name__} can't stand in a spec: use numbers, text, lists and mappings")


def _without(places: Places, own: Mapping[str, Any]) -> Places:
    """The files' places, without those of keys that were given in Python."""
    keys = {path: place for path, place in places.keys.items() if not path or path[0] not in own}
    values = {path: place for path, place in places.values.items() if not path or path[0] not in own}
    return Places(keys, values)
