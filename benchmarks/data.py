"""Speed and memory of reading tables: `python benchmarks/data.py [--rows 100000] [--rounds 3] [--sms FILE.csv]`.

Four tables are printed:

- from a CSV or Parquet file to the first batch, in rows per second, beside pandas and the same preparation by
  scikit-learn. Each contender is a process of its own, and they take turns;
- seconds and peak memory of a table of 1,000,000 rows, and of `inspect` of it;
- training on a table, beside the same data as arrays, in turns within one process;
- with `--sms`: what batches of texts of similar length gain on the SMS Spam Collection.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from large_table import TARGET, make_large_table, prepare_by_sklearn
from measuring import ONE_THREAD, machine, pin, spread, table
from turns import resident

FORMATS = (".csv", ".parquet")
SPEC = {"model": "mlp", "trainer": {"epochs": 4, "batch_size": 128, "device": "cpu", "progress": "none"}}
BUCKET_COMMAND = "model=text_cnn data=table data.path={path} data.target=label trainer.epochs=4 trainer.device=cpu"
Measured = dict[str, float]


def main() -> None:
    arguments = _parse_arguments()
    os.environ.update(ONE_THREAD)
    if arguments.measure:
        print(json.dumps(_measure(CONTENDERS[arguments.measure], Path(arguments.file))))
        return
    where, about = pin(), machine("torch", "pandas", "pyarrow", "scikit-learn")
    print(f"{about}; {where}, one thread; median of {arguments.rounds} rounds (quartiles)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for print_part in (_print_first_batch, _print_large, _print_training, _print_buckets):
            if arguments.only in print_part.__name__:
                print_part(arguments, Path(folder))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the table whose reading is compared")
    parser.add_argument("--large", type=int, default=1_000_000, help="rows of the table whose memory is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sms", help="the SMS Spam Collection as a CSV file with the columns label and text")
    parser.add_argument("--only", default="", help="first_batch, large, training or buckets")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- from a file to the first batch ----------------------------------------------------------------------------------


def _read_by_dlspec(path: Path) -> Any:
    """Open a table with everything inferred, and return the first training batch."""
    import torch

    data = _open_table(path)
    return data.train.tensors["features"][torch.randperm(len(data.train))[:32]]


def _open_table(path: Path) -> Any:
    from dlspec.data.sources.table_source import TableSource

    return TableSource(path=str(path), target=TARGET).open()


def _inspect(path: Path) -> Any:
    import dlspec

    return str(dlspec.inspect(str(path), target=TARGET))


CONTENDERS: dict[str, Callable[[Path], Any]] = {
    "dlspec": _read_by_dlspec,
    "pandas, scikit-learn": prepare_by_sklearn,
    "inspect": _inspect,
}


def _measure(contender: Callable[[Path], Any], path: Path) -> Measured:
    """Measure one call. Another one on a small table comes before, so that all libraries are imported."""
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / f"short{path.suffix}"
        frame = make_large_table(500)
        frame.to_csv(short, index=False) if path.suffix == ".csv" else frame.to_parquet(short)
        contender(short)
    before, seconds, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    contender(path)
    seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "peak": (resident("VmHWM") - before) / 2**20}


def _run(contender: str, path: Path) -> Measured:
    """Measure a contender in a process of its own."""
    command = [sys.executable, __file__, "--measure", contender, "--file", str(path)]
    done = subprocess.run(command, env=_make_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def _make_environment() -> dict[str, str]:
    """Make an environment in which any folder imports the dlspec of this checkout."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _write(rows: int, folder: Path) -> list[Path]:
    """Write the large table in both formats."""
    frame, paths = make_large_table(rows), [folder / f"rows_{rows}{ending}" for ending in FORMATS]
    frame.to_csv(paths[0], index=False)
    frame.to_parquet(paths[1])
    return paths


def _print_first_batch(arguments: argparse.Namespace, folder: Path) -> None:
    lines = []
    for path in _write(arguments.rows, folder):
        rounds = [(_run("dlspec", path), _run("pandas, scikit-learn", path)) for _ in range(arguments.rounds)]
        speeds = [[arguments.rows / pair[which]["seconds"] for pair in rounds] for which in (0, 1)]
        ratios = [[other[key] / ours[key] for ours, other in rounds] for key in ("seconds", "cpu")]
        peaks = [spread([pair[which]["peak"] for pair in rounds]).middle for which in (0, 1)]
        shown = [*(f"{spread(each):,.0f}" for each in speeds), *(f"{spread(each):.2f}" for each in ratios)]
        lines.append([path.suffix, *shown, *(f"{peak:,.0f}" for peak in peaks)])
    print(f"\nFrom a file of {arguments.rows:,} rows and 20 columns to the first batch:\n")
    print(table(["file", "dlspec, rows/s", "pandas and scikit-learn, rows/s", "ratio", "ratio in CPU time",
                 "dlspec, peak MiB", "pandas and scikit-learn, peak MiB"], lines), flush=True)  # fmt: skip


