"""Imported first of all by the server of a process that is dlspec's alone: see `dlspec.cli.main`."""

from __future__ import annotations

import gc

from dlspec.registry.lean import lean_imports

gc.disable()
lean_imports()
