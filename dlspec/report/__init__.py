"""Runs compared: read from their folders, beside each other in a table and on a page. Nothing heavy is imported."""

from __future__ import annotations

from dlspec.report.report_files import write_report, write_sweep_report

__all__ = ["write_report", "write_sweep_report"]
