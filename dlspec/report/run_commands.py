"""The lines that load, use and repeat a run. They work as typed, in a shell or in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlspec.formatting import format_override, quote_for_shell
from dlspec.language.yaml.yaml_files import shorten_path
from dlspec.report.records import RunRecord, list_imports
from dlspec.runs.run_status import resume_command


def list_run_commands(record: RunRecord) -> list[dict[str, str]]:
    """List what can be done with a run: what it is good for, and the lines that do it."""
    assert record.folder is not None
    return [{"about": about, "text": text} for about, text in _iterate_commands(record, record.folder)]


def make_command(command: str, folder: Path) -> str:
    """Make the shell command that does something with the run in a folder."""
    return f"python -m dlspec {command} {quote_for_shell(format_override('run', str(shorten_path(folder))))}"


def _iterate_commands(record: RunRecord, folder: Path) -> Iterator[tuple[str, str]]:
    imports = list_imports(record.spec)
    extra = f" 'imports=[{','.join(imports)}]'" if imports else ""
    split = "test" if any(name.startswith("test/") for name in record.results) else "validation"
    yield f"Predict the {split} split", f"{make_command('predict', folder)} split={split} output=predictions.csv{extra}"
    yield (
        "Predict a file of your own: write its name for FILE",
        f"{make_command('predict', folder)} input=FILE output=predictions.csv{extra}",
    )
    yield "Evaluate it: metrics with intervals, and the worst errors", f"{make_command('evaluate', folder)}{extra}"
    yield "Predict in Python", _make_python(folder, imports, "model = dlspec.predictor({})")
    yield "Load the network in Python, as a torch.nn.Module", _make_python(folder, imports, "network = dlspec.load({})")
    if record.rerun:
        yield "Train the same spec again", record.rerun
    if not record.is_finished:
        yield "Resume the training", f"{resume_command(shorten_path(folder))}{extra}"
    yield "Write this page again", f"{make_command('report', folder)}{extra}"


def _make_python(folder: Path, imports: tuple[str, ...], line: str) -> str:
    """Make lines of Python; a network with layers of the user's own needs their modules to be imported."""
    modules = "".join(f"import {each}\n" for each in imports)
    return f"import dlspec\n{modules}\n{line.format(repr(str(shorten_path(folder))))}"
