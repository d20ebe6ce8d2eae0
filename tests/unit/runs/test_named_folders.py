"""A folder that the user names is that folder, byte for byte, or it is refused with a command that works."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from dlspec.config.composition import compose, start_hydra
from dlspec.config.hydra_run import SingleRun
from dlspec.errors import UserError
from dlspec.runs.io import write_json
from dlspec.runs.lock import lock_run_folder
from dlspec.runs.run_folder import lock_new_run_folder
from helpers.command_line import QUICK
from helpers.interrupted_runs import read_run_files
from helpers.paths import ROOT

MLP = ("model=linear", "trainer.progress=none", *QUICK)


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.mark.parametrize(
    "typed",
    ["plain space", "1e3", "1_000", "1.50", "+5", "-0", "true", "TRUE", "nan", " a ", ".hidden", "-dash", "007", "a:b",
     "x" * 300, "deep/er/a", "'quoted  '", "'Größe'", "'x(1)'", "'a;b'", "None", r"a\,b"],
)  # fmt: skip
def test_a_folder_is_the_text_that_was_typed(typed: str) -> None:
    hydra = start_hydra()
    run = SingleRun(hydra, compose([f"hydra.run.dir={typed}"], hydra))
    assert (str(run.configured_folder()), run.is_folder_named) == (typed.strip("'").replace("\\", ""), True)


@pytest.mark.parametrize("name", ["1e3", " plain space "])
def test_a_run_writes_to_the_folder_that_was_typed(name: str, dlspec, work: Path) -> None:
    said = dlspec(*MLP, f"hydra.run.dir={name}")
    assert (said.code, said.out) == (0, f"{name}\n")
    assert (work / name / "result.json").is_file()
    assert [each.name for each in work.iterdir()] == [name]


def test_a_folder_in_the_users_config_is_that_folder(dlspec, write, work: Path) -> None:
    write("conf/config.yaml", "defaults: [dlspec, _self_]\nhydra: {run: {dir: 'mine/${seed}_${model.params.width}'}}\n")
    words = ("model=mlp", "trainer.progress=none", *QUICK)
    assert dlspec(*words, "seed=3").out == "mine/3_128\n"
    said = dlspec(*words, "seed=3")
    assert said.code == 2
    assert said.err.startswith(
        "'mine/3_128' contains a finished run; to train longer: python -m dlspec resume run=mine/"
    )
    assert [each.name for each in (work / "mine").iterdir()] == ["3_128"]


def test_only_a_default_name_gets_a_number(tmp_path: Path) -> None:
    for name in ("12-30-05_cnn_digits", "12-30-05_cnn_digits_2"):
        with lock_new_run_folder(tmp_path / "12-30-05_cnn_digits", is_named=False) as folder:
            assert folder == tmp_path / name


@pytest.mark.parametrize("name", ["it's a=b", 'a "b" $(x)', "-x"])
def test_the_command_of_a_refusal_can_be_typed(name: str, dlspec, work: Path) -> None:
    quoted = name.replace('"', '\\"')
    assert dlspec(*MLP, f'hydra.run.dir="{quoted}"').code == 0
    said = dlspec(*MLP, f'hydra.run.dir="{quoted}"')
    assert said.code == 2
    command = said.err.partition("to train longer: ")[2].partition("; to start")[0]
    assert command.endswith(" trainer.epochs=N")
    words = shlex.split(command)[3:]
    assert dlspec(*words[:-1]).err == f"{name} is finished; to train longer add trainer.epochs=N\n"
    assert [each.name for each in work.iterdir()] == [name]


def test_a_run_that_can_go_on_is_not_overwritten(dlspec, work: Path) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    (work / "run/result.json").unlink()
    before = {each: each.read_bytes() for each in (work / "run").rglob("*") if each.is_file()}
    said = dlspec("model=mlp", *QUICK, "hydra.run.dir=run")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "'run' contains a run that can be resumed; to go on: python -m dlspec resume run=run; to start a new run name "
        "another folder: hydra.run.dir=FOLDER\n"
    )
    assert before == {each: each.read_bytes() for each in (work / "run").rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["mine.txt"], "contains files of something else, such as 'mine.txt'"),
        (["spec.yaml"], "contains files of something else, such as 'spec.yaml'"),
        (["lock", "sweep.json"], "contains a sweep; to resume it: python -m dlspec resume sweep=run"),
        (["lock", "multirun.yaml"], "belongs to a sweep"),
        (["lock", "checkpoints/step-000000009.safetensors"], "but its spec.yaml is missing"),
    ],
)
def test_folders_of_something_else(names: list[str], found: str, dlspec, work: Path) -> None:
    put(work / "run", *names)
    said = dlspec(*MLP, "hydra.run.dir=run")
    assert said.code == 2
    assert found in said.err and said.err.endswith("name another folder: hydra.run.dir=FOLDER\n")
    assert {each.name for each in (work / "run").iterdir()} == {name.split("/")[0] for name in names}


def test_what_is_not_a_folder(dlspec, write, work: Path) -> None:
    write("file", "")
    (work / "dangling").symlink_to("nowhere")
    for name, found in (("file", "is not a folder"), ("dangling", "is not a folder"), ("file/x", "Not a directory"),
                        ("x" * 300, "File name too long"), (".", "can't use ''"), ("x/..", "can't use '..'"),
                        ('"a\nb"', "can't use 'a\\nb'")):  # fmt: skip
        said = dlspec(*MLP, f"hydra.run.dir={name}")
        assert (said.code, found in said.err) == (2, True), said
        assert said.err.endswith("name another folder: hydra.run.dir=FOLDER\n")
    assert {each.name for each in work.iterdir()} == {"file", "dangling"}


def test_a_folder_without_a_value(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "hydra.run.dir=???")
    assert (said.code, said.err) == (
        2, "hydra.run.dir has no value; set it to the name of a folder: hydra.run.dir=FOLDER\n")  # fmt: skip


def test_a_link_to_a_folder_may_be_named(dlspec, work: Path) -> None:
    (work / "scratch").mkdir()
    (work / "run").symlink_to("scratch")
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    assert (work / "scratch/result.json").is_file()


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", ".hydra/config.yaml", "log.txt", ".spec.yaml.abcd1234"]])
def test_an_unfinished_folder_is_taken_over(left: list[str], dlspec, work: Path) -> None:
    assert dlspec(*MLP, "hydra.run.dir=straight").code == 0
    (work / "run").mkdir()
    put(work / "run", *left)
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")
    names = [{each.name for each in (work / name).iterdir()} for name in ("run", "straight")]
    assert names[0] == names[1]


def test_what_a_run_without_training_state_wrote_is_replaced(
    dlspec, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log stays, and so do files of the user."""
    assert dlspec(*MLP, "seed=5", "hydra.run.dir=run").code == 0
    (work / "run/result.json").unlink()
    for each in (work / "run/checkpoints").glob("step-*"):
        each.unlink()
    put(work / "run", "notes.txt", "predictions.png")
    lines = (work / "run/log.txt").read_text()
    assert dlspec(*MLP, "trainer.checkpoints=false", "hydra.run.dir=run").code == 0
    assert "run contains a run that saved no training state: it is replaced" in caplog.text
    assert (work / "run/log.txt").read_text().startswith(lines)
    assert (work / "run/notes.txt").exists()
    assert not list((work / "run/checkpoints").iterdir()) and not (work / "run/predictions.png").exists()
    assert "seed: 0" in (work / "run/spec.yaml").read_text()


