"""`run=FOLDER`: use the spec.yaml of a finished or started run; other overrides apply on top."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from dlspec.config.overrides import value_location
from dlspec.errors import Code, Problem, SourceLocation, SpecError, UserError
from dlspec.formatting import format_argument
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.file_names import DEFAULT_RUNS_FOLDER, SPEC_FILE
from dlspec.runs.run_discovery import iterate_run_folders

LATEST = "latest"
RUN_FIX = "name a run's folder, run=FOLDER, or run=latest"


def find_latest_run(root: Path = Path(DEFAULT_RUNS_FOLDER)) -> Path:
    """Find the run below `root` that was last written to; raise UserError if there is none."""
    found = [each for each in iterate_run_folders(root) if is_regular_file(each / SPEC_FILE)]
    if not found:
        raise UserError(f"no run found below '{root}': {RUN_FIX}")
    return max(found, key=lambda folder: folder.stat().st_mtime)


def extract_run_override(choices: Sequence[Override], values: Sequence[Override]) -> tuple[Path | None, list[Override]]:
    """Return the spec.yaml that `run=FOLDER` names (or None), and the values without that override."""
    named = next((each for each in values if each.key_or_group == "run"), None)
    if named is None or named.is_sweep_override():
        return None, [each for each in values if each is not named]
    folder, location = Path(str(named.value() or "")), value_location(named)
    if str(folder) == LATEST and not folder.exists():
        folder = find_latest_run()
    if not is_regular_file(folder / SPEC_FILE):
        shown = format_file_path(folder) if named.value() else ""
        raise SpecError(
            [
                Problem(
                    Code.NO_RUN,
                    "run",
                    f"no run in '{shown}'",
                    "name a run's folder, which contains spec.yaml",
                    location,
                )
            ]
        )
    if any(each.key_or_group == "experiment" for each in choices):
        raise SpecError(
            [
                Problem(
                    Code.CONFLICT, "run", "run and experiment together", "keep one: each is a complete spec", location
                )
            ]
        )
    return folder / SPEC_FILE, [each for each in values if each is not named]


def replace_with_saved_run(
    config: DictConfig, spec_file: Path, choices: Sequence[Override], values: Sequence[Override]
) -> dict[str, str]:
    """Replace the composed sections with those of a run's spec; groups chosen on the command line are kept.

    Args:
        config: the composed config; it is changed in place.
        spec_file: the spec.yaml of the run.
        choices: choices of groups on the command line.
        values: values on the command line; they must include the `imports` of the saved spec.

    Returns:
        The names for the new run's folder: 12-30-05_cnn_digits, run again, becomes ..._cnn_digits_again.

    Raises:
        SpecError: if the file is not a saved spec, or imports modules that the user has not named.
    """
    tree = load_yaml_file(spec_file).tree
    if not isinstance(tree, dict) or "hydra" in tree:
        raise SpecError([Problem(Code.NO_RUN, "", "not a saved spec", "", SourceLocation(format_file_path(spec_file)))])
    _check_imports(tree.get("imports"), spec_file, values)
    _replace_sections(config, tree, {each.key_or_group for each in choices})
    name = spec_file.parent.resolve().name
    return {"model": name.partition("_")[2] or name, "data": "again"}


def _replace_sections(config: DictConfig, tree: dict[str, Any], chosen: Collection[str]) -> None:
    with open_dict(config):
        for key in [str(key) for key in config if key != "hydra" and key not in chosen]:
            del config[key]
        for key, value in tree.items():
            if key not in chosen:
                config[key] = value


def _check_imports(imports: Any, spec_file: Path, values: Sequence[Override]) -> None:
    """Refuse imports of a saved spec that the user has not named, because the spec may come from anyone.

    Modules that are imported already run no code again.
    """
    required = imports if isinstance(imports, list) else []
    named = next((each.value() for each in values if each.key_or_group == "imports"), None)
    allowed = [*(named if isinstance(named, list) else []), *sys.modules]
    missing = [str(each) for each in required if each not in allowed]
    if missing:
        fix = f"if you trust them, add {format_argument('imports', list(map(str, required)))}"
        found = f"this spec runs code from {', '.join(missing)}"
        raise SpecError(
            [Problem(Code.UNTRUSTED_CODE, "imports", found, fix, SourceLocation(format_file_path(spec_file)))]
        )
