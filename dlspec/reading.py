"""A whole config becomes a `Spec`: every part found in its registry, every setting checked, every mistake at once.

It is read twice: first with the data's facts unknown (form), then, once the data are open, with the facts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from torch import nn

from dlspec.building.network import Layer
from dlspec.data import SOURCES, DataSource
from dlspec.errors import suggest
from dlspec.registry.registry import Registry
from dlspec.registry.schema import Schema
from dlspec.registry.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from dlspec.spec import references
from dlspec.spec.expressions import Unknown
from dlspec.spec.mistakes import Mistakes, Places, refuse
from dlspec.spec.model import Block, Node, expand, read_model
from dlspec.spec.parts import Part, parse_part
from dlspec.spec.trainer import TrainerSpec
from dlspec.spec.yaml_files import KeyPath

M = TypeVar("M", bound=BaseModel)
SPEC_VERSION = 1
KEYS = ("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer", "seed", "imports", "spec_version")


@dataclass(frozen=True)
class ReadPart:
    """A part whose name was found and whose settings were checked."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """A config whose form is right. `tree` is the config with every `${...}` looked up."""

    tree: Mapping[str, Any]
    block: Block
    layers: tuple[Layer, ...]
    data: DataSource
    optimizer: ReadPart
    trainer: TrainerSpec
    loss: ReadPart | None = None
    scheduler: ReadPart | None = None
    interval: Literal["step", "epoch"] | None = None
    metrics: tuple[ReadPart, ...] | None = None
    seed: int = 0
    waiting: tuple[str, ...] = ()


def read_spec(
    tree: Mapping[str, Any],
    places: Callable[[], Places],
    *,
    facts: Mapping[str, Any] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """The spec that a config writes; raises `SpecError` with all mistakes of form.

    `facts` are what the data hold, None before they are open; `choices` are the files that a group offers.
    """
    mistakes = Mistakes()
    spec = _Reader(mistakes, choices or {}).read(references.resolve(dict(tree), facts, mistakes))
    refuse(mistakes, places)
    assert spec is not None  # whatever is missing was a mistake
    return spec


class _Reader:
    def __init__(self, mistakes: Mistakes, choices: Mapping[str, Iterable[str]]) -> None:
        self.mistakes, self.choices = mistakes, choices

    def read(self, tree: dict[str, Any]) -> Spec | None:
        self._check_keys(tree)
        self._import(tree.get("imports"))
        block = read_model(tree.get("model"), ("model",), self.mistakes)
        layers = self._layers(expand(block, self.mistakes)) if block else ()
        data = self._data(tree.get("data"))
        optimizer = self._part("optimizer", tree.get("optimizer"), OPTIMIZERS, must=True)
        scheduler = self._part("scheduler", _without(tree.get("scheduler"), "interval"), SCHEDULERS)
        loss = self._loss(tree.get("loss"), block)
        metrics = self._metrics(tree.get("metrics"))
        trainer = self._model(TrainerSpec, tree.get("trainer") or {}, ("trainer",))
        seed = self._seed(tree.get("seed", 0))
        if block is None or data is None or optimizer is None or trainer is None:
            return None
        waiting = tuple(sorted(_unknowns(tree)))
        return Spec(
            tree,
            block,
            layers,
            data,
            optimizer,
            trainer,
            loss,
            scheduler,
            self._interval(tree.get("scheduler")),
            metrics,
            seed,
            waiting,
        )

    def _check_keys(self, tree: dict[str, Any]) -> None:
        for key in tree:
            if key not in KEYS:
                self.mistakes.add((key,), "no such key", suggest(str(key), KEYS))
        version = tree.get("spec_version", SPEC_VERSION)
        if version != SPEC_VERSION:
            fix = f"this dlspec reads version {SPEC_VERSION}: install the one that wrote it"
            self.mistakes.add(("spec_version",), f"version {version}", fix, at_value=True)

    def _import(self, names: Any) -> None:
        """The user's own modules, whose decorators register parts."""
        if names is None:
            return
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            self.mistakes.add(("imports",), "imports are no list of modules", "write imports: [my_package.layers]")
            return
        if str(Path.cwd()) not in sys.path:  # `python -m` puts it there, the script `dlspec` does not
            sys.path.insert(0, str(Path.cwd()))
        for index, name in enumerate(names):
            try:
                import_module(name)
            except Exception as error:
                found = f"importing '{name}' failed: {type(error).__name__}: {error}"
                self.mistakes.add(("imports", index), found, "the module must be importable from here", at_value=True)

    def _interval(self, scheduler: Any) -> Literal["step", "epoch"] | None:
        interval = scheduler.get("interval") if isinstance(scheduler, dict) else None
        if interval == "step" or interval == "epoch" or interval is None:
            return interval
        found = f"interval is {_shown(interval)}, wanted step or epoch"
        self.mistakes.add(("scheduler", "interval"), found, at_value=True)
        return None

    def _layers(self, nodes: tuple[Node, ...]) -> tuple[Layer, ...]:
        layers = []
        for node in nodes:
            self._check_name(node)
            found = LAYERS.read(node.part, self.mistakes)
            if found is not None:
                layers.append(Layer(node, *found))
        return tuple(layers)

    def _check_name(self, node: Node) -> None:
        """A name that every module has already would be hidden by the layer, or hide it."""
        if not node.name.isdigit() and hasattr(nn.Sequential, node.name):
            path = node.part.where("name")
            self.mistakes.add(path, f"'{node.name}' can't name an output: every module has one", "take another word")

    def _data(self, raw: Any) -> DataSource | None:
        part = parse_part(raw, ("data",), self.mistakes, kind="data set")
        if part is None:
            return None
        if part.type not in SOURCES:
            fix = suggest(part.type, {*SOURCES, *self.choices.get("data", ())})
            self.mistakes.add(_type_path(raw, part.path), f"no data set '{part.type}'", fix, at_value=True)
            return None
        return self._model(SOURCES[part.type], dict(part.settings), part.settings_path)

    def _part(self, key: str, raw: Any, registry: Registry, *, must: bool = False) -> ReadPart | None:
        if raw is None and not must:
            return None
        part = parse_part(raw, (key,), self.mistakes, kind=key)
        return None if part is None else self._found(part, registry, raw, key)

    def _found(self, part: Part, registry: Registry, raw: Any, group: str) -> ReadPart | None:
        part = Part(part.type, _type_path(raw, part.path), part.settings, part.settings_path, part.value)
        schema = registry.find(part, self.mistakes, also=self.choices.get(group, ()))
        return None if schema is None else ReadPart(part, schema, schema.read(part, self.mistakes))

    def _loss(self, raw: Any, block: Block | None) -> ReadPart | None:
        """The config's own loss, else the model's; None is `auto`."""
        if raw is None or _is_auto(raw):
            part = block.loss if block else None
            return self._found(part, LOSSES, None, "loss") if part is not None else None
        return self._part("loss", raw, LOSSES)

    def _metrics(self, raw: Any) -> tuple[ReadPart, ...] | None:
        if raw is None or _is_auto(raw):
            return None
        from dlspec.registry.metrics import metrics

        return tuple(read for entry, path in _metric_entries(raw) if (read := self._metric(entry, path, metrics())))

    def _metric(self, entry: Any, path: KeyPath, registry: Registry) -> ReadPart | None:
        part = parse_part(entry, path, self.mistakes, kind="metric")
        return None if part is None else self._found(part, registry, None, "metrics")

    def _model(self, model: type[M], settings: Any, path: KeyPath) -> M | None:
        """A section with fixed keys, checked by pydantic, its complaints in our words."""
        if not isinstance(settings, dict):
            self.mistakes.add(path, f"'{settings}' is no mapping", "write its keys below it", at_value=True)
            return None
        known = {key: value for key, value in settings.items() if not isinstance(value, Unknown)}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            for each in error.errors(include_url=False):
                self._tell(each, model, path)
            return None

    def _tell(self, error: ErrorDetails, model: type[BaseModel], path: KeyPath) -> None:
        location = (*path, *error["loc"])
        if error["type"] == "extra_forbidden":
            self.mistakes.add(location, "no such key", suggest(str(error["loc"][-1]), model.model_fields))
            return
        message = error["msg"].removeprefix("Value error, ")
        wanted = message.removeprefix("Input should be ")
        name = ".".join(str(each) for each in error["loc"])
        is_own = error["type"] == "value_error"
        found = message if is_own else f"{name} is {_shown(error['input'])}, wanted {wanted}"
        self.mistakes.add(location, found, at_value=True)

    def _seed(self, raw: Any) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**63:
            return raw
        self.mistakes.add(("seed",), f"seed is {_shown(raw)}, wanted a whole number >= 0", at_value=True)
        return 0


def _type_path(raw: Any, path: KeyPath) -> KeyPath:
    return (*path, "type") if isinstance(raw, dict) and "type" in raw else path


def _is_auto(raw: Any) -> bool:
    return raw == "auto" or (isinstance(raw, dict) and raw.get("type") == "auto" and len(raw) == 1)


def _without(raw: Any, key: str) -> Any:
    return {each: value for each, value in raw.items() if each != key} if isinstance(raw, dict) else raw


def _metric_entries(raw: Any) -> Iterable[tuple[Any, KeyPath]]:
    """Metrics come as one part, a list of parts, or a mapping from names to settings."""
    if isinstance(raw, list):
        return [(each, ("metrics", index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict) and "type" not in raw:
        return [({name: settings}, ("metrics",)) for name, settings in raw.items()]
    return [(raw, ("metrics",))]


def _unknowns(tree: Any) -> set[str]:
    if isinstance(tree, Unknown):
        return {tree.key}
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return {key for child in children for key in _unknowns(child)}


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else "null" if value is None else str(value)
