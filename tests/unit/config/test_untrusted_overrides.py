"""What a sweep from someone else contains is used only if it can neither run code nor write elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlspec.config.overrides import parse_overrides
from dlspec.config.untrusted_overrides import must_be_repeated
from dlspec.formatting import quote_for_shell
from helpers.command_line import run_in_this_process

USED = """
model=mlp,cnn
optimizer.lr=0.1
+trainer.epochs=3
~scheduler
seed=range(3)
hydra.mode=MULTIRUN
hydra/launcher=submitit_slurm
hydra/sweeper=optuna
hydra/sweeper/sampler=tpe
hydra.sweeper.direction=maximize
hydra.sweeper.max_batch_size=4
hydra.sweeper.max_batch_size=null
hydra.sweeper.n_trials=20
hydra.sweeper.max_failure_rate=0.5
hydra.launcher.timeout_min=240
hydra.sweep.subdir=${hydra:job.num}
hydra.sweep.subdir=by_rate/${optimizer.lr}_${now:%H-%M}
+hydra.sweeper.params.seed='0,1'
+hydra.sweeper.params.model=mlp
""".strip().splitlines()

REPEATED = """
imports=[theirs]
+imports=[theirs]
imports.0=theirs
model@hydra.callbacks=mlp
+experiment@_global_=theirs
hydra.callbacks.x._target_=theirs.X
hydra={callbacks:{x:{_target_:theirs.X}}}
hydra.job.env_set.PATH=theirs
hydra.job.chdir=true
hydra.job_logging.handlers.file.filename=/tmp/theirs
hydra.searchpath=[file:///tmp/theirs]
hydra.output_subdir=../..
hydra.run.dir=/tmp/theirs
hydra/callbacks=theirs
hydra/launcher=../../../theirs/launcher
hydra/launcher=a,b
~hydra/launcher
hydra/launcher=${oc.env:HOME}
hydra.launcher.setup=[rm]
hydra.launcher._target_=theirs.X
hydra.launcher.n_jobs={_target_:theirs.X}
hydra.launcher.submitit_folder=/tmp/theirs
hydra.sweeper.max_batch_size={_target_:theirs.X}
hydra.sweeper.n_trials=${oc.env:HOME}
hydra.sweeper.params={imports:theirs}
+hydra.sweeper.params.imports='[theirs]'
+hydra.sweeper.params.x={_target_:theirs.X}
+hydra.sweeper.params.hydra.sweeper.params.imports=x
hydra.sweep.mode=777
hydra.sweep.subdir=../../theirs
hydra.sweep.subdir=a/../../b
hydra.sweep.subdir=/tmp/theirs
hydra.sweep.subdir=${oc.env:SECRET}
hydra.sweep.subdir='${hydra:${oc.env:SECRET}}'
""".strip().splitlines()


CASES = [*((each, False) for each in USED), *((each, True) for each in REPEATED)]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_what_must_be_repeated(line: str, expected: bool) -> None:
    [override] = parse_overrides([line])
    assert must_be_repeated(override) == expected


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.sweeper.params.imports='[theirs]'",
        "hydra.sweeper.max_batch_size={_target_:pathlib.Path.touch,_args_:[{_target_:pathlib.Path,_args_:[pwned]}]}",
        "hydra/launcher=../../../sweep/launcher",
    ],
)
def test_a_strangers_sweep_runs_no_code(work: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these words runs code where it is not refused."""
    monkeypatch.syspath_prepend(str(work))
    (work / "conf/hydra/launcher").mkdir(parents=True)
    (work / "sweep").mkdir()
    Path("theirs.py").write_text("open('pwned', 'w')\n")
    Path("sweep/launcher.yaml").write_text("_target_: theirs.X\n")
    command = ["model=linear", "seed=0,1", word]
    Path("sweep/sweep.json").write_text(json.dumps({"format": 1, "command": command, "config_dir": None, "jobs": []}))
    said = run_in_this_process("resume", "sweep=sweep")
    assert said.code == 2
    assert said.err == f"the sweep in 'sweep' may run code; if you trust it, repeat: {quote_for_shell(word)}\n"
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "word", ["a=b", "imports=[a]", "x='$(touch pwned)'", "a\x1b[31m'\\b", "\u202eabc", "a\nb", "tab\t", "\udcff"]
)
def test_a_shell_reads_the_word_that_was_quoted(word: str) -> None:
    quoted = quote_for_shell(word)
    assert quoted.isprintable() or "\t" in quoted
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash here")
    script = f"exec {quote_for_shell(sys.executable)} -c 'import sys; print(ascii(sys.argv[1]))' {quoted}"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{word!a}\n"
