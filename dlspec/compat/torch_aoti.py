"""AOTInductor, whose functions PyTorch documents under a private name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def compile_package(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compile an exported program to a package for machines like this one."""
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(program, package_path=str(path))


def load_package(path: Path) -> Callable[..., Any]:
    """Load a package that was compiled on this machine. It runs machine code: never load a stranger's."""
    from torch._inductor import aoti_load_package

    loaded: Callable[..., Any] = aoti_load_package(str(path))
    return loaded
