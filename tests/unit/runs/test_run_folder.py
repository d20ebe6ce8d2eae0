"""Run folders: names that are safe, files that are whole."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dlspec.errors import UserError
from dlspec.jobs.environment import collect_environment, find_git_commit
from dlspec.runs import io as run_folder
from dlspec.runs.io import (
    create_unique_folder,
    make_run_folder,
    read_json_lines,
    replace_non_finite,
    sync_folders_once,
    to_safe_name,
    write_bytes,
    write_json,
    write_text,
    write_yaml,
)
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.log_file import add_log_file


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("12-30_cnn_mnist", "12-30_cnn_mnist"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("a/b\\c:d", "a_b_c_d"),
        ("Größe <b>", "Gr_e_b"),
        ("a\x00b\nc", "a_b_c"),
        ("x" * 300, "x" * 80),
        ("lr=0.1,seed=3", "lr=0.1,seed=3"),
        ("end.", "end"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert to_safe_name(name) == safe


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    names = [create_unique_folder(tmp_path / "runs", "cnn").name for _ in range(3)]
    assert names == ["cnn", "cnn_2", "cnn_3"]


@pytest.mark.parametrize("name", ["plain space", "-dash", ".hidden", "Größe", "a" * 120, "x(1)&'2'", "run_"])
def test_a_folder_has_the_name_that_the_user_gave(name: str, tmp_path: Path) -> None:
    assert make_run_folder(tmp_path / "my runs", name) == tmp_path / "my runs" / name
    assert make_run_folder(tmp_path / "my runs", name).name == f"{name}_2"


@pytest.mark.parametrize("name", ["", "..", "a\nb", "a\0b", "${x}", "a" * 300])
def test_a_name_that_no_folder_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose another folder: hydra.run.dir=FOLDER"):
        make_run_folder(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "second")
    assert path.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_files_have_the_users_own_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_and_yaml(tmp_path: Path) -> None:
    value = {"b": [1.5, math.nan], "a": "ü"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1.5, None], "a": "ü"}
    write_yaml(tmp_path / "a.yaml", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.yaml").read_text() == "b: 1\na: ü\n"
    assert yaml.safe_load((tmp_path / "a.yaml").read_text()) == {"b": 1, "a": "ü"}
    assert replace_non_finite((math.inf, {1: -math.inf})) == [None, {"1": None}]


def test_results_are_read_where_there_are_any(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_text('{"status": "fin')
    assert read_result(tmp_path) is None
    write_json(tmp_path / "result.json", {"status": "finished"})
    assert read_result(tmp_path) == JobResult(JobState.FINISHED)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "metrics.jsonl") == []
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert read_json_lines(tmp_path / "metrics.jsonl") == [{"epoch": 1}, {"epoch": 2}]


def test_the_log_is_kept(tmp_path: Path) -> None:
    handler = add_log_file(tmp_path)
    logger = logging.getLogger("a_module_of_the_users")
    logger.warning("something %s", "odd")
    logging.getLogger().removeHandler(handler)
    handler.close()
    logger.warning("later")
    text = (tmp_path / "log.txt").read_text()
    assert text.endswith(" WARNING something odd\n")
    assert text.count("\n") == 1


def test_environment_is_known_and_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = collect_environment()
    write_json(tmp_path / "environment.json", found)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["torch"]
    assert found["threads"] >= 1
    assert found["git"] is None


def test_the_git_commit_is_found_and_a_missing_git_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    found = find_git_commit(tmp_path)
    assert found is not None
    assert (len(found["commit"]), found["changed"]) == (40, False)
    monkeypatch.setenv("PATH", "")
    assert find_git_commit(tmp_path) is None


def test_torch_is_not_needed_to_read_a_run() -> None:
    script = "import sys, dlspec.runs.io; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert "torch" not in vars(run_folder)


def test_the_folder_of_several_files_is_synced_once_after_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, set[str]]] = []  # whether a folder was synced, and the files that had their names by then
    fsync = os.fsync

    def note(descriptor: int) -> None:
        names = {each.name for each in tmp_path.iterdir() if not each.name.startswith(".")}
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), names))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with pytest.raises(ValueError, match="odd"), sync_folders_once():
        write_json(tmp_path / "a.json", 1)
        with sync_folders_once():
            write_bytes(tmp_path / "b.png", b"2")
        raise ValueError("odd")
    assert synced == [(False, set()), (False, {"a.json"}), (True, {"a.json", "b.png"})]
    synced.clear()
    write_json(tmp_path / "a.json", 3)
    assert [is_folder for is_folder, _ in synced] == [False, True]
