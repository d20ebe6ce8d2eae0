"""dlspec in Python and notebooks: `build`, `train` and `resume` take what a YAML file would say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import OmegaConf
from torch import nn

from dlspec.building.weights import load_weights
from dlspec.config.composition import Composed, start_hydra
from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import apply_overrides, parse_overrides, quoted, replaces_whole
from dlspec.data import SOURCES
from dlspec.data.arrays import from_arrays
from dlspec.data.dataset import Dataset
from dlspec.errors import Problem, SpecError, UserError, shown, suggest
from dlspec.jobs import resumption as resuming
from dlspec.jobs.running import Job, composed_or_refused, make_job, new_folder
from dlspec.limits import deep_stack, how_to_raise, limit
from dlspec.preparing import Preparation
from dlspec.reading import KEYS
from dlspec.runs.layout import SPEC
from dlspec.spec.mistakes import Mistakes, Places, refuse
from dlspec.spec.weights import WeightsSpec
from dlspec.spec.yaml_files import load_file
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.out_of_memory import OutOfMemory, forget
from dlspec.training.randomness import kept_generators
from dlspec.training.state import Outcome

P = ParamSpec("P")
T = TypeVar("T")
CHOSEN = (*GROUPS, "run")  # a text says which file, part or run it is
NO_DATA = "give arrays by name, {'x': ..., 'target': ...}, or a data set's name"
ARRAY_SETTINGS = ("validation", "test", "split_seed")
NO_VALUES: Mapping[str, Any] = {}
Spec = Mapping[str, Any] | Sequence[str]
Data = Mapping[str, Any] | Dataset | str | None


@dataclass(frozen=True, repr=False)
class Result:
    """What training gave: the network with the weights that were tested, and the results by their names."""

    network: nn.Module
    results: Mapping[str, float]
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    spec: Mapping[str, Any]
    folder: Path | None = None

    def __repr__(self) -> str:
        """The results in a line: a notebook shows them, not the layers and the spec."""
        results = ", ".join(f"{name} {value:.4g}" for name, value in self.results.items())
        where = "" if self.folder is None else f", folder {self.folder}"
        return f"Result({results}, best epoch {self.best_epoch}{where})"


@deep_stack()
def build(spec: Spec, data: Data = None) -> nn.Module:
    """The network that `spec` describes, built for `data`, its weights drawn from the spec's seed.

    `spec` is a mapping as in YAML, `{"model": "cnn", "seed": 1}` or `{"layers": [...]}`, or a list of overrides as on
    the command line. `data` is arrays by field name with a `target`, a data set's name, its settings, or what it would
    state (`{"shape": [3, 32, 32], "num_classes": 10}`; None classes: the target is a number). The spec's own `data`
    says how arrays are split (validation, test, split_seed) or changes a setting of the set that `data` names; where it
    names a data set itself, `data` takes its place. The random generators of Python, NumPy and PyTorch are left as they
    were. Raises SpecError with every mistake, UserError for what is no spec or no data.
    """
    with kept_generators():
        return _preparation(spec, data).build().network.module.cpu()


def _letting_go(function: Callable[P, T]) -> Callable[P, T]:
    """Out of memory, nothing is held by the error, which a notebook keeps."""

    @wraps(function)
    def called(*args: P.args, **settings: P.kwargs) -> T:
        try:
            return function(*args, **settings)
        except OutOfMemory as error:
            forget(error)
            raise

    return called


def load(folder: str | Path, data: Data = None) -> nn.Module:
    """The network of the run in `folder` with its best weights (or its last), on the CPU and in eval mode.

    `data` are given again where the run's were made in Python. Raises UserError where there is no such run or its
    weights are not there, SpecError where its spec imports modules that were not imported before.
    """
    run_folder = resuming.run_folder(str(folder))
    spec, _ = _changed(run_folder, {}, data)
    mistakes = Mistakes()
    with kept_generators(), deep_stack():
        network = _preparation(spec, data, is_resumed=True).build().network.module.cpu().eval()
        load_weights(network, WeightsSpec(path=str(run_folder), strict=True), mistakes)
    refuse(mistakes, Places)
    return network


@_letting_go
def train(spec: Spec, data: Data = None, *, folder: str | Path | None = None) -> Result:
    """Trains and tests; a new run folder is made below `folder`, and nothing is written where there is none.

    `spec` and `data` are those of `build`, and as there the random generators are left as they were. Raises SpecError
    for a wrong spec, TrainingFailed where the training itself fails.
    """
    with kept_generators():
        with deep_stack():
            job = make_job(_preparation(spec, data))
        if folder is None:
            return _result(job, job.run(), None)
        job.check_space(Path(folder))
        run_folder = new_folder(Path(folder), "run")
        return _result(job, job.run(run_folder), run_folder)


@_letting_go
def resume(folder: str | Path, data: Data = None, *, changes: Spec = (), allow: Sequence[str] = ()) -> Result:
    """Goes on with the run in `folder` from its newest checkpoint, as if it had never stopped.

    Where the data were arrays or a data set made in Python, the same are given again as `data`. `changes` are a spec
    that says only what is other than before (`{"trainer": {"epochs": 40}}`); keys that change what was trained before
    must be named in `allow`. A run that is finished is tested once more. The generators are left as they were. Raises
    SpecError for changes that are not allowed, UserError where there is no run or another process trains there,
    TrainingFailed where the checkpoint does not fit or the training fails.
    """
    run_folder = resuming.run_folder(str(folder))
    spec, written = _changed(run_folder, changes, data)
    with kept_generators(), resuming.whole(run_folder) as found:
        with deep_stack():
            job = make_job(_preparation(spec, data, is_resumed=found is not None))
        resuming.refuse(run_folder, job, resuming.changes(run_folder, job, found, written), allow)
        return _result(job, resuming.go_on(job, run_folder, found), run_folder)


def _changed(run_folder: Path, changes: Spec, data: Data) -> tuple[Spec, list[str]]:
    """The run's spec with what is changed, and the keys of that; arrays are split as they were."""
    own, overrides = _written(changes)
    saved = load_file(run_folder / SPEC).tree.get("data") if isinstance(data, Mapping) else None
    splits = _settings(saved) if isinstance(saved, Mapping) and saved.get("type") == "arrays" else {}
    if isinstance(changes, Mapping):
        kept = {"data": splits | dict(own.get("data", {}))} if splits else {}
        return {"run": str(run_folder), **own, **kept}, list(changes)
    keys = [each.key_or_group.lstrip("+~") for each in parse_overrides(overrides)]
    return [quoted("run", str(run_folder)), *(f"data.{key}={value}" for key, value in splits.items()), *overrides], keys


