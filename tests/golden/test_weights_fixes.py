"""Every argument that dlspec prints for a file of weights that does not fit removes its problem, and the file loads.

The files are real: safetensors files, files of torch.save and runs. Each argument is read as a shell reads it.
"""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import dlspec
from dlspec.cli.main import run_command
from dlspec.errors import Problem, SpecError
from dlspec.jobs import error_reporting
from helpers.applied_fixes import SHELL_CHARACTERS
from helpers.printed_fixes import read_overrides

DEPTH = 3
SAMPLE = 6  # one of so many files is tried each time, all of them by `make soak`
MODEL: dict[str, Any] = {
    "layers": [
        {"Linear": 8, "name": "stem"},
        {"repeat": DEPTH, "name": "blocks", "Sequential": [
            {"Linear": 8, "name": "fc"}, {"BatchNorm1d": None, "name": "norm"}, "ReLU",
        ]},
        {"Linear": 3, "name": "head"},
    ]
}  # fmt: skip
DATA = ["data=random", "data.shape=[6]", "data.num_classes=3"]
Tensors = dict[str, Tensor]


def make_tensors() -> Tensors:
    """Make values for all tensors of the model, all different."""
    state = dlspec.build({"model": MODEL}, data={"shape": [6], "num_classes": 3}).state_dict()
    return {
        name: each if each.dtype == torch.int64 else torch.arange(each.numel(), dtype=torch.float32).reshape(each.shape)
        for name, each in state.items()
    }


def rename(*pairs: tuple[str, str]) -> Callable[[Tensors], Tensors]:
    """Return a function that replaces parts of names."""

    def apply(tensors: Tensors) -> Tensors:
        for old, new in pairs:
            tensors = {name.replace(old, new): each for name, each in tensors.items()}
        return tensors

    return apply


def change(**changes: Any) -> Callable[[Tensors], Tensors]:
    """Return a function that replaces tensors; the names have `__` for points, None leaves one out."""

    def apply(tensors: Tensors) -> Tensors:
        new = {name.replace("__", "."): each for name, each in changes.items()}
        return {name: each.contiguous() for name, each in {**tensors, **new}.items() if each is not None}

    return apply


@dataclass(frozen=True)
class File:
    """A file that does not fit."""

    make: Callable[[Tensors], Tensors]
    first: str  # what the first problem says
    loaded: int  # tensors of the model that have the file's values in the end
    settings: Mapping[str, Any] = field(default_factory=dict)


