"""`python -m dlspec resume run=FOLDER`: a run goes on from its newest whole checkpoint, as if it had never stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlspec.app.compose import start_hydra
from dlspec.app.flags import parse_flags
from dlspec.app.overrides import parse_overrides, quoted, value_place
from dlspec.app.running import Job, composed_or_refused, make_job, preparation
from dlspec.app.sweep import register
from dlspec.errors import Place, Problem, SpecError, UserError, shown
from dlspec.run_folder import read_result
from dlspec.spec.yaml_files import display_name, load_file
from dlspec.training.checkpoint_files import Snapshot, newest_checkpoint, remove_leftovers
from dlspec.training.standard import CHECKPOINTS

LATEST = "latest"
RUNS = Path("runs")
# What changes nothing that was trained before: a run may go on with other ones.
_FREE = frozenset(
    f"trainer.{key}"
    for key in "epochs max_steps progress curves pictures tensorboard checkpoints checkpoint_steps checkpoint_minutes "
    "keep_checkpoints test threads allocator".split()
)
_NO_RUN = "name a run's folder, run=FOLDER, or run=latest"
# Schedulers that are as long as the run where the spec does not say how long they are.
_HORIZONS: Mapping[str, str] = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


def main(words: Sequence[str]) -> int:
    """Resumes the run that the words name; the exit code tells how it went."""
    parser = argparse.ArgumentParser(prog="dlspec resume", add_help=False)  # --help was answered before
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    arguments = parse_flags(parser, words)
    folder, allowed, overrides = _taken(arguments.overrides)
    register()
    composed = composed_or_refused([quoted("run", str(folder)), *overrides], start_hydra(arguments.config_dir))
    job = make_job(preparation(composed, is_resumed=True))
    _refuse_changes(folder, job.prepared.resolved, allowed)
    return go_on(job, folder)


def go_on(job: Job, folder: Path) -> int:
    """Trains what is left of the run in `folder`."""
    found = newest_checkpoint(folder / CHECKPOINTS)
    if found is not None and _is_done(job, folder, found[1]):
        print(f"{folder} is finished: nothing is left to do; for more add trainer.epochs=N", file=sys.stderr)
        return 0
    start = f"from step {found[1].step:,}" if found else "from its beginning, as there is no whole checkpoint"
    print(f"{folder} goes on {start}", file=sys.stderr)
    remove_leftovers(folder / CHECKPOINTS)
    job.run(folder, found[1] if found else None)
    print(folder)
    return 0


def _is_done(job: Job, folder: Path, snapshot: Snapshot) -> bool:
    """Whether the run came to its end, and its settings want no more."""
    result = read_result(folder) or {}
    settings = job.prepared.spec.trainer
    wants_more = result.get("epochs") != settings.epochs and not result.get("stop_reason")
    wants_more |= settings.max_steps is not None and snapshot.step < settings.max_steps
    return result.get("status") == "finished" and not wants_more


# ---- which run -------------------------------------------------------------------------------------------------------


def _taken(words: Sequence[str]) -> tuple[Path, list[str], list[str]]:
    """The run's folder, what may have changed, and the other overrides."""
    folder: Path | None = None
    allowed: list[str] = []
    others: list[str] = []
    for override in parse_overrides(words):
        value = None if override.is_sweep_override() else override.value()
        if override.key_or_group == "run":
            folder = _folder(str(value or ""), value_place(override))
        elif override.key_or_group == "resume.allow":
            allowed += [str(each) for each in (value if isinstance(value, list) else [value])]
        else:
            others.append(str(override.input_line))
    if folder is None:
        raise UserError(f"which run? {_NO_RUN}")
    return folder, allowed, others


def _folder(name: str, place: Place) -> Path:
    if name == LATEST:
        return latest_run(RUNS)
    if not (Path(name) / "spec.yaml").is_file():
        raise SpecError([Problem("run", f"no run in '{name}'", _NO_RUN, place)])
    return Path(name)


def latest_run(root: Path) -> Path:
    """The run below `root` that was last written to; UserError where there is none."""
    found = [each.parent for depth in ("*/*", "*/*/*") for each in root.glob(f"{depth}/spec.yaml")]
    if not found:
        raise UserError(f"no run below '{root}': {_NO_RUN}")
    return max(found, key=lambda folder: folder.stat().st_mtime)


# ---- what has changed ------------------------------------------------------------------------------------------------


def _refuse_changes(folder: Path, resolved: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """A spec that differs from the run's would train something else from there on: the user must say so."""
    saved = load_file(folder / "spec.yaml").tree
    before, now = dict(_flat(saved)), dict(_flat(resolved))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    free = _FREE - _horizon(resolved)
    changed = [key for key in keys if key not in free and not any(_is_below(key, each) for each in allowed)]
    place = Place(display_name(folder / "spec.yaml"))
    problems = [
        Problem(key, f"the run has {shown(before.get(key))}, and now it is {shown(now.get(key))}",
                f"to go on with that add resume.allow=[{key}]", place)
        for key in changed
    ]  # fmt: skip
    if problems:
        raise SpecError(problems)


def _horizon(resolved: Mapping[str, Any]) -> frozenset[str]:
    """What the scheduler's length follows from, where it does."""
    scheduler = resolved.get("scheduler") or {}
    missing = _HORIZONS.get(scheduler.get("type", ""))
    follows = missing is not None and scheduler.get(missing) is None and scheduler.get("epochs") is None
    return frozenset({"trainer.epochs", "trainer.max_steps"}) if follows else frozenset()


def _is_below(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its dotted path."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    if not isinstance(tree, Mapping | list | tuple) or not tree:
        yield path, tree
    for key, each in pairs:
        yield from _flat(each, f"{path}.{key}" if path else str(key))
