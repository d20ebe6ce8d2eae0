"""Compare runs in a table and on an HTML page. Importing this is fast: it does not import torch."""

from __future__ import annotations

from dlspec.report.report_files import write_report, write_sweep_report

__all__ = ["write_report", "write_sweep_report"]
