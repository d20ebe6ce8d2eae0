"""Speed and memory of predictions: arrays next to plain PyTorch, CSV to CSV next to pandas.

    python benchmarks/predict.py [--rows 1000000] [--rounds 5] [--only mlp,resnet18,csv,memory]

All contenders take turns within one run, on one core with one thread. Times are those of the CPU, so that a busy
machine changes them less. A ratio is computed within each round. Results of dlspec and of its contender are compared
once before they are measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from measuring import ONE_THREAD, machine, pin, spread, table

os.environ |= ONE_THREAD

FEATURES = 10
NAMES = [f"x{at}" for at in range(FEATURES)]
MODEL = {"layers": ["Flatten", {"Linear": 128}, "ReLU", {"Linear": 128}, "ReLU", {"Linear": "${data.num_outputs}"}]}
QUIET: dict[str, Any] = {"progress": "none", "epochs": 1, "device": "cpu"}
MEMORY_ROWS = (100_000, 2_000_000)


def train_mlp(folder: Path, *, is_table: bool) -> Path:
    """Train the MLP of conf/ for an epoch on ten numbers with two classes, and return the run's folder.

    Args:
        folder: where the run's folder is made
        is_table: whether the data are a table, whose numbers are scaled, or arrays, which are taken as they are
    """
    import numpy as np
    import pandas

    import dlspec

    values = make_values(2_000)
    labels = np.where(values.sum(1) > 0, "yes", "no")
    frame = pandas.DataFrame(values, columns=NAMES).assign(label=labels)
    data: Any = frame if is_table else {"features": values, "target": (values.sum(1) > 0).astype(np.int64)}
    spec = {"model": MODEL, "trainer": QUIET}
    result = dlspec.train(spec, data=data, target="label" if is_table else None, folder=folder)
    assert result.folder is not None
    return result.folder


def make_values(rows: int) -> Any:
    """Return numbers with four decimals, (rows, 10) float32."""
    import numpy as np

    return np.random.default_rng(0).normal(size=(rows, FEATURES)).round(4).astype(np.float32)


def train_resnet(folder: Path) -> Path:
    """Train ResNet-18 for two batches on noise, and return the run's folder."""
    import numpy as np

    import dlspec

    generator = np.random.default_rng(0)
    images = make_images(128)
    trainer = {**QUIET, "limit_batches": 2}
    spec = {"model": "resnet18", "trainer": trainer}
    result = dlspec.train(spec, data=(images, generator.integers(0, 10, 128)), folder=folder)
    assert result.folder is not None
    return result.folder


def make_images(count: int) -> Any:
    """Return noise as images, (count, 3, 32, 32) float32."""
    import numpy as np

    return np.random.default_rng(0).random((count, 3, 32, 32), np.float32)