def _result(job: Job, outcome: Outcome, folder: Path | None) -> Result:
    results, history = {**outcome.best, **outcome.test}, tuple(job.trainer.state.history)
    return Result(job.trainer.network, results, outcome.best_epoch, history, job.prepared.resolved, folder)


def _preparation(
    spec: Spec, data: Data, values: Mapping[str, Any] = NO_VALUES, *, is_resumed: bool = False
) -> Preparation:
    """The steps from a spec to a run; `values` take the place of what it says, by their keys."""
    written, overrides = _written(spec)
    settings = {} if data is None else _settings(written.pop("data", None))
    arrays, section = _data(data, settings | _data_values(overrides))
    if arrays is not None:
        overrides = [each for each in overrides if not re.match(r"[+~]*data[.=]", each)]
    if section is not None:
        written["data"] = section
    chosen = {key: value for key, value in written.items() if key in CHOSEN and isinstance(value, str)}
    own = {key: value for key, value in written.items() if key not in chosen}
    register()
    composed = composed_or_refused([*overrides, *map(quoted, chosen, chosen.values())], start_hydra())
    tree = composed.tree | {key: _merged(composed.tree.get(key), value, key) for key, value in own.items()}
    if settings and arrays is None:
        tree["data"] = _merged(tree["data"], settings, "data")
    if arrays is not None:
        tree["data"] = _stand_in(arrays) | settings
    if values:
        tree = _changed_by(tree, values)
    files = {group: composed.loader.files(group) for group in GROUPS}
    other = [*own, *(key.split(".")[0] for key in values)]
    return Preparation(tree, partial(_places, composed, other), files, arrays, is_resumed=is_resumed)


