"""Five folds of four tables: dlspec beside linear models and gradient boosting of scikit-learn, on the same rows.

python benchmarks/folds.py [--only WORD] [--seeds 0,1,2] [OVERRIDE ...]

Each table is written to a CSV file whose columns `part_0` to `part_4` say train, val or test for each fold. dlspec and
scikit-learn are fitted on the rows of `train` and evaluated on those of `test`. On the rows of `val`, dlspec chooses
the epoch and boosting the number of trees; the linear models have nothing to choose. Overrides are added to dlspec's
command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
from measuring import ONE_THREAD, machine, pin, table
from mixed_table import TARGET, make_mixed_table
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FOLDS = 5
PARTS = tuple(f"part_{fold}" for fold in range(FOLDS))
VALIDATION_SHARE = 0.15  # of the rows outside the test fold
MODELS = ("dlspec", "linear", "boosting")
COMMAND = "-m model=mlp data=table data.path={path} data.target={target} data.drop=[part_*]"
Frame = pd.DataFrame
Scores = Mapping[str, list[float]]


@dataclass(frozen=True)
class Task:
    """A table, the column to predict, and how predictions are scored."""

    name: str
    target: str
    metric: str  # in dlspec's results: test/METRIC

    @property
    def is_regression(self) -> bool:
        """Whether the target is a number."""
        return self.metric == "r2_score"

    def read(self) -> Frame:
        """Return the table."""
        from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

        if self.name == "mixed":
            return make_mixed_table()
        load = {"breast_cancer": load_breast_cancer, "diabetes": load_diabetes, "digits": load_digits}[self.name]
        found = load(as_frame=True)
        values = found.target if self.name == "diabetes" else found.target_names[found.target]
        return found.data.assign(**{self.target: values})


TASKS = (
    Task("breast_cancer", "diagnosis", "accuracy"),
    Task("diabetes", "progression", "r2_score"),
    Task("digits", "digit", "accuracy"),
    Task("mixed", TARGET, "auroc"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only the tables whose name contains this word")
    parser.add_argument("--seeds", default="0", help="seeds of the folds: three seeds are fifteen splits")
    arguments, overrides = parser.parse_known_args()
    os.environ.update(ONE_THREAD)
    where, about = pin(), machine("torch", "scikit-learn")
    print(f"{about}; {where}, one thread; mean ± standard deviation over the folds\n", flush=True)
    lines = []
    for task in TASKS:
        if arguments.only in task.name:
            started, scores = time.perf_counter(), {name: [] for name in MODELS}
            for seed in arguments.seeds.split(","):
                for name, found in score_folds(task, int(seed), overrides).items():
                    scores[name] += found
            lines.append([*_make_line(task, scores), f"{time.perf_counter() - started:.0f}"])
            print(f"{task.name}: {scores}", file=sys.stderr, flush=True)
    header = ["table", "rows", "test", *MODELS, "dlspec - linear", "dlspec - boosting", "seconds"]
    print(table(header, lines))


def _make_line(task: Task, scores: Scores) -> list[str]:
    shown = [_format_spread(scores[name]) for name in MODELS]
    differences = [_format_difference(scores["dlspec"], scores[name]) for name in MODELS[1:]]
    return [task.name, f"{len(task.read()):,}", task.metric, *shown, *differences]


def _format_spread(values: list[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.4f} ± {stdev(values):.4f}"


def _format_difference(ours: list[float], theirs: list[float]) -> str:
    """Format the mean and deviation of the differences within each fold."""
    return _format_spread([mine - other for mine, other in zip(ours, theirs, strict=True)], "+")


def score_folds(task: Task, seed: int, overrides: list[str]) -> Scores:
    """Score every model on every fold.

    Args:
        task: the table
        seed: decides which rows are in which fold
        overrides: added to dlspec's command
    """
    rows = add_parts(task, task.read(), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{task.name}.csv"
        rows.to_csv(path, index=False)
        return {"dlspec": _score_dlspec(task, path, overrides), **_score_sklearn(task, pd.read_csv(path))}


def add_parts(task: Task, rows: Frame, seed: int) -> Frame:
    """Add a column for each fold that says whether a row trains, validates or tests."""
    classes = None if task.is_regression else rows[task.target].to_numpy()
    splitter = (KFold if classes is None else StratifiedKFold)(FOLDS, shuffle=True, random_state=seed)
    for column, (others, test) in zip(PARTS, splitter.split(rows, classes), strict=True):
        kept = None if classes is None else classes[others]
        _, validation = train_test_split(others, test_size=VALIDATION_SHARE, random_state=seed, stratify=kept)
        part = np.full(len(rows), "train", object)
        part[validation], part[test] = "val", "test"
        rows = rows.assign(**{column: part})
    return rows


# ---- dlspec ----------------------------------------------------------------------------------------------------------


def _score_dlspec(task: Task, path: Path, overrides: list[str]) -> list[float]:
    """Train a sweep of the folds by one command, and read its results."""
    words = COMMAND.format(path=path, target=task.target).split(" ")
    words += [f"data.split={','.join(PARTS)}", "hydra.sweep.dir=sweep", "hydra/launcher=basic", "trainer.device=cpu"]
    if task.metric == "auroc":
        words.append("metrics=[AUROC,Accuracy]")
    command = [sys.executable, "-m", "dlspec", *words, *overrides]
    done = subprocess.run(command, cwd=path.parent, env=_make_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    import dlspec

    runs = sorted(dlspec.results(path.parent / "sweep").runs, key=lambda run: int(Path(run.folder).name))
    return [run.results[f"test/{task.metric}"] for run in runs]


def _make_environment() -> dict[str, str]:
    """Make an environment in which any folder imports the dlspec of this checkout."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def _score_sklearn(task: Task, rows: Frame) -> Scores:
    """Fit both models of scikit-learn on each fold."""
    scores: dict[str, list[float]] = {"linear": [], "boosting": []}
    inputs = _split_dates(rows.drop(columns=[task.target, *PARTS]))
    for part in PARTS:
        train, validation, test = (np.flatnonzero(rows[part] == name) for name in ("train", "val", "test"))
        linear = _make_linear(task, inputs).fit(inputs.iloc[train], rows[task.target].iloc[train])
        boosting = _make_boosting(task).fit(
            inputs.iloc[train], rows[task.target].iloc[train],
            X_val=inputs.iloc[validation], y_val=rows[task.target].iloc[validation],
        )  # fmt: skip
        for name, model in (("linear", linear), ("boosting", boosting)):
            scores[name].append(_score(task, model, inputs.iloc[test], rows[task.target].iloc[test]))
    return scores