def measure_in_turn(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Measure contenders in turn, after one call of each that does not count; the CPU seconds of each by name."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = process_time()
            call()
            seconds[name].append(process_time() - start)
    return seconds


def report(title: str, rows: int, seconds: dict[str, list[float]]) -> None:
    """Print rows per second of both contenders, and the ratio of dlspec to the other."""
    ours, other = seconds.values()
    ratios = spread([theirs / own for own, theirs in zip(ours, other, strict=True)])
    speeds = [f"{spread([rows / each for each in times]):,.0f}" for times in (ours, other)]
    names = list(seconds)
    print(f"\n{title}, {rows:,} rows\n")
    print(
        table(["contender", "rows per CPU second"], [(name, speed) for name, speed in zip(names, speeds, strict=True)])
    )
    print(f"\nratio {ratios:.2f}", flush=True)


def compare_arrays(title: str, run: Path, inputs: Any, rounds: int) -> None:
    """Compare predictions of one array with a loop in plain PyTorch.

    The loop scales images, takes the same batches and the same weights, and returns what a user wants of them: an array
    of class names and one of probabilities. It does not check the input and does not number the rows.

    Args:
        title: what is compared
        run: the run's folder
        inputs: the array (N, ...) float32
        rounds: how often both are measured
    """
    import numpy as np
    import torch

    import dlspec

    model, network = dlspec.predictor(run), dlspec.load(run)
    batch = model.chunks.batches.batch_size

    (fitted,) = model.run.require_preparation().inputs.values()
    scale = fitted.to_json().get("scale")
    (classes,) = model.classes.values()
    names = np.array(classes, object)

    def predict_plainly() -> tuple[Any, Any]:
        with torch.inference_mode():
            values = torch.from_numpy(inputs)
            if scale is not None:  # of images: the mean and standard deviation of each channel
                shift, divisor = (torch.tensor(scale[key]).view(-1, 1, 1) for key in ("shift", "divisor"))
                values = (values - shift) / divisor
            found = torch.cat([network(each) for each in values.split(batch)])
            if found.shape[1] == 1:
                probability = found[:, 0].sigmoid()
                chosen = (probability > 0.5).long()
            else:
                probability, chosen = found.softmax(-1).max(-1)
        return names[chosen.numpy()], probability.numpy()

    check_equality(model.predict(inputs), *predict_plainly())
    contenders = {"dlspec": lambda: model.predict(inputs), "plain PyTorch": predict_plainly}
    report(title, len(inputs), measure_in_turn(contenders, rounds))


def check_equality(found: Any, names: Any, probability: Any) -> None:
    """Check that both contenders predict the same classes, and probabilities to 1e-5."""
    import numpy as np

    _, classes, probabilities = found.columns.values()
    assert np.abs(probabilities - probability).max() < 1e-5
    assert (classes == names).mean() > 0.9999  # of rows beside the border, rounding decides


def compare_csv(folder: Path, rows: int, rounds: int) -> None:
    """Compare predictions from CSV to CSV with pandas around the same forward pass."""
    import numpy as np
    import pandas
    import torch

    import dlspec
    from dlspec.cli.main import run_command

    run = train_mlp(folder, is_table=True)
    source, ours, theirs = folder / "new.csv", folder / "dlspec.csv", folder / "pandas.csv"
    write_table(source, rows)
    network = dlspec.load(run)
    model = dlspec.predictor(run)
    fitted, batch = model.run.require_preparation().inputs, model.chunks.batches.batch_size
    scales = [fitted[name].to_json()["scale"] for name in NAMES]
    mean, deviation = (np.ravel([each[key] for each in scales]) for key in ("shift", "divisor"))

    def predict_with_pandas() -> None:
        frame = pandas.read_csv(source)
        scaled = ((frame[NAMES].to_numpy() - mean) / deviation).astype(np.float32)
        with torch.inference_mode():
            found = torch.cat([network(each) for each in torch.from_numpy(scaled).split(batch)]).sigmoid()[:, 0].numpy()
        labels = np.array(["no", "yes"], object)[(found > 0.5).astype(int)]
        table = {"row": np.arange(1, rows + 1), "label": labels, "label.yes": found}
        pandas.DataFrame(table).to_csv(theirs, index=False)

    def predict() -> None:
        assert run_command(["predict", f"run={run}", f"input={source}", f"output={ours}"]) == 0

    seconds = measure_in_turn({"dlspec predict": predict, "pandas": predict_with_pandas}, rounds)
    first, second = pandas.read_csv(ours), pandas.read_csv(theirs)
    assert np.abs(first["label.yes"] - second["label.yes"]).max() < 1e-5
    report("CSV to CSV, mlp", rows, seconds)


def write_table(path: Path, rows: int) -> None:
    """Write a CSV file of ten numbers."""
    import pandas

    pandas.DataFrame(make_values(rows).astype("float64").round(4), columns=NAMES).to_csv(path, index=False)


def measure_memory(folder: Path) -> None:
    """Print the peak memory of whole processes that predict few and many rows."""
    run = train_mlp(folder, is_table=True)
    rows = []
    for count in MEMORY_ROWS:
        source = folder / f"{count}.csv"
        write_table(source, count)
        words = ["predict", f"run={run}", f"input={source}", f"output={folder / 'out.csv'}"]
        rows.append((f"{count:,}", f"{measure_peak(words) / 1e6:,.0f} MB"))
    print(f"\npeak memory of predict, CSV to CSV\n\n{table(['rows', 'memory'], rows)}", flush=True)


PEAK = """
import sys
from pathlib import Path
from dlspec.cli.main import run_command
assert run_command(sys.argv[1:]) == 0
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def measure_peak(words: list[str]) -> int:
    """Run a command in a process of its own, and return the most memory that it had, in bytes."""
    found = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[-1]) * 1024


def main() -> None:
    """Measure what the arguments choose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="mlp,resnet18,csv,memory")
    arguments = parser.parse_args()
    print(machine("torch", "numpy", "pandas"), pin(), sep="; ")
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for only in arguments.only.split(","):
            folder = Path(name) / only
            folder.mkdir()
            if only == "mlp":
                run = train_mlp(folder, is_table=False)
                compare_arrays("arrays, mlp", run, make_values(arguments.rows), arguments.rounds)
            elif only == "resnet18":
                compare_arrays("images, resnet18", train_resnet(folder), make_images(512), arguments.rounds)
            elif only == "csv":
                compare_csv(folder, arguments.rows, arguments.rounds)
            else:
                measure_memory(folder)


if __name__ == "__main__":
    main()
