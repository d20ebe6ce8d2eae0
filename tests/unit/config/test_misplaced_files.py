"""A file with another ending or in another folder is named where its name is not found, with the line that moves it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dlspec.cli.main import run_command
from dlspec.jobs.error_reporting import EXIT_INVALID, EXIT_OK

LAYERS = "layers: [{Linear: 10}]\n"
DATA = "type: digits\n"
TRAINER = "epochs: 2\n"


@pytest.mark.parametrize(
    ("written", "text", "words"),
    [
        ("conf/model/mine.yml", LAYERS, ["model=mine", "data=digits"]),
        ("conf/mine.yaml", LAYERS, ["model=mine", "data=digits"]),
        ("conf/data/mine.yaml", LAYERS, ["model=mine", "data=digits"]),
        ("mine.yaml", LAYERS, ["model=mine", "data=digits"]),
        ("conf/data/mine.yml", DATA, ["model=mlp", "data=mine"]),
        ("conf/my net/mine.yaml", LAYERS, None),
        ("conf/trainer/quick.yml", TRAINER, ["model=mlp", "data=digits", "trainer=quick"]),
        ("conf/optimizer/own.yml", "type: SGD\nlr: 0.1\n", ["model=mlp", "data=digits", "optimizer=own"]),
    ],
)
def test_the_line_that_is_printed_moves_the_file(
    written: str,
    text: str,
    words: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / written
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if words is None:  # in a folder of no group: the names that there are
        assert run_command(["validate", "model=mine", "data=digits"]) == EXIT_INVALID
        assert "available: " in capsys.readouterr().err
        return
    assert run_command(["validate", *words]) == EXIT_INVALID
    line = capsys.readouterr().err.splitlines()[0]
    subprocess.run(line.partition("is read: ")[2], shell=True, check=True, cwd=tmp_path)
    assert run_command(["validate", *words]) == EXIT_OK


def test_a_part_is_not_hidden_by_a_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SGD.yaml").write_text("lr: 0.1\n")
    assert run_command(["validate", "model=mlp", "data=digits", "optimizer=SGD", "optimizer.lr=0.1"]) == EXIT_OK


def test_in_a_defaults_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "conf/model/mine.yml": LAYERS,
        "conf/experiment/e.yaml": "# @package _global_\ndefaults:\n  - override /model: mine\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert run_command(["validate", "experiment=e", "data=digits"]) == EXIT_INVALID
    assert "only conf/model/mine.yaml is read: mv conf/model/mine.yml conf/model/mine.yaml" in capsys.readouterr().err
