"""The program as a user calls it: exit codes, help, Hydra's flags, the run folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from dlspec.cli.command_names import PLANNED_COMMANDS
from dlspec.formatting import COMMANDS
from dlspec.jobs import spec_keys
from helpers.command_line import (
    IN_BACKGROUND,
    MAX_WAIT_SECONDS,
    QUICK,
    make_environment,
    run_in_this_process,
    wait_until,
)
from helpers.sweep_crashes import fork_group, wait_for_group

MLP = ["model=mlp", "hydra.run.dir=made", *QUICK]
ENTRY = [sys.executable, "-m", "dlspec"]


def test_a_run_and_its_folder(dlspec, work: Path) -> None:
    more = ["trainer.tensorboard=true", "trainer.curves=true", "trainer.pictures=true", "trainer.max_steps=4"]
    said = dlspec(*MLP, 'model.params.width="$(4 * 2)"', *more)
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("made\n")
    names = {path.name.split(".out.")[0] for path in (work / "made").iterdir()}
    assert names == set(
        ".hydra checkpoints curves.png environment.json events lock log.txt metrics.jsonl prepare.json result.json "
        "spec.yaml status.json timing.jsonl".split()
    )
    assert {path.name for path in (work / "made/.hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    spec = yaml.safe_load((work / "made/spec.yaml").read_text())
    assert set(spec) == set(spec_keys.TOP_LEVEL_KEYS) - {"imports", "init", "freeze", "sweep", "weights"}
    assert spec["model"]["params"]["width"] == "$(4 * 2)"
    assert spec["model"]["layers"][-1] == {"Linear": 10}
    assert spec["optimizer"]["betas"] == [0.9, 0.999]
    assert spec["loss"]["type"] == "CrossEntropyLoss"
    assert "ignore_index" in spec["metrics"]["Accuracy"]
    assert json.loads((work / "made/result.json").read_text())["status"] == "finished"


def test_a_run_again(dlspec, work: Path) -> None:
    assert dlspec(*MLP).code == 0
    assert dlspec("run=made", "hydra.run.dir=again").code == 0
    assert (work / "made/metrics.jsonl").read_bytes() == (work / "again/metrics.jsonl").read_bytes()
    made, again = (yaml.safe_load((work / name / "spec.yaml").read_text()) for name in ("made", "again"))
    assert made == again
    assert dlspec("run=made", "model.params.width=9", "optimizer=SGD", "hydra.run.dir=other").code == 0
    spec = yaml.safe_load((work / "other/spec.yaml").read_text())
    assert (spec["model"]["params"]["width"], spec["optimizer"]["type"]) == (9, "SGD")
    assert "made_again" in dlspec("run=made").out
    said = dlspec("run=made", "optimizer.lrr=3")
    assert said.err.startswith("command line   optimizer.lrr (Adam)   unknown setting 'lrr'   did you mean 'lr'?")
    assert "run and experiment together" in dlspec("run=made", "experiment=article_mnist").err


OWN_PARTS = """
import torch
import dlspec
from torch import nn

@dlspec.layer
class OwnScale(nn.Module):
    def __init__(self, in_features: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((in_features,), start))
    def forward(self, x):
        return x * self.weight

@dlspec.loss
class OwnLoss(nn.CrossEntropyLoss): pass

@dlspec.optimizer
class OwnSGD(torch.optim.SGD): pass

@dlspec.scheduler
class OwnStep(torch.optim.lr_scheduler.StepLR): pass