def test_without_a_spec_nothing_can_be_resumed(dlspec, work: Path) -> None:
    put(work / "run", "lock")
    fix = "it ended before it wrote its spec: start it again with the same command"
    assert dlspec("resume", "run=run").err.splitlines()[0] == f"command line   run   no run in 'run'   {fix}"


def test_the_slurm_script_of_the_docs(work: Path) -> None:
    """It resumes a run only if that has a spec."""
    script = (ROOT / "docs/running.md").read_text()
    lines = [line for line in script.splitlines() if line.startswith(("FOLDER=runs/mine", "if [ -f $FOLDER"))]
    assert len(lines) == 2
    for names, wanted in (([], "model=cnn"), (["lock"], "model=cnn"), (["lock", "spec.yaml"], "resume run=runs/mine")):
        put(work / "runs/mine", *names)
        said = subprocess.run(
            ["sh", "-c", "\n".join([*lines, "echo $ARGS"])], capture_output=True, text=True, check=True
        )
        assert said.stdout.startswith(wanted)


def test_a_folder_in_use_is_refused(work: Path) -> None:
    put(work / "run", "lock")
    with (
        lock_run_folder(work / "run"),
        pytest.raises(UserError, match="'run' is in use"),
        lock_new_run_folder(Path("run"), is_named=True),
    ):
        pass


def test_links_in_an_unfinished_folder_are_refused(work: Path) -> None:
    put(work, "run/lock", "elsewhere/x")
    (work / "run/.hydra").symlink_to(work / "elsewhere")
    with pytest.raises(UserError, match=r"contains symbolic links, such as '\.hydra'"):  # noqa: SIM117
        with lock_new_run_folder(Path("run"), is_named=True):
            pass


def test_a_finished_run_without_checkpoints_can_be_run_again_elsewhere(dlspec, work: Path) -> None:
    put(work / "run", "lock", "spec.yaml")
    write_json(work / "run/result.json", {"status": "finished"})
    said = dlspec(*MLP, "hydra.run.dir=run")
    assert "contains a finished run; to train it again in a new folder: python -m dlspec run=run; " in said.err
