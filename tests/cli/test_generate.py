"""The command `generate`: what it prints, where, and what it refuses."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlspec.inference.predictor import predictor
from helpers.churn_table import format_csv, make_rows, train_churn_run
from helpers.command_line import QUIET, CommandResult, run_in_this_process

Command = Callable[..., CommandResult]
SMALL = [
    "model.params.width=16",
    "model.params.depth=1",
    "model.params.heads=2",
    "data.length=16",
    "trainer.max_steps=1",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 30, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = ["data=text", "data.path=text.txt"]
        assert (
            run_in_this_process(
                "model=gpt_small", *data, *SMALL, *QUIET, "trainer.max_steps=1", "hydra.run.dir=run"
            ).code
            == 0
        )
    yield folder / "run"


def test_the_text_is_printed_after_the_prompt(run: Path, dlspec: Command) -> None:
    said = dlspec("generate", f"run={run}", "prompt=the quick ", "max_length=12", "seed=3")
    text = predictor(run).generate("the quick ", max_length=12, seed=3)
    assert (said.code, said.out) == (0, f"the quick {text}\n") and isinstance(text, str) and len(text) == 12
    assert said.err == ""
    again = dlspec("generate", f"run={run}", "prompt=the quick ", "max_length=12", "seed=3")
    other = dlspec("generate", f"run={run}", "prompt=the quick ", "max_length=12", "seed=4")
    assert again.out == said.out != other.out


def test_the_prompt_may_come_from_standard_input(run: Path, dlspec: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the lazy"))
    said = dlspec("generate", f"run={run}", "prompt=-", "max_length=2", "temperature=0")
    assert said.code == 0 and said.out.startswith("the lazy")


def test_the_text_ends_before_a_stop(run: Path, dlspec: Command) -> None:
    whole = dlspec("generate", f"run={run}", "prompt=the", "max_length=40").out[3:-1]
    stop = whole[20:23]
    cut = dlspec("generate", f"run={run}", "prompt=the", "max_length=40", f"stop={stop}").out[3:-1]
    assert cut == whole[: whole.index(stop)]


def test_a_window_that_is_computed_again_is_said(run: Path, dlspec: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dlspec("generate", f"run={run}", "prompt=the", "max_length=20")
    monkeypatch.setattr("dlspec.generation.stepwise_network.find_step", lambda *arguments: "has no rule")
    whole = dlspec("generate", f"run={run}", "prompt=the", "max_length=20")
    assert (whole.code, whole.out) == (0, kept.out)
    assert whole.err.startswith("each token computes the window again, as layer '")
    assert whole.err.endswith("has no rule\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run={run}"], "no prompt is given"),
        (["prompt=the"], "no run given"),
        (
            ["run={run}", "prompt="],
            "the prompt is empty, and the network needs a first token; write for example prompt=a",
        ),
        (["run={run}", "prompt=THE"], "'T' is not one of the"),
        (["run={run}", "prompt=the", "top_k=0"], "top_k must be a whole number of at least 1, got 0"),
        (["run={run}", "prompt=the", "temperature=hot"], "temperature must be a number, got 'hot'"),
        (["run={run}", "prompt=the", "data.length=3"], "data.length has no effect on a prompt"),
        (["run={run}", "prompt=the", "tempreature=1"], "did you mean 'temperature'"),
    ],
)
def test_wrong_words_are_answered(run: Path, dlspec: Command, words: list[str], message: str) -> None:
    said = dlspec("generate", *(each.replace("{run}", str(run)) for each in words))
    assert (said.code, said.out) == (2, "") and message in said.err


def test_a_run_without_tokens_is_refused(dlspec: Command, work: Path) -> None:
    churn = train_churn_run(work)
    said = dlspec("generate", f"run={churn}", "prompt=the")
    assert said.code == 2 and "predicts churned, not one token after another" in said.err
    Path("new.csv").write_text(format_csv(make_rows(3)), encoding="utf-8")
    said = dlspec("predict", f"run={churn}", "input=new.csv", "output=out.csv", "beams=2")
    assert said.code == 2 and "the run writes no text" in said.err and not Path("out.csv").exists()
