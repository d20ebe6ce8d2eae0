"""The keys at the top of a config, and the modules that it imports."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from dlspec.data.sources.source import SplitSource
from dlspec.errors import Code, find_closest, suggest
from dlspec.language.problems import Problems
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.trainer_section import TrainerSpec

SPEC_VERSION = 1
TOP_LEVEL_KEYS = (
    *("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer"),
    *("init", "freeze", "weights", "seed", "imports", "spec_version", "sweep"),
)
# Keys that are often written without their section, and where they belong.
_FULL_PATHS = {
    **{key: f"data.{key}" for key in SplitSource.model_fields},
    **{key: f"sweep.{key}" for key in SweepSpec.model_fields},
    **{key: f"trainer.{key}" for key in TrainerSpec.model_fields},
    **{key: f"model.{key}" for key in ("layers", "params", "inputs", "outputs", "blocks")},
    **{key: f"optimizer.{key}" for key in ("lr", "weight_decay", "momentum", "betas", "eps")},
    "learning_rate": "optimizer.lr",
}


def _suggest_key(key: str) -> str:
    """For a key at the top that is none: where it belongs, or the nearest."""
    meant = _FULL_PATHS.get(key) or find_closest(key, TOP_LEVEL_KEYS) or _FULL_PATHS.get(find_closest(key, _FULL_PATHS))
    return f"did you mean '{meant}'?" if meant else suggest(key, TOP_LEVEL_KEYS, max_names=20)


def check_keys(tree: Mapping[str, Any], problems: Problems) -> None:
    """Check the keys at the top of a config, and its version."""
    for key in tree:
        if key not in TOP_LEVEL_KEYS:
            problems.add(Code.UNKNOWN_KEY, (key,), "no such key", _suggest_key(str(key)))
    version = tree.get("spec_version", SPEC_VERSION)
    if version != SPEC_VERSION:
        fix = f"this dlspec reads version {SPEC_VERSION}: install the one that wrote it"
        problems.add(Code.WRONG_VERSION, ("spec_version",), f"version {version}", fix, at_value=True)


def import_modules(names: Any, problems: Problems) -> None:
    """Import the user's own modules, whose decorators register parts."""
    if names is None:
        return
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        written = names if isinstance(names, str) else "my_package.layers"
        fix = f"write them in brackets: imports=[{written}], in a file imports: [{written}]"
        problems.add(Code.WRONG_TYPE, ("imports",), "imports are no list of modules", fix)
        return
    if str(Path.cwd()) not in sys.path:  # `python -m` puts it there, the script `dlspec` does not
        sys.path.insert(0, str(Path.cwd()))
    for index, name in enumerate(names):
        try:
            import_module(name)
        except (Exception, SystemExit) as error:
            found = f"importing '{name}' failed: {type(error).__name__}: {error}"
            problems.add(
                Code.IMPORT_FAILED,
                ("imports", index),
                found,
                "the module must be importable from here",
                at_value=True,
            )
