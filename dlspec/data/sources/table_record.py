"""What a run keeps of how a table was understood: kinds and why, the content of its rows, settings for its spec."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from dlspec.data.encoding.kind_settings import write_kind
from dlspec.data.sources.table_planning import PlannedTable
from dlspec.data.splitting.row_numbers import hash_rows

MAX_WRITTEN_COLUMNS = 200  # inferred kinds of more columns are not written into spec.yaml


def describe_choice(plan: PlannedTable) -> dict[str, Any]:
    """Describe as JSON values why kinds were inferred and columns left out, or which run has fitted them."""
    if plan.choice is None:
        return {"prepared_by": plan.settings.prepare}
    return {"inferred": dict(plan.choice.reasons), "left_out": dict(plan.choice.left_out)}


def hash_content(plan: PlannedTable) -> str:
    """Hash the cells of all rows that the run uses, in their order."""
    columns = plan.rows.table.columns
    targets = [member for name in plan.targets for member in plan.stacks.get(name, (name,))]
    used = [*plan.inputs, *targets, *([plan.settings.weight] if plan.settings.weight else [])]
    return blake2b(hash_rows(columns, used).tobytes(), digest_size=16).hexdigest()


def _name_stacks(plan: PlannedTable) -> set[str]:
    return {f"in {name}" for name in plan.stacks}


def resolve_settings(plan: PlannedTable) -> dict[str, Any]:
    """Return the settings to save in the run's spec in place of the written ones: with the inferred kinds."""
    choice, settings = plan.choice, plan.settings
    if choice is None or len(choice.inputs) + len(choice.left_out) > MAX_WRITTEN_COLUMNS:
        return {}
    inferred = {name: write_kind(kind) for name, kind in choice.inputs.items() if name in choice.reasons}
    uses = {"drop", "null in columns", "not in only", "not named in columns", "id", "weight", "split", "folds", "group",
            "time"}  # fmt: skip
    left_out = {name: None for name, reason in choice.left_out.items() if reason not in uses | _name_stacks(plan)}
    found: dict[str, Any] = {"columns": {**settings.columns, **inferred, **left_out}}
    if choice.targets:
        found["target"] = {name: write_kind(kind) for name, kind in choice.targets.items()}
    return found
