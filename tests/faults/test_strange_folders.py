"""Folders of runs and sweeps from strangers: nothing outside of them is written, and no command hangs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlspec.runs import file_names
from helpers.command_line import CommandResult, run_in_this_process
from helpers.strange_folders import ATTACKS, RUN_NAMES, SWEEP_NAMES, attack, fail_after, make_outside, read_outside

Run = Callable[..., CommandResult]
SMALL = ("model=linear", "trainer.progress=none", "trainer.batch_size=16", "trainer.limit_batches=3",
         "trainer.epochs=2")  # fmt: skip
LAUNCHERS = {"inline": "dlspec", "processes": "pool"}
HAS_DEVICES = hasattr(os, "mknod") and os.geteuid() == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file, and a sweep of two jobs that are killed when everything but their result is written."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        assert run_in_this_process(*SMALL, "hydra.run.dir=run").code == 0
        words = ("hydra/launcher=dlspec", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
        assert run_in_this_process("-m", *words).code == 0
    for number in (0, 1):
        (folder / f"sweep/{number}/result.json").unlink()
        status = folder / f"sweep/{number}/status.json"
        status.write_text(status.read_text().replace('"finished"', '"running"'))
    return folder


@pytest.fixture
def outside(work: Path) -> Path:
    return make_outside(work / "outside")


def resume(kind: str) -> CommandResult:
    if kind == "run":
        return run_in_this_process("resume", "run=run", "trainer.epochs=3")
    launcher = f"hydra/launcher={LAUNCHERS.get(kind, kind)}"
    return run_in_this_process("resume", "sweep=sweep", launcher, "seed=0,1,2", "sweep.workers=2")


def check_attack(kind: str, names: tuple[str, ...], how: str, finished: Path, outside: Path) -> CommandResult:
    """Resume a folder in which `names` are something else, and read it with every command that reads folders."""
    folder = "run" if kind == "run" else "sweep"
    shutil.copytree(finished / folder, folder)
    for name in names:
        attack(Path(folder, name), how, outside)
    before = read_outside(outside)
    with fail_after():
        for command in (("status",), ("report",), ("compare", folder)):
            assert run_in_this_process(*command, folder).code in (0, 2), command
        assert run_in_this_process("report", f"run={folder if kind == 'run' else f'{folder}/0'}").code in (0, 2)
        said = resume(kind)
    assert said.code in (0, 1, 2), said
    assert "Traceback" not in said.err
    assert read_outside(outside) == before
    return said


def test_every_name_is_attacked() -> None:
    names = {value for key, value in vars(file_names).items() if key.endswith(("_FILE", "_FOLDER"))}
    attacked = {Path(each).name for each in (*RUN_NAMES, *SWEEP_NAMES)}
    assert names - {file_names.DEFAULT_RUNS_FOLDER} <= attacked


# ---- a sample --------------------------------------------------------------------------------------------------------

FILES = tuple(
    each
    for each in RUN_NAMES
    if each
    not in ("spec.yaml", "lock", "checkpoints", ".hydra", "evaluations", "checkpoints/step-000000006.safetensors")
)


@pytest.mark.parametrize("how", ["dangling link", "pipe", "hard link"])
def test_files_of_a_run_are_replaced(how: str, finished: Path, outside: Path) -> None:
    assert check_attack("run", FILES, how, finished, outside).code == 0
    assert {name for name in ("log.txt", "metrics.jsonl", "result.json") if Path("run", name).is_symlink()} == set()
    assert "epoch 3 of 3" in Path("run/log.txt").read_text()


def test_the_lock_of_a_run_is_never_written_elsewhere(finished: Path, outside: Path) -> None:
    assert check_attack("run", ("lock",), "hard link", finished, outside).code == 0


def test_files_of_jobs_are_replaced_in_processes(finished: Path, outside: Path) -> None:
    """The log of a job is opened by its process, and `.hydra/` is written by Hydra."""
    names = tuple(f"0/{each}" for each in FILES)
    assert check_attack("processes", names, "pipe", finished, outside).code == 0
    assert "test: test/loss" in Path("sweep/0/log.txt").read_text()


def test_a_new_job_takes_another_name_than_that_of_a_link(finished: Path, outside: Path) -> None:
    assert check_attack("inline", ("2",), "dangling link", finished, outside).code == 0
    assert Path("sweep/2_2/result.json").is_file()


@pytest.mark.parametrize("name", ["0", "0/.hydra", "0/checkpoints"])
def test_a_folder_that_is_a_link_is_refused(name: str, finished: Path, outside: Path) -> None:
    said = check_attack("inline", (name,), "link to a folder", finished, outside)
    assert said.code == 2
    assert f"'sweep/{name}' is a symbolic link: replace it with the folder that it points to" in said.err + said.out


@pytest.mark.parametrize("folder", ["../outside", "{work}/outside", "0/../../outside", "..", ".", "a\0b"])
def test_a_job_elsewhere_is_refused(folder: str, finished: Path, outside: Path) -> None:
    shutil.copytree(finished / "sweep", "sweep")
    path = Path("sweep/sweep.json")
    tree: dict[str, Any] = json.loads(path.read_text())
    tree["jobs"][0]["folder"] = folder.format(work=Path.cwd())
    path.write_text(json.dumps(tree))
    before = read_outside(outside)
    said = resume("inline")
    assert (said.code, said.err.startswith("'sweep/sweep.json' is not a list of jobs")) == (2, True)
    assert read_outside(outside) == before


def test_the_folder_that_the_user_names_may_be_a_link(finished: Path, work: Path) -> None:
    (work / "scratch").mkdir()
    shutil.copytree(finished / "run", "scratch/real")
    Path("runs").symlink_to("scratch")
    Path("run").symlink_to("runs/real")
    assert resume("run").code == 0
    assert "epoch 3 of 3" in Path("scratch/real/log.txt").read_text()


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("how", ATTACKS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("run", each) for each in RUN_NAMES), *((kind, each) for kind in LAUNCHERS for each in SWEEP_NAMES)],
)
def test_every_name_and_every_attack(kind: str, name: str, how: str, finished: Path, outside: Path) -> None:
    if how == "device" and not HAS_DEVICES:
        pytest.skip("only root can make a device")
    check_attack(kind, (name,), how, finished, outside)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["dangling link", "pipe", "hard link"])
@pytest.mark.parametrize(("launcher", "module"), [("joblib", "joblib"), ("submitit_local", "submitit")])
def test_jobs_of_other_launchers(launcher: str, module: str, how: str, finished: Path, outside: Path) -> None:
    """There Hydra makes the job's folder and writes `.hydra/` before dlspec is called."""
    pytest.importorskip(f"hydra_plugins.hydra_{module}_launcher")
    names = (*(f"0/{each}" for each in FILES), "0/job.json", "stop", "optimization_results.yaml")
    assert check_attack(launcher, names, how, finished, outside).code == 0
