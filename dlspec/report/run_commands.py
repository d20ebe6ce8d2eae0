"""The lines that load, use and repeat a run. They work as typed, in a shell or in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlspec.formatting import format_override, quote_for_shell
from dlspec.language.yaml.yaml_files import shorten_path
from dlspec.report.records import RunRecord, list_imports


def list_run_commands(record: RunRecord) -> list[dict[str, str]]:
    """List what can be done with a run: what it is good for, and the lines that do it."""
    return [{"about": about, "text": text} for about, text in _iterate_commands(record)]


def make_command(command: str, record: RunRecord, words: str = "") -> str:
    """Make the shell command that does something with a run.

    Args:
        command: name of the command
        record: the run
        words: other words of the command

    Returns:
        The command. It repeats the imports of the run's spec, which a saved spec needs.
    """
    run = quote_for_shell(format_override("run", str(_get_folder(record))))
    imports = list_imports(record.spec)
    named = f"'imports=[{','.join(imports)}]'" if imports else ""
    return " ".join(each for each in ("python -m dlspec", command, run, named, words) if each)


def choose_split(record: RunRecord) -> str:
    """Choose the split that a run was tested on, or else its validation split."""
    return "test" if any(name.startswith("test/") for name in record.results) else "validation"


def _get_folder(record: RunRecord) -> Path:
    assert record.folder is not None  # only a sweep's job that was refused has none
    return shorten_path(record.folder)


def _iterate_commands(record: RunRecord) -> Iterator[tuple[str, str]]:
    split = choose_split(record)
    output = "output=predictions.csv"
    yield f"Predict the {split} split", make_command("predict", record, f"split={split} {output}")
    yield (
        "Predict a file of your own: write its name for FILE",
        make_command("predict", record, f"input=FILE {output}"),
    )
    yield "Evaluate it: metrics with intervals, and the worst errors", make_command("evaluate", record)
    yield "Predict in Python", _make_python(record, "model = dlspec.predictor({})")
    yield "Load the network in Python, as a torch.nn.Module", _make_python(record, "network = dlspec.load({})")
    if record.rerun:
        yield "Train the same spec again", record.rerun
    if not record.is_finished:
        yield "Resume the training", make_command("resume", record)
    yield "Write this page again", make_command("report", record)


def _make_python(record: RunRecord, line: str) -> str:
    """Make lines of Python; a network with layers of the user's own needs their modules to be imported."""
    modules = "".join(f"import {each}\n" for each in list_imports(record.spec))
    return f"import dlspec\n{modules}\n{line.format(repr(str(_get_folder(record))))}"
