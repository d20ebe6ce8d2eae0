"""Which commands are light, and which are not there yet. The names of all are in dlspec.text."""

from __future__ import annotations

LIGHT = ("status", "report", "compare")
"""Commands that need neither PyTorch nor Hydra."""
NOT_YET = ("evaluate", "predict", "export", "eject", "schema", "inspect", "list",
           "show", "explain")  # fmt: skip