def _changed_by(tree: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """As overrides of a command line change it."""
    config = OmegaConf.create(tree)
    lines = {key: f"{key}={value if isinstance(value, str) else shown(value)}" for key, value in values.items()}
    overrides = [
        Override(OverrideType.CHANGE, key, ValueType.ELEMENT, value, input_line=lines[key])
        for key, value in values.items()
    ]
    problems = apply_overrides(config, overrides)
    if problems:
        raise SpecError(problems)
    changed = OmegaConf.to_container(config, resolve=False)
    assert isinstance(changed, dict)
    return {str(key): value for key, value in changed.items()}


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


def _settings(section: Any) -> dict[str, Any]:
    """What the spec's `data` changes; nothing where it names a data set, whose place another takes."""
    if not isinstance(section, Mapping) or section.get("type", "arrays") != "arrays":
        return {}
    return {str(key): value for key, value in section.items() if key != "type"}


def _data_values(overrides: Sequence[str]) -> dict[str, Any]:
    """What a list of overrides says of the data, by the setting."""
    values = [each for each in parse_overrides(overrides) if each.key_or_group.startswith("data.")]
    return {each.key_or_group.removeprefix("data."): each.value() for each in values if not each.is_sweep_override()}


def _data(data: Data, settings: Mapping[str, Any]) -> tuple[Dataset | None, Any]:
    """The data set itself, or what to write in the config's section."""
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Dataset):
        _check_settings(settings, (), "a data set that was made in Python")
        return data, None
    if not isinstance(data, Mapping):
        raise UserError(f"{_shown(data)} is no data: {NO_DATA}")
    if "type" in data:
        return None, dict(data)
    if "target" in data or any(hasattr(each, "__array__") for each in data.values()):
        _check_settings(settings, ARRAY_SETTINGS, "arrays")
        return from_arrays(data, **settings), None
    _check_classes(data)
    return None, {"type": "random", "size": 16, **data}


def _stand_in(data: Dataset) -> dict[str, Any]:
    """A source that states what these data do: the form is checked with it, and it is never opened."""
    field = data.fields[0]
    if field.vocab_size is not None:
        return {"type": "random", "vocab_size": field.vocab_size, "length": field.shape[0]}
    return {"type": "random", "shape": list(field.shape)}


def _shown(data: object) -> str:
    """A number as it is, of anything that may be long its kind alone."""
    return repr(data) if isinstance(data, int | float) else f"a {type(data).__name__}"


def _check_settings(settings: Iterable[str], known: Sequence[str], what: str) -> None:
    wrong = [key for key in settings if key not in known]
    if wrong:
        found = f"no setting of {what}"
        raise SpecError([Problem(f"data.{key}", found, suggest(key, known) or "leave it out") for key in wrong])


def _check_classes(facts: Mapping[str, Any]) -> None:
    """Left out, the classes would be taken for a number to predict, without a word."""
    is_stated = facts.keys() & {"num_classes", "targets"}
    if not is_stated and facts.keys() <= SOURCES["random"].model_fields.keys():
        fix = "add how many classes there are, 'num_classes': 10, or None where a number is predicted"
        raise SpecError([Problem("data.num_classes", "not stated", fix)])


def _merged(before: Any, own: Any, group: str) -> Any:
    """A mapping changes what was chosen, key by key; one that says which part or layers it is replaces it."""
    if not isinstance(own, Mapping) or not isinstance(before, dict) or replaces_whole(group, dict(own)):
        return _plain(own, 1)
    return {**before, **{key: _merged(before.get(key), value, "") for key, value in own.items()}}


def plain_value(value: Any) -> Any:
    """A mapping, list, text or number as YAML would have given it; UserError for what is none."""
    return _plain(value, 1)


def _plain(value: Any, depth: int) -> Any:
    """Mappings, sequences and numbers as YAML would have given them."""
    deepest = limit("nesting")
    if depth > deepest:  # a list may hold itself
        found = f"nested more than {deepest} deep"
        raise SpecError([Problem("", found, f"use blocks or fewer levels; {how_to_raise('nesting')}")])
    if isinstance(value, Mapping):
        return {str(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{value!r} can't stand in a spec: use numbers, text, lists and mappings")


def _places(composed: Composed, own: Collection[str]) -> Places:
    """The files' places, without those of keys that were given in Python."""
    places = composed.places()
    keys = {path: place for path, place in places.keys.items() if not path or path[0] not in own}
    values = {path: place for path, place in places.values.items() if not path or path[0] not in own}
    return Places(keys, values)
