"""Runs compared: what differs, seeds, ranks, the leaderboard, the commands; and folders that strangers filled."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlspec import results
from dlspec.errors import UserError
from dlspec.report import write_sweep_report
from dlspec.report.records import RunRecord, read_curves, read_records
from dlspec.report.run_table import RunTable
from dlspec.report.spec_differences import ABSENT, SettingColumns, find_differences
from helpers.command_line import QUICK, make_environment
from helpers.run_folders import SPEC, change_spec, write_run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_compared(dlspec, work: Path) -> None:
    words = ["model=mlp,linear", "optimizer.lr=1e-3,1e-2", "seed=0,1", "hydra.sweep.dir=sweep", *QUICK]
    assert dlspec("-m", *words, "trainer.checkpoints=false").code == 0
    said = dlspec("report", "sweep")
    assert (said.code, said.err) == (0, "")
    head, *table = said.out.splitlines()
    assert head.split() == "model optimizer.lr val/loss test/loss test/accuracy val/accuracy runs".split()
    assert [line.split()[-1] for line in table[:4]] == ["2"] * 4
    assert table[4:] == [
        "8 runs: 8 finished",
        f"to run the best again: {results('sweep').best.rerun}",
        "sweep/leaderboard.csv",
        "sweep/report.html",
    ]
    lines = rows(work / "sweep/leaderboard.csv")
    assert [line["rank"] for line in lines] == ["1", "2", "3", "4"]
    assert {(line["model"], line["optimizer.lr"]) for line in lines} == {
        ("mlp", "0.001"), ("mlp", "0.01"), ("linear", "0.001"), ("linear", "0.01"),
    }  # fmt: skip
    for line in lines:
        losses = [
            json.loads((work / "sweep" / job / "result.json").read_text())["monitored"] for job in line["runs"].split()
        ]
        mean = sum(losses) / 2
        assert float(line["val/loss"]) == pytest.approx(mean)
        assert float(line["val/loss deviation"]) == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    assert [float(line["val/loss"]) for line in lines] == sorted(float(line["val/loss"]) for line in lines)
    best = results("sweep").best
    assert best is not None and best.name in lines[0]["runs"].split()
    assert dlspec(*best.rerun.split()[3:], "hydra.run.dir=again").code == 0
    first, again = (json.loads((path / "result.json").read_text()) for path in (best.folder, work / "again"))
    assert first["test"] == again["test"]


def test_results_in_python(work: Path) -> None:
    for seed in (0, 1, 2):
        write_run(work / f"sweep/{seed}", change_spec(seed=seed), [seed + 1.0])
    write_run(
        work / "sweep/10", change_spec(seed=0, optimizer={"lr": 0.5}), [0.5], status="failed", error="loss became nan"
    )
    found = results(work / "sweep")
    assert repr(found) == "Results(4 runs: 3 finished, 1 failed)"
    frame = found.frame()
    assert list(frame.columns) == (
        "run status optimizer.lr seed val/loss test/accuracy parameters steps seconds error".split()
    )
    assert list(frame["run"]) == ["0", "1", "2", "10"]
    assert frame[frame.status == "finished"]["val/loss"].mean() == 2.0
    settings = found.settings()
    assert settings[0] == {
        "optimizer.lr": 0.01, "val/loss": 2.0, "test/accuracy": 0.5, "val/loss deviation": 1.0,
        "test/accuracy deviation": 0.25, "finished": 3, "failed": 0, "runs": ["0", "1", "2"],
    }  # fmt: skip
    assert (settings[1]["val/loss"], settings[1]["failed"], settings[1]["runs"]) == (None, 1, ["10"])
    assert found.best is not None and found.best.name == "0"
    with pytest.raises(UserError, match="no folder 'nowhere'; give the folder of a sweep or of runs"):
        results("nowhere")


def record(spec: dict[str, Any], *overrides: str) -> RunRecord:
    return RunRecord("0", "finished", spec=spec, overrides=overrides)


MLP: dict[str, Any] = {"model": {"params": {"width": 64}, "layers": ["Flatten", {"Linear": "$width"}, {"Linear": 10}]}}


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        ([record(SPEC), record(SPEC)], {}),
        ([record(SPEC), record(change_spec(seed=1))], {"seed": [0, 1]}),
        ([record(SPEC), record(change_spec(trainer={"progress": "bar"}))], {}),
        ([record(SPEC), record(change_spec(optimizer={"betas": [0.5, 0.9]}))],
         {"optimizer.betas": ["[0.9, 0.999]", "[0.5, 0.9]"]}),
        # A part of another kind is a choice; what only one of them has is none of the differences.
        ([record(SPEC), record(change_spec(optimizer={"type": "AdamW", "fused": True}))],
         {"optimizer": ["Adam", "AdamW"]}),
        ([record(SPEC), record(change_spec(scheduler={"type": "StepLR"}))], {"scheduler": ["null", "StepLR"]}),
        # The command line's names stand for a group; within one choice its settings differ.
        (
            [record(SPEC, "model=linear"), record({**SPEC, **MLP}, "model=mlp"),
             record({**SPEC, "model": {**MLP["model"], "params": {"width": 9}}}, "model=mlp")],
            {"model": ["linear", "mlp", "mlp"], "model.params.width": ["", 64, 9]},
        ),
        # What the command line named is seen across choices, too.
        ([record(SPEC), record(change_spec(optimizer={"type": "SGD", "lr": 0.1}), "optimizer=SGD", "optimizer.lr=0.1")],
         {"optimizer": ["Adam", "SGD"], "optimizer.lr": [0.01, 0.1]}),
        ([record({**SPEC, "metrics": {"Accuracy": {}}}), record({**SPEC, "metrics": {"F1Score": {}}})], {}),
        # Layers by their places where the lists are of one length, else as a whole.
        ([record(SPEC), record(change_spec(model={"layers": ["Flatten", {"Linear": 12}]}))],
         {"model.layers.1.Linear": [10, 12]}),
        ([record(SPEC), record(change_spec(model={"layers": ["Flatten", {"Conv2d": 12}]}))],
         {"model.layers.1": ["{Linear: 10}", "{Conv2d: 12}"]}),
        ([record(SPEC), record({**SPEC, **MLP})],
         {"model.layers": ["[Flatten, {Linear: 10}]", "[Flatten, {Linear: $width}, {Linear: 10}]"]}),
        ([record({"seed": 1}), record({"seed": True})], {"seed": [1, True]}),
    ],
)  # fmt: skip
def test_columns(records: list[RunRecord], wanted: dict[str, list[Any]]) -> None:
    columns = SettingColumns(records)
    values = [columns.values(each) for each in records]
    assert {name: [row[at] for row in values] for at, name in enumerate(columns.names)} == wanted


def test_every_difference_is_told() -> None:
    before, after = change_spec(optimizer={"fused": True}), {**SPEC, **MLP, "scheduler": {"type": "StepLR"}}
    assert list(find_differences(before, after)) == [
        (("model", "layers", 1), ABSENT, {"Linear": "$width"}),
        (("model", "params"), ABSENT, {"width": 64}),
        (("optimizer", "fused"), True, ABSENT),
        (("scheduler",), None, {"type": "StepLR"}),
    ]
    assert list(find_differences(SPEC, SPEC)) == []


def test_a_better_result_may_be_a_larger_one(work: Path) -> None:
    for number, value in enumerate((0.5, 0.9, 0.7)):
        write_run(work / str(number), change_spec(optimizer={"lr": float(number)}), monitor="val/f1", mode="max",
                  monitored=value, best={"val/f1": value}, test={})  # fmt: skip
    table = RunTable(read_records([work]))
    assert [setting.values for setting in table.settings] == [(1.0,), (2.0,), (0.0,)]
    assert (table.best, table.results) == (1, ("val/f1",))


def test_a_sweep_tells_of_jobs_without_folders(work: Path) -> None:
    write_run(work / "sweep/a=1", change_spec(seed=4))
    write_run(work / "sweep/b", change_spec(seed=5), status="failed", error="")
    jobs = [
        {"number": 0, "folder": "a=1", "overrides": ["seed=4"], "status": "finished", "error": ""},
        {"number": 1, "folder": None, "overrides": ["seed=x"], "status": "refused", "error": "seed is 'x'"},
        {
            "number": 2,
            "folder": str(work / "elsewhere/b"),
            "overrides": ["seed=5"],
            "status": "failed",
            "error": "killed",
        },
        {"number": 3, "folder": "../../etc", "overrides": 5, "status": None, "error": {}},
        7,
    ]
    (work / "sweep/sweep.json").write_text(json.dumps({"jobs": jobs}))
    found = {each.name: each for each in read_records([work / "sweep"])}
    assert {name: (each.status, each.error, each.overrides) for name, each in found.items()} == {
        "a=1": ("finished", "", ("seed=4",)),
        "1": ("refused", "seed is 'x'", ("seed=x",)),
        "b": ("failed", "killed", ("seed=5",)),
        "3": ("waiting", "", ()),
    }


def test_a_killed_job_has_its_sweeps_word_for_it(work: Path) -> None:
    write_run(work / "sweep/0", change_spec(seed=1))
    killed = write_run(work / "sweep/1")
    (killed / "result.json").unlink()
    (killed / "status.json").write_text('{"status": "running"}')
    job = {
        "number": 1,
        "folder": "1",
        "overrides": [],
        "status": "failed",
        "error": "killed by signal 9: out of memory?",
    }
    (work / "sweep/sweep.json").write_text(json.dumps({"jobs": [job]}))
    table = RunTable(read_records([work / "sweep"]))
    assert [(each.status, each.error) for each in table.records] == [("finished", ""), ("killed", job["error"])]
    assert [(each.finished, each.failed, each.runs) for each in table.settings] == [(1, 1, (0, 1))]


def test_data_sets_are_not_compared_without_a_word(dlspec, work: Path) -> None:
    write_run(work / "0", {**SPEC, "data": {"type": "digits"}})
    write_run(work / "1", {**SPEC, "data": {"type": "mnist"}})
    lines = dlspec("report", ".").out.splitlines()
    assert "the runs use different data: compare only results on the same data" in lines
    assert RunTable(read_records([work])).setting_keys == ("data",)


def test_a_sweeps_report_is_not_written_for_every_job(work: Path) -> None:
    folder = work / "sweep"
    write_run(folder / "0")
    jobs = [{"number": 0, "folder": "0", "status": "finished"}, {"number": 1, "folder": "1", "status": "running"}]
    board = folder / "leaderboard.csv"
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    write_sweep_report(folder)
    assert len(rows(board)) == 1
    write_run(folder / "1", change_spec(optimizer={"lr": 0.1}))
    write_sweep_report(folder)
    assert len(rows(board)) == 1
    write_sweep_report(folder, is_last=True)
    assert len(rows(board)) == 2
    board.write_text("rank,\n")
    write_sweep_report(folder)
    assert rows(board) == []
    os.utime(folder / "report.html", (1e9, 1e9))
    write_sweep_report(folder)
    assert len(rows(board)) == 2
    write_run(folder / "2", change_spec(optimizer={"lr": 0.2}))
    (folder / "sweep.json").write_text(json.dumps({"jobs": [{**job, "status": "finished"} for job in jobs]}))
    write_sweep_report(folder)  # the last one
    assert len(rows(board)) == 3


def test_cells_are_no_formulas(work: Path) -> None:
    spec = {**SPEC, "=HYPERLINK(1)": 1, "@x": "a"}
    for number, text in enumerate(("=1+1", "+1", "-1", " @SUM(A1)", "\t=1", 'a","=b', "|x", "%0")):
        write_run(work / str(number), {**spec, "=HYPERLINK(1)": number, "@x": text}, [-1.0])
    assert RunTable(read_records([work])).keys == ("=HYPERLINK(1)", "@x")
    write_sweep_report(work)
    found = rows(work / "leaderboard.csv")
    assert list(found[0])[1:4] == ["'=HYPERLINK(1)", "'@x", "val/loss"]
    assert {line["'@x"] for line in found} == {"'=1+1", "'+1", "'-1", "' @SUM(A1)", "'\t=1", 'a","=b', "'|x", "'%0"}
    assert {line["val/loss"] for line in found} == {"-1.0"}


@pytest.mark.parametrize(
    "start", ["\uff1d", "\uff0b", "\uff0d", "\uff20", "\u200b=", "\ufeff+", "\u2212", "\uff5c", " \uff1d"]
)
def test_other_forms_of_a_formulas_first_character(start: str, work: Path) -> None:
    for number, value in enumerate((f"{start}HYPERLINK(1)", "plain")):
        write_run(work / str(number), {**SPEC, "x": value})
    write_sweep_report(work)
    lines = rows(work / "leaderboard.csv")
    assert {line["x"] for line in lines} == {f"'{start}HYPERLINK(1)", "plain"}


def test_compare(dlspec, work: Path) -> None:
    write_run(work / "a")
    write_run(work / "b", change_spec(optimizer={"lr": 0.5}, seed=1), [0.5], steps=25)
    (work / "a/environment.json").write_text(
        '{"seed": 0, "threads": 1, "packages": {"torch": "2.13.0"}, "command": ["x"]}'
    )
    (work / "b/environment.json").write_text(
        '{"seed": 1, "threads": 2, "packages": {"torch": "2.14.0"}, "command": ["y"]}'
    )
    said = dlspec("compare", "a", "b")
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "spec          a     b\n"
        "optimizer.lr  0.01  0.5\n"
        "seed          0     1\n"
        "\n"
        "environment     a       b\n"
        "threads         1       2\n"
        "packages.torch  2.13.0  2.14.0\n"
        "\n"
        "result         a     b      change\n"
        "val/loss       1     0.5    -0.5\n"
        "test/accuracy  0.75  0.875  +0.125\n"
        "steps          20    25     +5\n"
    )
    assert (
        dlspec("compare", "a", "a").out
        == "spec: no difference\n\nenvironment: no difference\n\nresult: no difference\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("report nowhere", "no folder 'nowhere'; write python -m dlspec report [--output FOLDER] [FOLDER ...]"),
        ("report", "no folder 'runs'; write python -m dlspec report [--output FOLDER] [FOLDER ...]"),
        ("report empty", "no runs in 'empty'; write python -m dlspec report [--output FOLDER] [FOLDER ...]"),
        (
            "report run --outs=x",
            "unknown flag '--outs=x'; write python -m dlspec report [--output FOLDER] [FOLDER ...]",
        ),
        ("report run", "'run/leaderboard.csv' exists and is not a report of dlspec; move it, or choose another folder"),
        ("report run -o file", "can't create the folder 'file'"),
        ("compare run", "got 1 run, expected two; write python -m dlspec compare FOLDER FOLDER"),
        ("compare run nowhere", "no folder 'nowhere'; write python -m dlspec compare FOLDER FOLDER"),
        ("compare run empty", "no run in 'empty'; give a run's folder, which contains spec.yaml"),
    ],
)
def test_refused(dlspec, work: Path, words: str, text: str) -> None:
    write_run(work / "run")
    (work / "run/leaderboard.csv").write_text("mine,own\n")
    (work / "empty").mkdir()
    (work / "file").write_text("")
    said = dlspec(*words.split())
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(text)
    assert (work / "run/leaderboard.csv").read_text() == "mine,own\n"


def test_many_folders_have_a_report_where_it_is_asked_for(dlspec, work: Path) -> None:
    write_run(work / "x/0")
    write_run(work / "y/0", change_spec(seed=1))
    assert dlspec("report", "x", "y").code == 0
    assert (work / "leaderboard.csv").exists()
    assert dlspec("report", "x", "y", "--output", "deep/out").code == 0
    assert len(rows(work / "deep/out/leaderboard.csv")) == 1


@pytest.mark.parametrize("command", [["report", "."], ["compare", "a", "b"]], ids=" ".join)
def test_nothing_heavy_is_imported(work: Path, command: list[str]) -> None:
    write_run(work / "a")
    write_run(work / "b")
    program = (
        "import sys; from dlspec.cli.main import run_command; code = run_command(sys.argv[1:]);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich', 'pandas'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        env=make_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")


STRANGE = {
    "spec.yaml": ["", "[]", "a: &a [*a]", "{1: 2, [x]: 3}", "x: !!python/object:os.system {}", "\0", "- " * 5000,
                  "model: 5\noptimizer: [1, {2: 3}]\nseed: {type: [7]}\nscheduler: {type: {}}\n2026-01-01: 1e999\n"],
    "result.json": ["{}", "[]", "5", '{"best": 5, "test": [], "monitored": "x", "mode": [], "timing": 3, "error": {}}',
                    '{"status": "finished", "best": {"val/loss": NaN, "a": 1e400, "b": 1e308, "c": true, "d": 1e99}}',
                    "[" * 100_000],
    "metrics.jsonl": ["5\n", "{}\n[]\n", '{"val/loss": "x"}\n{"epoch": 1e400}\n', "[" * 100_000],
    "timing.jsonl": ["5\n", '{"seconds": "x"}\n'],
    ".hydra/overrides.yaml": ["5", "{}", "- [x]\n- model\n- ''\n- model={a: 1}", "\xff"],
    "sweep.json": ["5", '{"jobs": 5}',
                   '{"jobs": [5, {}, {"number": {}, "folder": "\\u0000", "status": 5, "error": 6}]}',
                   "[" * 100_000],
    "status.json": ["5", '{"status": 5}'],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in STRANGE.items() for text in texts])
def test_strange_files_end_no_report(work: Path, name: str, text: str) -> None:
    write_run(work / "0")
    strange = write_run(work / "1", change_spec(seed=1))
    path = work / name if name == "sweep.json" else strange / name
    path.write_text(text, encoding="latin-1")
    table = RunTable(read_records([work]))
    assert "0" in [each.name for each in table.records]
    read_curves(strange)
    write_sweep_report(work)
    assert rows(work / "leaderboard.csv")


def test_files_that_are_none_end_no_report(work: Path) -> None:
    write_run(work / "0")
    strange = write_run(work / "1")
    for name in ("spec.yaml", "result.json", "metrics.jsonl"):
        (strange / name).unlink()
    os.mkfifo(strange / "spec.yaml")  # would wait for a writer
    os.mkfifo(strange / "result.json")
    (strange / "metrics.jsonl").symlink_to("/dev/zero")
    assert read_curves(strange) == []
    assert [each.name for each in read_records([work])] == ["0", "1"]
