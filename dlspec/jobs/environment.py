"""`environment.json`: what a run's result depends on besides its spec, and what had changed when it was resumed."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dlspec.errors import format_value
from dlspec.runs.file_names import ENVIRONMENT_FILE
from dlspec.runs.io import read_json_object

log = logging.getLogger("dlspec")

PACKAGES = ("dlspec", "torch", "torchmetrics", "numpy", "hydra-core", "omegaconf", "pydantic", "safetensors")
MAX_RECORDED_RESUMES = 100
SECONDS_BETWEEN_GIT_CALLS = 10  # each starts two processes
CHANGES_KEY = "changes"  # of the last item of `resumed`
# If one of these changes, a resumed run may differ from an uninterrupted one in the last bits.
_KEYS_OF_EXACT_RESULTS = (
    "packages.dlspec",
    "packages.torch",
    "packages.numpy",
    "processor",
    "threads",
    "devices",
    "cuda",
)


def collect_environment() -> dict[str, Any]:
    """Collect versions, machine, threads, and the Git commit of the working directory.

    It never fails: values that can't be determined are None.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _find_processor(),
        "packages": {name: find_package_version(name) for name in PACKAGES},
        "git": _find_recent_commit(Path.cwd(), int(time.monotonic() / SECONDS_BETWEEN_GIT_CALLS)),
        "command": sys.argv,
        **_collect_torch_facts(),
    }


@lru_cache(maxsize=8)
def _find_recent_commit(folder: Path, period: int) -> dict[str, Any] | None:
    """Find the commit once in each period of some seconds: jobs of a sweep that start together share the answer."""
    return find_git_commit(folder)


def find_git_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit of `folder` and whether tracked files have changed since; None outside a Git repository."""
    commit = _run_git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "changed": bool(_run_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _run_git(folder: Path, *arguments: str) -> str:
    try:
        finished = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return finished.stdout.strip() if finished.returncode == 0 else ""


def _collect_torch_facts() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda if cuda else None,
    }


@cache
def _find_processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


@cache
def find_package_version(name: str) -> str | None:
    """Return a package's installed version; None if it is not installed (as in a plain checkout)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def merge_resumed_environment(
    before: dict[str, Any], now: Mapping[str, Any], step: int, changes: Mapping[str, tuple[Any, Any]]
) -> dict[str, Any]:
    """Add what has changed since the run's start to its environment; warn if that may change the last bits of results.

    Args:
        before: The content of `environment.json`.
        now: The present environment.
        step: The step from which the run is resumed.
        changes: Each changed key of the spec, with its value in the checkpoint and now.

    Returns:
        `before` with one more item in its list `resumed`.
    """
    first = {key: before.get(key) for key in now}
    changed = {
        key: (get_nested_value(first, key), get_nested_value(now, key))
        for key in _KEYS_OF_EXACT_RESULTS
        if get_nested_value(first, key) != get_nested_value(now, key)
    }
    if changed:
        description = ", ".join(
            f"{key} {format_value(value)} (was {format_value(was)})" for key, (was, value) in changed.items()
        )
        log.warning(
            "the run resumes in another environment, so its results may differ in the last bits: %s", description
        )
    earlier = [{key: each[key] for key in each if key != CHANGES_KEY} for each in _list_resumes(before)]
    others = {key: value for key, value in now.items() if first[key] != value}
    recorded = {CHANGES_KEY: changes} if changes else {}
    return {**before, "resumed": [*earlier, {"step": step, **recorded, **others}][-MAX_RECORDED_RESUMES:]}


def read_recorded_changes(folder: Path, step: int) -> dict[str, tuple[Any, Any]]:
    """Read with which changes of its spec a run was last resumed, if that was from this step.

    These are changes that the user has made already, although no checkpoint with them was written yet.
    """
    resumes = _list_resumes(read_json_object(folder / ENVIRONMENT_FILE) or {})
    changes = resumes[-1].get(CHANGES_KEY) if resumes and resumes[-1].get("step") == step else None
    pairs = changes.items() if isinstance(changes, dict) else ()
    return {str(key): (each[0], each[1]) for key, each in pairs if isinstance(each, list) and len(each) == 2}


def _list_resumes(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    resumes = environment.get("resumed")
    return [each for each in resumes if isinstance(each, dict)] if isinstance(resumes, list) else []


def get_nested_value(tree: Any, path: str) -> Any:
    """Return the value at a dotted path such as `packages.torch`; None if there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