def _split_dates(inputs: Frame) -> Frame:
    """Replace a date by its parts, and give texts pandas' type of categories."""
    if "joined" in inputs:
        days = pd.to_datetime(inputs["joined"]).dt
        parts = {"year": days.year, "day": days.day, "month": days.month, "weekday": days.day_of_week}
        inputs = inputs.drop(columns="joined").assign(**parts)
    names = _list_categories(inputs)
    return inputs.astype(dict.fromkeys(names, "category"))


def _list_categories(inputs: Frame) -> list[str]:
    known = {"month", "weekday"}
    return [name for name in inputs if name in known or not pd.api.types.is_numeric_dtype(inputs[name])]


def _make_linear(task: Task, inputs: Frame) -> Any:
    """Make a linear model after the usual preparation: gaps filled and marked, standardized, one-hot."""
    categories = _list_categories(inputs)
    numbers = [name for name in inputs if name not in categories]
    scaled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    prepared = make_column_transformer((scaled, numbers), (OneHotEncoder(handle_unknown="ignore"), categories))
    return make_pipeline(prepared, Ridge() if task.is_regression else LogisticRegression(max_iter=2_000))


def _make_boosting(task: Task) -> Any:
    kind = HistGradientBoostingRegressor if task.is_regression else HistGradientBoostingClassifier
    return kind(early_stopping=True, random_state=0)


def _score(task: Task, model: Any, inputs: Frame, target: Any) -> float:
    if task.metric == "auroc":
        chances: NDArray[Any] = model.predict_proba(inputs)[:, 1]
        return float(roc_auc_score(target, chances))
    score = r2_score if task.is_regression else accuracy_score
    return float(score(target, model.predict(inputs)))


if __name__ == "__main__":
    main()