def _print_large(arguments: argparse.Namespace, folder: Path) -> None:
    lines = []
    for path in _write(arguments.large, folder):
        for name in CONTENDERS:
            found = _run(name, path)
            lines.append([f"{path.suffix}, {name}", *(f"{found[key]:,.1f}" for key in ("seconds", "cpu")),
                          f"{found['peak']:,.0f}", f"{path.stat().st_size / 2**20:,.0f}"])  # fmt: skip
    print(f"\n{arguments.large:,} rows and 20 columns, once:\n")
    print(table(["", "seconds", "CPU seconds", "peak MiB", "file, MiB"], lines), flush=True)


# ---- training --------------------------------------------------------------------------------------------------------


def _print_training(arguments: argparse.Namespace, folder: Path) -> None:
    """Train on the table and on its tensors given as arrays, in turn; only the training itself is timed."""
    path = _write(arguments.rows, folder)[0]
    data = _open_table(path)
    arrays = {"features": _join(data, "tensors", "features"), "target": _join(data, "targets", TARGET)}
    times = [_time_both(data, arrays, is_swapped=number % 2 == 1) for number in range(arguments.rounds + 1)][1:]
    ratios = [[other[key] / ours[key] for ours, other in times] for key in (0, 1)]
    print("\nTraining on the table, in times the speed of the same data as arrays:\n")
    seconds = spread([ours[0] for ours, _ in times])
    cells = [f"{spread(ratios[0]):.3f}", f"{spread(ratios[1]):.3f}", f"{seconds:.1f}"]
    print(table(["data", "ratio", "ratio in CPU time", "seconds"], [["table", *cells]]), flush=True)


def _join(data: Any, kind: str, name: str) -> Any:
    import torch

    return torch.cat([getattr(split, kind)[name] for split in (data.train, data.validation, data.test)]).numpy()


def _time_both(data: Any, arrays: Any, *, is_swapped: bool) -> list[tuple[float, float]]:
    """Time the training on both, the second one first if swapped, as what runs first may find the memory otherwise."""
    if is_swapped:
        return _time_both(arrays, data, is_swapped=False)[::-1]
    return [_time_training(data), _time_training(arrays)]


def _time_training(data: Any) -> tuple[float, float]:
    from dlspec.api import make_job, prepare_spec

    job = make_job(prepare_spec(SPEC, data))
    seconds, cpu = time.perf_counter(), time.process_time()
    job.run()
    return time.perf_counter() - seconds, time.process_time() - cpu


# ---- texts of similar length -----------------------------------------------------------------------------------------


def _print_buckets(arguments: argparse.Namespace, folder: Path) -> None:
    if arguments.sms is None:
        print("\nleft out, because --sms is missing: batches of texts of similar length")
        return
    path = Path(arguments.sms).resolve()
    rounds = [[_train_on_texts(path, folder / f"{number}_{words}", words) for words in ("null", "auto")]
              for number in range(arguments.rounds)]  # fmt: skip
    lines = []
    for which, words in enumerate(("null", "auto")):
        found = [each[which] for each in rounds]
        padding = f"{100 * _measure_padding(path, words == 'auto'):.0f} %"
        seconds = f"{spread([each['seconds'] for each in found]):.1f}"
        lines.append([f"data.bucket={words}", seconds, padding, f"{found[0]['accuracy']:.4f}"])
    ratios = [plain["seconds"] / bucketed["seconds"] for plain, bucketed in rounds]
    print(f"\n`{BUCKET_COMMAND.format(path='FILE')}`: {spread(ratios):.2f} times the speed with data.bucket=auto\n")
    print(table(["", "seconds of training", "padding in training", "test/accuracy"], lines), flush=True)


def _train_on_texts(path: Path, folder: Path, bucket: str) -> Measured:
    words = BUCKET_COMMAND.format(path=path).split(" ")
    command = [sys.executable, "-m", "dlspec", *words, f"data.bucket={bucket}", f"hydra.run.dir={folder}"]
    done = subprocess.run(command, cwd=folder.parent, env=_make_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    import dlspec

    (row,) = dlspec.results(folder).rows()
    return {"seconds": row["seconds"], "accuracy": row["test/accuracy"]}


def _measure_padding(path: Path, is_bucketed: bool) -> float:
    """Return the share of padding in the batches of an epoch."""
    import torch

    from dlspec.data.batches.sample_order import sort_into_buckets
    from dlspec.data.sources.table_source import TableSource

    lengths = TableSource(path=str(path), target="label").open().train.tensors["text_lengths"]
    order, sizes = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)), list(_split(len(lengths)))
    order = sort_into_buckets(order, lengths, sizes, 0, 0) if is_bucketed else order
    batches: Sequence[Any] = lengths[order].split(32)
    return 1 - float(lengths.sum()) / sum(int(batch.max()) * len(batch) for batch in batches)


def _split(count: int) -> Iterator[int]:
    yield from [32] * (count // 32)
    if count % 32:
        yield count % 32


if __name__ == "__main__":
    main()