"""


def test_own_parts_and_the_imports_of_a_saved_spec(dlspec, write, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("own_parts_for_test.py", OWN_PARTS)
    parts = ["model={layers: [Flatten, {OwnScale: {start: 2.0}}, {Linear: 10}]}", "optimizer=OwnSGD", "loss=OwnLoss",
             "scheduler=OwnStep", "scheduler.step_size=1"]  # fmt: skip
    said = dlspec("imports=[own_parts_for_test]", *parts, "hydra.run.dir=made", *QUICK)
    note = "OwnLoss returns one number for each batch: it counts as the mean over the batch's samples\n"
    assert (said.code, said.err) == (0, note)
    monkeypatch.delitem(sys.modules, "own_parts_for_test")  # as in a process of its own
    said = dlspec("run=made")
    assert said.code == 2
    assert said.err == (
        "made/spec.yaml   imports   this spec runs code from own_parts_for_test   "
        "if you trust them, add 'imports=[own_parts_for_test]'\n1 problem; nothing was run.\n"
    )
    assert dlspec("run=made", "imports=[own_parts_for_test]", "hydra.run.dir=again").code == 0
    assert (work / "made/metrics.jsonl").read_bytes() == (work / "again/metrics.jsonl").read_bytes()


def test_a_training_that_fails(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "optimizer=SGD", "optimizer.lr=1e30", "trainer.max_steps=9", "trainer.limit_batches=9")
    assert said.code == 1
    assert said.err.startswith("train/loss became nan in epoch 1 at step ")
    assert json.loads((work / "made/result.json").read_text())["status"] == "failed"
    assert "the run failed" in (work / "made/log.txt").read_text()


def test_a_folder_that_can_not_be_made(dlspec, write) -> None:
    write("runs", "a file where the folder would be")
    said = dlspec("model=mlp", *QUICK)
    assert said.code == 2
    assert said.err.startswith("can't create a folder in 'runs/")
    assert said.err.endswith(
        "Not a directory; choose another folder: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER\n"
    )


@pytest.mark.parametrize("command", [*PLANNED_COMMANDS, "trian", "nothing"])
def test_commands_that_are_not_there(dlspec, work: Path, command: str) -> None:
    said = dlspec(command, "run=x")
    expected = {"trian": "is not a command; did you mean 'train'?",
                "nothing": f"is not a command; available: {', '.join(sorted(COMMANDS))}"}  # fmt: skip
    assert said.code == 2
    assert said.err.splitlines()[0] == f"'{command}' {expected.get(command, 'is not available yet')}"
    assert not any(work.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_help(dlspec, command: str) -> None:
    said = dlspec(command, "--help")
    assert said.code == 0
    assert said == dlspec("-h")
    assert all(name in said.out for name in (*COMMANDS, "cnn, gpt2", "any optimizer of torch.optim"))


FLAGS = [
    ("--cfg job", "model:\n"),
    ("--cfg hydra", "launcher: pool"),
    ("--cfg job -p optimizer", "lr: 0.001"),
    ("--info defaults", "model/cnn"),
    ("--info searchpath", "main"),
    ("--hydra-help", "Hydra"),
    ("-sc install=bash", "hydra_bash_completion"),
]


@pytest.mark.parametrize(("flags", "shown"), FLAGS)
def test_hydras_own_flags(dlspec, flags: str, shown: str) -> None:
    said = dlspec(*flags.split())
    assert (said.code, said.err) == (0, "")
    assert shown in said.out


@pytest.mark.parametrize("line", ["python -m dlspec model=li", "dlspec validate model=li", ".venv/bin/dlspec model=li"])
def test_shell_completion(dlspec, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert dlspec("-sc", "query=bash").out == "model=linear\n"


@pytest.mark.parametrize("flag", ["--config-name", "--config-path", "--experimental-rerun"])
def test_flags_that_mean_nothing_here(dlspec, flag: str) -> None:
    said = dlspec(flag, "x")
    assert said.code == 2
    assert said.err.startswith(f"command line   {flag}   not supported   ")


KEY_VALUE = "to change a setting write KEY=VALUE, without dashes: trainer.epochs=3\n"


@pytest.mark.parametrize("words", [["--epochs", "3"], ["-model=mlp"], ["validate", "--nothing"]], ids=str)
def test_unknown_flags(dlspec, words: list[str]) -> None:
    said = dlspec(*words)
    flag = next(each for each in words if each.startswith("-"))
    assert (said.code, said.err) == (2, f"unknown flag '{flag}'; {KEY_VALUE}")


def test_a_flag_without_its_value(dlspec) -> None:
    assert dlspec("--config-dir").err == f"argument --config-dir/-cd: expected one argument; {KEY_VALUE}"


@pytest.mark.parametrize("setting", ["hydra.job.chdir=true", "hydra.output_subdir=null", "hydra.verbose=true"])
def test_hydras_settings(dlspec, work: Path, setting: str) -> None:
    assert dlspec(*MLP, setting).code == 0
    assert (work / "made/metrics.jsonl").is_file()


def test_only_one_of_two_runs_gets_the_folder_that_both_name(work: Path) -> None:
    words = ["model=mlp", "hydra.run.dir=runs/same", *QUICK]
    both = [fork_group(lambda: run_in_this_process(*words).code) for _ in range(2)]
    assert sorted(wait_for_group(each) for each in both) == [0, 2]
    assert [path.name for path in (work / "runs").iterdir()] == ["same"]


@pytest.mark.parametrize("start", [(), IN_BACKGROUND], ids=["in a terminal", "in the background"])
def test_ctrl_c(work: Path, start: Sequence[str]) -> None:
    words = [*start, *ENTRY, "model=mlp", "trainer.epochs=1000000", "hydra.run.dir=made", "trainer.curves=false"]
    process = subprocess.Popen(
        words, env=make_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until((work / "made/timing.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=MAX_WAIT_SECONDS)
    assert said == "interrupted by SIGINT; to resume: python -m dlspec resume run=made\n"
    assert process.returncode == 130
    assert json.loads((work / "made/result.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    "words, first",
    [
        ("--cfg job", "seed: 0"),
        *(pytest.param(each, "", marks=pytest.mark.soak) for each in ("--help", "train --help", "status")),
    ],
)
def test_a_reader_that_goes_away(work: Path, words: str, first: str) -> None:
    reader = "head -1" if first else "true"  # who reads nothing at all is gone when the text comes
    done = subprocess.run(
        f"(sleep 0.5; exec {sys.executable} -m dlspec {words}) | {reader}; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", env=make_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, first, "")


SLOW_IMPORTS = """
torch._dynamo torch._inductor sympy scipy.signal scipy.sparse scipy.stats matplotlib pandas sklearn
tensorboard tensorflow google.protobuf transformers torchvision IPython cloudpickle requests
""".split()
MORE_IMPORTS = [*SLOW_IMPORTS, "torch", "numpy", "hydra", "omegaconf", "pydantic", "rich"]
COMMANDS_IN_TURN = """
import sys
from dlspec.cli.main import main
names, commands = sys.argv[1].split(","), sys.argv[2:]
for command in commands:
    sys.argv = ["dlspec", command]
    print(f"{command}: {main()}", [name for name in names if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("names", "commands"), [(MORE_IMPORTS, ["--help"]), (SLOW_IMPORTS, ["validate", "trainer.max_steps=1"])]
)
def test_a_short_command_imports_nothing_slow(work: Path, names: list[str], commands: list[str]) -> None:
    """Each of these took up to 0.9 s, and what comes later needs them, or nothing does."""
    words = [sys.executable, "-c", COMMANDS_IN_TURN, ",".join(names), *commands]
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
    assert {f"{each}: 0 []" for each in commands} <= set(done.stdout.splitlines()), done.stdout + done.stderr
