"""`environment.json`: what a run's result depends on beside its spec, and what is another one where it is resumed."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dlspec.errors import format_value

log = logging.getLogger("dlspec")

PACKAGES = ("dlspec", "torch", "torchmetrics", "numpy", "hydra-core", "omegaconf", "pydantic", "safetensors")
MAX_RECORDED_RESUMES = 100
# What the last bits of a result follow from.
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
    """What a result depends on beside its spec: versions, machine, threads, and the git commit of the work directory.

    Never fails: what can't be found out is None.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _find_processor(),
        "packages": {name: find_package_version(name) for name in PACKAGES},
        "git": find_git_commit(Path.cwd()),
        "command": sys.argv,
        **_collect_torch_facts(),
    }


def find_git_commit(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` is at and whether tracked files were changed since; None outside a git repository."""
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
    """The installed version, None where there is none (a checkout that was not installed)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def merge_resumed_environment(before: dict[str, Any], now: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A run's first environment, and what is another one where it goes on; told where last bits may follow from it."""
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
            "the run goes on elsewhere, so it will not equal an uninterrupted one to the last bit: %s", description
        )
    earlier = before.get("resumed")
    others = {key: value for key, value in now.items() if first[key] != value}
    resumed = [*(earlier if isinstance(earlier, list) else []), {"step": step, **others}]
    return {**before, "resumed": resumed[-MAX_RECORDED_RESUMES:]}


def get_nested_value(tree: Mapping[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    inner = tree.get(first)
    if not rest:
        return inner
    return inner.get(rest) if isinstance(inner, Mapping) else None
