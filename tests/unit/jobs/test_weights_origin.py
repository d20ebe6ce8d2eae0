"""Weights of a run on other classes or words fit in shape, but their outputs would mean something else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dlspec.cli.main import run_command
from helpers.command_line import QUICK

CLASSES = "layers: [{Linear: {out_features: 4, name: body}}, {Linear: {out_features: 3, name: head}}]"
WORDS = "layers: [{Embedding: {embedding_dim: 4, name: words}}, Mean, {Linear: {out_features: 1, name: head}}]"
COLUMNS = {"m": [], "t": ["data.columns={text: text}"]}


def write_table(name: str, rows: list[str]) -> str:
    Path(name).write_text("\n".join(rows) + "\n")
    return f"data.path={name}"


def write_classes(name: str, classes: str) -> str:
    rows = [f"{at * 0.37:.2f},{at * at % 7 + 0.5},{classes[at % 3]}" for at in range(60)]
    return write_table(name, ["a,b,kind", *rows])


def write_texts(name: str, words: list[str]) -> str:
    rows = [f'"{words[at % 5]} {words[(at * 2 + 1) % 5]} {words[at * 3 % 5]} it is so {at % 3}",{"yn"[at % 2]}'
            for at in range(60)]  # fmt: skip
    return write_table(name, ["text,label", *rows])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on letters and on texts, once for all tests."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("conf/model").mkdir(parents=True)
        Path("conf/model/m.yaml").write_text(CLASSES)
        Path("conf/model/t.yaml").write_text(WORDS)
        for model, path, target in (
            ("m", write_classes("abc.csv", "abc"), "kind"),
            ("t", write_texts("plain.csv", ["red", "green", "blue", "black", "white"]), "label"),
        ):
            words = [f"model={model}", "data=table", path, f"data.target={target}", *COLUMNS[model], *QUICK]
            words.append(f"hydra.run.dir={model}")
            assert run_command(words) == 0
        write_classes("xyz.csv", "xyz")
        write_classes("turned.csv", "abc")
        write_texts("other.csv", ["one", "two", "three", "four", "five"])
    return folder


@pytest.mark.parametrize(
    ("model", "data", "found", "fixed"),
    [
        ("m", ["data.path=xyz.csv", "data.target=kind"],
         "has other classes of 'kind', or another order: a, b, c there, x, y, z here", "'weights.fresh=[\"head.*\"]'"),
        ("m", ["data.path=abc.csv", "data.target={kind: {class: {classes: [c, b, a]}}}"],
         "or another order: a, b, c there, c, b, a here", "'weights.fresh=[\"head.*\"]'"),
        ("t", ["data.path=other.csv", "data.target=label"],
         "has another vocabulary of 'text'", "'weights.fresh=[\"words.*\"]'"),
        ("t", ["data.path=other.csv", "data.target=label"],
         "has another vocabulary of 'text'", "data.prepare=t"),
    ],
)  # fmt: skip
def test_other_classes_and_words_are_refused(
    runs: Path, model: str, data: list[str], found: str, fixed: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(runs)
    words = ["summary", f"model={model}", "data=table", f"weights.path={model}", *data]
    words += COLUMNS[model] if "prepare" not in fixed else []
    assert run_command([*words, *(COLUMNS[model] if "prepare" in fixed else [])]) == 2
    said = capsys.readouterr().err
    assert found in said and fixed in said
    assert run_command([*words, *shlex.split(fixed)]) == 0


def test_the_same_classes_are_accepted(runs: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(runs)
    same = ["summary", "model=m", "data=table", "data.path=turned.csv", "data.target=kind", "weights.path=m"]
    assert run_command(same) == 0
