"""Run folders as a trainer leaves them, without training: for reports of many runs, and of strange ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SPEC: Mapping[str, Any] = {
    "spec_version": 1,
    "model": {"layers": ["Flatten", {"Linear": 10}]},
    "optimizer": {"type": "Adam", "lr": 0.01, "betas": [0.9, 0.999]},
    "scheduler": None,
    "trainer": {"epochs": 3, "progress": "none"},
    "seed": 0,
}


def write_run(
    folder: Path,
    spec: Mapping[str, Any] = SPEC,
    losses: Sequence[float] = (2.0, 1.0),
    overrides: Sequence[str] = (),
    **result: Any,
) -> Path:
    """A finished run's files; `result` changes what its result.json says."""
    (folder / ".hydra").mkdir(parents=True)
    rows = [{"epoch": at, "step": 10 * at, "val/loss": loss, "lr": 0.01} for at, loss in enumerate(losses, start=1)]
    best = min(losses)
    written = {
        "status": "finished", "epochs": len(losses), "steps": 10 * len(losses), "best_epoch": 1, "monitor": "val/loss",
        "monitored": best, "mode": "min", "best": {"val/loss": best, "lr": 0.01},
        "test": {"test/accuracy": 1 - best / 4},
        "parameters": 650, "stop_reason": "", "error": "", "timing": {"seconds": 1.5},
    }  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True))
    (folder / "result.json").write_text(json.dumps(written | result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "timing.jsonl").write_text('{"epoch": 1, "seconds": 0.5}\n' * len(losses))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return folder


def change_spec(**settings: Any) -> dict[str, Any]:
    """`SPEC` with some settings of its sections changed: `optimizer={"lr": 1}`, `seed=1`."""
    spec = dict(SPEC)
    for key, value in settings.items():
        before = spec.get(key)
        spec[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return spec
