"""Where the checkout and its tests lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FIXTURES = TESTS / "fixtures"
SHARED = ROOT.parent / "shared"
"""Large data beside the checkout, where there are any."""
