"""`report run=FOLDER`: the page of a trained run with its network, and of runs whose network can't be built."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import QUICK, CommandResult, make_environment
from helpers.run_folders import SPEC, write_run


def read_data(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text())
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_page_of_a_trained_run(dlspec, work: Path) -> None:
    assert dlspec("model=cnn", *QUICK, "hydra.run.dir=run").code == 0
    before = {path.name: path.read_bytes() for path in (work / "run").iterdir() if path.is_file()}
    said: CommandResult = dlspec("report", "run=run", "evaluate=false")
    assert (said.code, said.out, said.err) == (0, "run/run.html\n", "")
    assert {path.name: path.read_bytes() for path in (work / "run").iterdir() if path.is_file()} == before | {
        "run.html": (work / "run/run.html").read_bytes()
    }
    data = read_data(work / "run/run.html")
    assert data["evaluation"] is None and data["headlines"][0]["name"] == "test/accuracy"
    network = data["network"]
    summary = dlspec("summary", "run=run").out
    rows = [each for each in network["layers"] if each["parameters"]]
    assert rows and all(f"{each['parameters']:,}" in summary for each in rows)
    assert network["totals"] == summary.splitlines()[-len(network["totals"]) :]
    titles = [each["title"] for each in network["boxes"]]
    assert titles == ["image", "Conv2d", "Flatten", "Linear", "output"]
    assert [(each["source"], each["target"]) for each in network["arrows"]] == [
        ("<input >", "0"), ("0", "2"), ("2", "3"), ("3", "<output output>"),
    ]  # fmt: skip
    assert dlspec("report", "run=latest").code == 2  # there is no run below runs/


def test_a_run_is_evaluated_once(dlspec, work: Path) -> None:
    """The page shows what `evaluate` finds; and the network also if the data are gone."""
    lines = [f"{at % 7},{at % 3},{'yes' if at % 7 > 3 else 'no'}\n" for at in range(60)]
    (work / "rows.csv").write_text("".join(["a,b,target\n", *lines]))
    words = ("data=table", "data.path=rows.csv", "data.target=target", "data.columns={a: number, b: number}")
    assert dlspec("model=linear", *words, *QUICK, "hydra.run.dir=run").code == 0
    said = dlspec("report", "run=run")
    assert (said.code, said.out, said.err) == (0, "run/run.html\n", "evaluating the test split ...\n")
    (written,) = (work / "run/evaluations").glob("*.json")
    found, metrics = read_data(work / "run/run.html"), json.loads(written.read_text())["metrics"]
    assert found["evaluation"]["file"] == written.name
    assert {each["name"]: each["value"] for each in found["headlines"]} == {
        name: pytest.approx(each["value"]) for name, each in metrics.items()
    }
    tested = json.loads((work / "run/result.json").read_text())["test"]
    assert metrics["accuracy"]["value"] == pytest.approx(tested["test/accuracy"])
    (work / "rows.csv").rename(work / "moved.csv")
    said = dlspec("report", "run=run")
    assert (said.code, said.err, list((work / "run/evaluations").glob("*.json"))) == (0, "", [written])
    written.unlink()
    said = dlspec("report", "run=run")
    assert said.code == 0 and said.err.startswith("the run could not be evaluated: ") and "rows.csv" in said.err
    assert read_data(work / "run/run.html")["network"]["problem"] == ""
    assert dlspec("report", "run=run", "data.path=moved.csv").err == "evaluating the test split ...\n"
    said = dlspec("report", "run=run", "data.path=moved.csv")
    assert said.err.endswith("to evaluate it again: python -m dlspec evaluate run=run split=test data.path=moved.csv\n")


SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "imports": ({**SPEC, "imports": ["my_layers"]}, "this spec runs code from my_layers"),
    "unknown layer": ({**SPEC, "model": {"layers": ["Linera"]}}, "unknown layer 'Linera'"),
    "missing data": ({**SPEC, "data": {"type": "text_csv", "path": "gone.csv"}}, "gone.csv"),
    "no spec": ({"a": 1}, ""),
}


@pytest.mark.parametrize("case", SPECS)
def test_without_its_network_the_rest_is_shown(case: str, dlspec, work: Path) -> None:
    spec, reason = SPECS[case]
    write_run(work / "run", spec)
    said = dlspec("report", "run=run")
    assert (said.code, said.out) == (0, "run/run.html\n")
    evaluated, built = said.err.splitlines()
    assert evaluated.startswith("the run could not be evaluated: ")
    assert built.startswith("the page does not show the network: ")
    data = read_data(work / "run/run.html")
    assert reason in data["network"]["problem"] and data["headlines"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run=nowhere"], "no run in 'nowhere'; name a run's folder, run=FOLDER, or run=latest"),
        (["run="], "no run in ''; name a run's folder"),
        (["run=empty"], "no run in 'empty'; give a run's folder, which contains spec.yaml"),
        (["run=run", "optimizer.lr=1"], "report has no 'optimizer.lr'; available: device, evaluate, imports, run"),
        (["run=run", "evaluate=1"], "evaluate must be true or false, got '1'"),
        (["run=run", "--output", "x"], "report takes words such as run=FOLDER, got '--output'"),
    ],
)
def test_wrong_arguments(words: list[str], says: str, dlspec, work: Path) -> None:
    write_run(work / "run")
    (work / "empty").mkdir()
    said = dlspec("report", *words)
    assert (said.code, said.out) == (2, "") and said.err.startswith(says), said.err
    assert not list(work.rglob("run.html"))


def test_without_torch(work: Path) -> None:
    """Everything but the network is read from files."""
    write_run(work / "run")
    run = "from dlspec.cli.commands.report import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {run}", "run=run"]
    said = subprocess.run(command, capture_output=True, text=True, env=make_environment(), cwd=work, check=False)
    assert said.returncode == 0, said.stderr
    assert "the page does not show the network: ModuleNotFoundError" in said.stderr
    assert (work / "run/run.html").is_file()


def test_links_are_not_written_through(dlspec, work: Path) -> None:
    write_run(work / "run")
    (work / "mine").write_text("mine")
    (work / "run/run.html").symlink_to(work / "mine")
    assert dlspec("report", "run=run").code == 2
    (work / "run/run.html").unlink()
    (work / "run/run.html").symlink_to("new")
    assert dlspec("report", "run=run").code == 0
    assert (work / "mine").read_text() == "mine" and not (work / "run/new").exists()
