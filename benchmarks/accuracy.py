"""Accuracy of dlspec's networks: runs the commands in the README and prints their results.

python benchmarks/accuracy.py [--mnist FOLDER] [--sms FILE.csv] [--only WORD]

Each row is a command, run in its own process with one thread, once for each seed. The table has the median and the
range of the test results. Settings were chosen on the validation split, without looking at the test split.

The two small tables run with different splits instead of seeds. scikit-learn's linear model is fitted on the same
training samples; neither model is fitted on the validation samples. Validation splits of 45 and 57 samples are too
small to choose an epoch, so the last epoch is tested, and settings were compared by its mean over the five splits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from measuring import ONE_THREAD, machine, pin, table

SEEDS = ("seed=0", "seed=1", "seed=2")
SPLITS = tuple(f"data.split_seed={number}" for number in range(5))
ACCURACY, F1, R2, MAE = "accuracy", "f1_score", "r2_score", "mean_absolute_error"
FILES = {"MNIST": "mnist", "SMS": "sms"}


@dataclass(frozen=True)
class Row:
    """A command whose test results are measured; `{MNIST}` and `{SMS}` in it are replaced by the user's files."""

    command: str
    metrics: tuple[str, ...]
    seeds: tuple[str, ...] = SEEDS
    wanted: str = ""
    baseline: str = ""

    def needs(self) -> Iterator[str]:
        """The options that this row requires."""
        return (option for word, option in FILES.items() if f"{{{word}}}" in self.command)


ROWS = (
    Row("experiment=article_mnist data.path={MNIST}", (ACCURACY,), wanted="98.0 %"),
    Row(
        "model=text_lstm data=sms_spam data.path={SMS} trainer.epochs=8 optimizer.lr=2e-3",
        (ACCURACY, F1),
        wanted="accuracy 97.5 %",
    ),
    Row(
        "model=text_cnn data=table data.path={SMS} data.target=label trainer.epochs=6",
        (ACCURACY, F1),
        wanted="accuracy 98 %",
    ),
    Row("model=cnn", (ACCURACY,), wanted="97 %"),
    Row(
        "model=text_lstm data=python_lines trainer.epochs=3 trainer.batch_size=128 optimizer.lr=2e-3",
        (ACCURACY,),
        wanted="85 %",
    ),
    Row(
        # 2.5e-3 is the penalty of scikit-learn's default, C=1, on 398 samples: 1 / 398.
        "model=linear data=breast_cancer trainer.epochs=200 trainer.test=last optimizer.lr=1e-2"
        " optimizer.weight_decay=2.5e-3",
        (ACCURACY,),
        SPLITS,
        wanted="no worse",
        baseline="LogisticRegression",
    ),
    Row(
        # With all samples in one batch, LBFGS finds the least-squares solution.
        "model=linear data=diabetes optimizer=LBFGS trainer.batch_size=512 trainer.epochs=5 trainer.test=last",
        (R2, MAE),
        SPLITS,
        wanted="no worse",
        baseline="LinearRegression",
    ),
)
Results = dict[str, list[float]]


def main() -> None:
    arguments = _arguments()
    os.environ.update(ONE_THREAD)
    where, about = pin(), machine("torch", "scikit-learn")
    print(f"{about}; {where}, one thread; median (lowest to highest); seconds per run, from start to end\n", flush=True)
    started = time.perf_counter()
    lines = [line for row in _chosen(arguments) for line in _lines(row, arguments)]
    print(table(["python -m dlspec ...", "over", "test", "result", "goal", "scikit-learn", "seconds"], lines))
    print(f"\n{time.perf_counter() - started:.0f} s in total")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", help="folder with MNIST's four IDX files")
    parser.add_argument("--sms", help="the SMS Spam Collection as a CSV file with the columns label and text")
    parser.add_argument("--only", default="", help="run only the rows whose command contains this word")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> Iterator[Row]:
    for row in ROWS:
        missing = [option for option in row.needs() if getattr(arguments, option) is None]
        if missing:
            print(f"left out, because --{missing[0]} is missing: {row.command}\n")
        elif arguments.only in row.command:
            yield row


def _lines(row: Row, arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Yield a line of the table for each metric of the row."""
    files = {word: str(Path(getattr(arguments, FILES[word])).resolve()) for word in FILES if _given(arguments, word)}
    words = row.command.format_map({word: f"'{path}'" for word, path in files.items()}).split(" ")
    started = time.perf_counter()
    ours = _collected([run([*words, seed]) for seed in row.seeds])
    seconds = (time.perf_counter() - started) / len(row.seeds)
    theirs = _collected([baseline([*words, seed]) for seed in row.seeds]) if row.baseline else {}
    shown = row.command.replace("{MNIST}", "FOLDER").replace("{SMS}", "FILE")
    over = f"{len(row.seeds)} splits" if row.seeds is SPLITS else f"{len(row.seeds)} seeds"
    for metric in row.metrics:
        beside = f"{row.baseline} {_shown(metric, theirs[metric])}" if theirs else ""
        yield [f"`{shown}`", over, metric, _shown(metric, ours[metric]), row.wanted, beside, f"{seconds:.1f}"]


def _given(arguments: argparse.Namespace, word: str) -> bool:
    return getattr(arguments, FILES[word]) is not None


def _collected(runs: Sequence[Mapping[str, float]]) -> Results:
    return {name: [each[name] for each in runs] for name in runs[0]}


def _shown(metric: str, values: Sequence[float]) -> str:
    """Format the median, the range and the mean (by which two results are compared)."""
    if metric == MAE:
        return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f}), mean {mean(values):.2f}"
    if metric == R2:
        return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f}), mean {mean(values):.3f}"
    low, middle, high = (100 * each for each in (min(values), median(values), max(values)))
    return f"{middle:.2f} % ({low:.2f} to {high:.2f}), mean {100 * mean(values):.2f}"


def run(words: Sequence[str]) -> dict[str, float]:
    """Run `python -m dlspec WORDS` and return its test results by metric name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dlspec", *words, "trainer.device=cpu", "hydra.run.dir=run"]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        [result] = Path(folder).glob("run*/result.json")
        test = json.loads(result.read_text(encoding="utf-8"))["test"]
    return {name.removeprefix("test/"): value for name, value in test.items()}


def _environment() -> dict[str, str]:
    """An environment in which any folder imports the dlspec of this checkout."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def baseline(words: Sequence[str]) -> dict[str, float]:
    """Fit scikit-learn's linear model with its defaults on the samples that dlspec trains and tests on.

    The inputs are already standardized with the training split. Results are in the original unit of the target, as in
    dlspec.
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import mean_absolute_error, r2_score

    from dlspec.config.composition import compose, start_hydra
    from dlspec.jobs.composed_spec import make_preparation
    from dlspec.sweeps.hydra.plugins import register

    register()
    data = make_preparation(compose(list(words), start_hydra(None))).open().data
    (train, truth), (test, wanted) = (
        (split.tensors[data.fields[0].name].numpy(), split.target.numpy()) for split in (data.train, data.test)
    )
    if data.target.kind == "classes":
        return {ACCURACY: float(LogisticRegression().fit(train, truth).score(test, wanted))}
    mean_of_target, deviation = data.target.scale or (0.0, 1.0)
    predicted = LinearRegression().fit(train, truth).predict(test) * deviation + mean_of_target
    wanted = wanted * deviation + mean_of_target
    return {R2: float(r2_score(wanted, predicted)), MAE: float(mean_absolute_error(wanted, predicted))}


if __name__ == "__main__":
    main()
