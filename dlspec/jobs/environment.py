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

from dlspec.errors import shown

log = logging.getLogger("dlspec")

PACKAGES = ("dlspec", "torch", "torchmetrics", "numpy", "hydra-core", "omegaconf", "pydantic", "safetensors")
MOST_RESUMED = 100
# What the last bits of a result follow from.
_EXACT = ("packages.dlspec", "packages.torch", "packages.numpy", "processor", "threads", "devices", "cuda")


def environment() -> dict[str, Any]:
    """What a result depends on beside its spec: versions, machine, threads, and the git commit of the work directory.

    Never fails: what can't be found out is None.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "git": git_commit(Path.cwd()),
        "command": sys.argv,
        **_torch_facts(),
    }


def git_commit(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` is at and whether tracked files were changed since; None outside a git repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _torch_facts() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "cuda": torch.version.cuda if cuda else None,
    }


@cache
def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


@cache
def package_version(name: str) -> str | None:
    """The installed version, None where there is none (a checkout that was not installed)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def resumed_environment(before: dict[str, Any], now: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A run's first environment, and what is another one where it goes on; told where last bits may follow from it."""
    first = {key: before.get(key) for key in now}
    changed = {
        key: (value_at(first, key), value_at(now, key)) for key in _EXACT if value_at(first, key) != value_at(now, key)
    }
    if changed:
        told = ", ".join(f"{key} {shown(value)} (was {shown(was)})" for key, (was, value) in changed.items())
        log.warning("the run goes on elsewhere, so it will not equal an uninterrupted one to the last bit: %s", told)
    earlier = before.get("resumed")
    others = {key: value for key, value in now.items() if first[key] != value}
    resumed = [*(earlier if isinstance(earlier, list) else []), {"step": step, **others}]
    return {**before, "resumed": resumed[-MOST_RESUMED:]}


def value_at(tree: Mapping[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    inner = tree.get(first)
    if not rest:
        return inner
    return inner.get(rest) if isinstance(inner, Mapping) else None