ALL = 6 * DEPTH - DEPTH + 2 * DEPTH + 4  # with the counters
FILES = {
    "a prefix more": File(lambda each: {f"module.{name}": value for name, value in each.items()},
                          "no name of the model matches 25 tensors of the file: module.* (25)", 25),
    "a prefix less": File(rename(("blocks.", "")), "0.* (7), 1.* (7), 2.* (7)", 25),
    "all under other names": File(rename(("stem", "embed"), ("blocks", "layers"), ("head", "out")),
                                  "embed.* (2), layers.* (21), out.* (2)", 25),
    "other names within blocks": File(rename((".fc.", ".linear."), (".norm.", ".bn.")), "blocks.* (21)", 25),
    "a head of other classes": File(change(head__weight=torch.zeros(5, 8), head__bias=torch.zeros(5)),
                                    "head.weight: (5, 8) instead of (3, 8)", 23),
    "a head under another name and shape": File(
        lambda each: change(fc__weight=torch.zeros(5, 8), fc__bias=torch.zeros(5), head__weight=None,
                            head__bias=None)(each), "of the file: fc.bias, fc.weight", 23),
    "transposed": File(change(stem__weight=torch.zeros(6, 8), head__weight=torch.zeros(8, 3)),
                       "2 tensors of the file have other shapes", 25),
    "more blocks": File(lambda each: {**each, **{name.replace("blocks.0", f"blocks.{at}"): value.clone()
                        for name, value in each.items() if "blocks.0" in name for at in (3, 4, 11)}},
                        "blocks.11.* (7), blocks.3.* (7), blocks.4.* (7)", 25),
    "fewer blocks": File(lambda each: {name: value for name, value in each.items() if "blocks.2" not in name},
                         "the file has nothing for 6 tensors of the model: blocks.2.* (6)", 19),
    "no running statistics": File(lambda each: {name: value for name, value in each.items() if "running" not in name},
                                  "blocks.*.norm.running_mean (3), blocks.*.norm.running_var (3)", 19),
    "integers": File(change(head__weight=torch.zeros(3, 8).int(), head__bias=torch.zeros(3).int()),
                     "2 tensors of the file have other types than the model's", 23),
    "an optimizer's state beside": File(change(**{"step": torch.zeros(1), "ema__decay": torch.zeros(1)}),
                                        "2 tensors of the file: ema.decay, step", 25),
    "a renamed prefix and a head": File(
        lambda each: change(fc__weight=torch.zeros(5, 8))(
            {f"net.{name}": value for name, value in each.items() if "head" not in name}),
        "fc.weight, net.* (23)", 23),
    "a head that is fresh already": File(
        lambda each: {name: value for name, value in each.items() if "stem" not in name and "head" not in name},
        "the file has nothing for 2 tensors of the model: stem.weight, stem.bias", 21, {"fresh": ["head.*"]}),
    "renames that are there already": File(
        rename(("stem", "embed"), ("head", "out")), "no name of the model matches 2 tensors of the file: out", 25,
        {"rename": {"embed.*": "stem.*"}}),
    "a rename that misses": File(rename(("stem", "embed")), "embed.bias (renamed to steem.bias)", 23,
                                 {"rename": {"embed.*": "steem.*"}}),
}  # fmt: skip


def find_problems(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """Run a command, and return the problems that it reports."""
    errors: list[BaseException] = []
    explain = error_reporting.message_and_exit_code

    def record_error(error: BaseException) -> tuple[str, int] | None:
        errors.append(error)
        return explain(error)

    with monkeypatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.setattr(error_reporting, "message_and_exit_code", record_error)
        with contextlib.redirect_stdout(io.StringIO()):
            code = run_command(words)
    assert (code == 0) == (not errors), said.getvalue()
    return [each for error in errors if isinstance(error, SpecError) for each in error.problems]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.soak] if at % SAMPLE else []) for at, each in enumerate(FILES)]
)
def test_arguments_load_the_file(name: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FILES[name]
    save_file(file.make(make_tensors()), "other.safetensors")
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/m.yaml").write_text(yaml.safe_dump(MODEL))
    Path("conf/experiment").mkdir()
    weights = {"path": "other.safetensors", **file.settings}
    Path("conf/experiment/w.yaml").write_text(f"# @package _global_\n{yaml.safe_dump({'weights': weights})}")
    words = ["summary", "model=m", *DATA, "experiment=w"]
    assert file.first in find_problems(words, monkeypatch)[0].found
    for _ in range(4):
        problems = find_problems(words, monkeypatch)
        if not problems:
            break
        typed = [text for each in problems for text in read_overrides(each.fix)]
        assert typed, problems
        for text in typed:
            check_argument(words, text, problems, monkeypatch)
        words += shlex.split(typed[0])
    assert not problems, problems
    assert count_loaded(words) == file.loaded


def check_argument(words: list[str], text: str, problems: list[Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that an argument removes each problem whose fix it is."""
    assert not SHELL_CHARACTERS.search("".join(text.split("'")[::2])), f"a shell changes {text}"
    left = find_problems([*words, *shlex.split(text)], monkeypatch)
    solved = [each.found for each in problems if text in each.fix]
    assert solved and not [each for each in left if each.found in solved], (text, left)


def count_loaded(words: list[str]) -> int:
    """Count the tensors of the model that have a value of the file."""
    network = dlspec.build([each for each in words[1:] if each.partition("=")[0] != "summary"])
    start = dlspec.build(["model=m", *DATA])
    return sum(
        name.endswith("num_batches_tracked") or not torch.equal(each, start.state_dict()[name])
        for name, each in network.state_dict().items()
    )
