"""Check the top-level keys of a config, and import the modules that it names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from dlspec.data.sources.source import SplitSource
from dlspec.errors import Code, find_closest, format_value, suggest
from dlspec.formatting import format_argument
from dlspec.language.problems import Problems
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.language.spec_versions import READ_VERSIONS, SPEC_VERSION, is_read_version

TOP_LEVEL_KEYS = (
    *("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer"),
    *("init", "freeze", "weights", "seed", "imports", "spec_version", "sweep"),
)
# Keys that users often write at the top level, and the paths where they belong.
_FULL_PATHS = {
    **{key: f"data.{key}" for key in SplitSource.model_fields},
    **{key: f"sweep.{key}" for key in SweepSpec.model_fields},
    **{key: f"trainer.{key}" for key in TrainerSpec.model_fields},
    **{key: f"model.{key}" for key in ("layers", "params", "inputs", "outputs", "blocks")},
    **{key: f"optimizer.{key}" for key in ("lr", "weight_decay", "momentum", "betas", "eps")},
    "learning_rate": "optimizer.lr",
}


def _suggest_key(key: str) -> str:
    """Suggest the path where an unknown top-level key belongs, or the key with the most similar name."""
    meant = _FULL_PATHS.get(key) or find_closest(key, TOP_LEVEL_KEYS) or _FULL_PATHS.get(find_closest(key, _FULL_PATHS))
    return f"did you mean '{meant}'?" if meant else suggest(key, TOP_LEVEL_KEYS, max_names=20)


def check_keys(tree: Mapping[str, Any], problems: Problems) -> None:
    """Check the top-level keys of a config, and its version."""
    for key in tree:
        if key not in TOP_LEVEL_KEYS:
            problems.add(Code.UNKNOWN_KEY, (key,), "no such key", _suggest_key(str(key)))
    version = tree.get("spec_version", SPEC_VERSION)
    if not is_read_version(version):
        versions = " and ".join(map(str, READ_VERSIONS))
        fix = f"install the version of dlspec that wrote the spec; this one reads versions {versions}"
        problems.add(
            Code.WRONG_VERSION, ("spec_version",), f"unknown version {format_value(version)}", fix, at_value=True
        )


def import_modules(names: Any, problems: Problems) -> None:
    """Import the modules of `imports`, whose decorators register the user's parts."""
    if names is None:
        return
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        written = names if isinstance(names, str) else "my_package.layers"
        fix = f"write them in brackets: {format_argument('imports', [written])}, in a file imports: [{written}]"
        problems.add(
            Code.WRONG_TYPE, ("imports",), f"'imports' must be a list of module names, got {format_value(names)}", fix
        )
        return
    if str(Path.cwd()) not in sys.path:  # `python -m dlspec` adds it, the script `dlspec` does not
        sys.path.insert(0, str(Path.cwd()))
    for index, name in enumerate(names):
        try:
            import_module(name)
        except (Exception, SystemExit) as error:
            found = f"importing '{name}' failed: {type(error).__name__}: {error}"
            is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
            fix = (
                "the module must be importable from the working directory"
                if is_missing
                else "fix this error in the module"
            )
            problems.add(Code.IMPORT_FAILED, ("imports", index), found, fix, at_value=True)
