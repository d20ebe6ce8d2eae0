"""A small table with numbers, categories, gaps and an id, and a run that was trained on it."""

from __future__ import annotations

import random
from pathlib import Path

from helpers.command_line import QUIET, run_in_this_process

HEADER = ["id", "age", "country", "income", "churned"]
TRAINING = (
    *("model=mlp", "model.params.width=4", "data=table", "data.path=train.csv", "data.target=churned", "data.id=id"),
    *("trainer.epochs=1", "trainer.progress=none", "trainer.device=cpu", "hydra.run.dir=run", *QUIET),
)


def make_rows(count: int, seed: int = 0) -> list[list[str]]:
    """Make rows of cells, with a missing cell in every eleventh."""
    numbers = random.Random(seed)
    rows = []
    for row in range(count):
        age, income = numbers.randint(18, 90), round(numbers.gauss(40_000, 9_000), 1)
        cells = [f"c{row:05}", str(age), numbers.choice(["DE", "FR", "PL"]), str(income), "no" if age < 50 else "yes"]
        rows.append(["" if row % 11 == 10 and at == 3 else cell for at, cell in enumerate(cells)])
    return rows


def format_csv(rows: list[list[str]], *, has_target: bool = False) -> str:
    """Format rows as CSV with a header."""
    width = len(HEADER) - (not has_target)
    return "".join(f"{','.join(cells[:width])}\n" for cells in [HEADER, *rows])


def train_churn_run(folder: Path) -> Path:
    """Train a run in `folder`, which is the working directory, and return its folder."""
    (folder / "train.csv").write_text(format_csv(make_rows(120), has_target=True), encoding="utf-8")
    assert run_in_this_process(*TRAINING).code == 0
    return folder / "run"
