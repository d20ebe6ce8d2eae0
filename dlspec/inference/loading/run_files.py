"""Find and read the files of a run's folder that its network needs. The folder may come from a stranger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlspec.compat.safetensors import open_tensor_file
from dlspec.data.encoding.saved_dataset import DATASET
from dlspec.data.sources.saved_preparation import MAX_PREPARE_BYTES
from dlspec.errors import UserError, format_value
from dlspec.formatting import first_line
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.file_access import is_regular_file, refuse_links
from dlspec.runs.file_names import BEST_FILE, CHECKPOINTS_FOLDER, LAST_FILE, PREPARE_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.run_status import resume_command

# The files of each choice; the first one that exists is used.
WEIGHTS_OF_CHOICE: Mapping[str, tuple[str, ...]] = {"best": (BEST_FILE, LAST_FILE), "last": (LAST_FILE,)}


def find_weights_file(folder: Path, checkpoint: str) -> Path:
    """Find the file with a run's weights.

    Args:
        folder: the run's folder
        checkpoint: `best` (or the last ones, if no best ones were saved) or `last`

    Raises:
        UserError: if the file is missing, or a link.
    """
    if checkpoint not in WEIGHTS_OF_CHOICE:
        raise UserError(f"checkpoint must be best or last, got {format_value(checkpoint)}")
    checkpoints = folder / CHECKPOINTS_FOLDER
    refuse_links(folder, [checkpoints])
    for name in WEIGHTS_OF_CHOICE[checkpoint]:
        if is_regular_file(checkpoints / name):
            return checkpoints / name
    shown, names = format_file_path(checkpoints), " and no ".join(WEIGHTS_OF_CHOICE[checkpoint])
    fix = f"finish the run first: {resume_command(format_file_path(folder))}"
    raise UserError(f"no weights of this run: '{shown}' has no {names}; {fix}")


def read_metadata(weights_file: Path) -> dict[str, str]:
    """Read the texts that a weights file contains beside its tensors: its spec, epoch, step, preparation.

    Raises:
        UserError: if it is not a complete safetensors file, or its header is too large.
    """
    shown = format_file_path(weights_file)
    try:
        with open_tensor_file(weights_file) as file:
            return dict(file.metadata() or {})
    except UserError as error:
        raise UserError(f"can't read '{shown}': {error}") from None
    except Exception as error:  # from safetensors or the system
        raise UserError(f"'{shown}' is not a complete safetensors file: {first_line(error, 200)}") from None


def read_preparation(folder: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read what a run saved of its data: from the weights file, else from prepare.json; {} if neither has it.

    Args:
        folder: the run's folder
        metadata: the texts of the weights file
    """
    try:
        saved = json.loads(metadata.get("preprocessing", "null"))
    except (ValueError, RecursionError):
        saved = None
    if isinstance(saved, dict) and DATASET in saved:
        return saved
    return read_json_object(folder / PREPARE_FILE, MAX_PREPARE_BYTES) or {}
