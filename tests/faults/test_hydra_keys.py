"""Odd values of Hydra's own keys: each ends in a run or in a message, never in a traceback."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from dlspec.runs.job_result import JobResult
from helpers.command_line import QUIET, run_in_this_process

WORDS = ("data=random", "model=linear", "trainer.max_steps=1", "trainer.checkpoints=false", *QUIET)
GROUPS = (
    "hydra",
    *(f"hydra/{name}" for name in ("launcher", "sweeper", "job_logging", "hydra_logging", "help", "env")),
)
# Keys that name a file or folder get no value that names one outside the working folder.
VALUES = [
    *("null", "true", "false", "0", "-1", "16", "1.5", "1e400", "nan", "inf", "99999999999999999999", "-0"),
    *("0x10", "1_0", "''", '""', "' '", "a", "A", "abc", "'a b'", "'a,b'", "'a=b'", "é", "'é'", "'\udce9'"),
    *("'\u202e'", "'\x1b[31m'", "'\x00'", "'\n'", "'a\tb'", "'%s'", "'{}'", "'{0}'", "'*'", "'?'", "'~'"),
    *("'-a'", "'.'", "'..'", "'a/b'", "'a//b'", "'/dev/null'", "'/dev/null/x'", "'/proc/none/x'"),
    *("'x/../y'", "a.b.c", "a:b", "'???'", "???", "'con'", "'nul'", "[]", "[1]", "[null]", "[a,b]"),
    *("[[1],[2]]", "[{a: 1}]", "{}", "{a: 1}", "{a: {b: null}}", "{1: 2}", "{null: 1}"),
    *("{_target_: nothing}", "{_target_: builtins.dict}", "{_target_: 5}", "{_target_: null}"),
    *("{_target_: ''}", "{a: {_target_: nothing.Nothing}}", "{a: {_target_: builtins.dict}}", "{a: 5}"),
    *("{a: null}", "{a: [1]}", "${a}", "${hydra}", "${hydra.run.dir}", "${hydra.sweep.dir}"),
    *("${hydra:job.num}", "${hydra:nothing}", "${now:%Y}", "${now:}", "${now:%}", "${now:1,2}"),
    *("${oc.env:NOTHING_IS_SET}", "${oc.env:HOME}", "${nothing:1}", "${.}", "${..a}", "'${'", "'${a'"),
    *("'${}'", "'${${a}}'", "'$'", "'${a}${b}'", "'x${seed}y'", "${seed}", "${model}", "${oc.dict.keys:a}"),
    *("glob(*)", "range(3)", "choice(a,b)", "interval(0,1)", "sort(3,1)", "shuffle(a,b)", "int(a)"),
    *("str(1)", "json_str({})", "basic", "pool", "dlspec", "joblib", "submitit_local", "default", "none"),
    *("RUN", "MULTIRUN", "run", "colorlog", "DEBUG", "debug", "[dlspec]", "pkg://dlspec"),
    *("file:///nowhere", "[pkg://dlspec]", "conf", "tuple(1,2)", "(1,2)"),
]
PREFIXES = ("", "", "", "", "+", "++", "~")


def list_keys() -> list[str]:
    """Every key of Hydra's config, the inner ones too, and its groups."""

    def walk(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in node:
            key = f"{prefix}.{name}"
            yield key
            inner: Any = node._get_node(name)
            if isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
                yield from walk(inner, key)

    return [*walk(OmegaConf.structured(HydraConf), "hydra"), *GROUPS, "hydra.nothing", "hydra.launcher.nothing"]


KEYS = list_keys()


def draw_words(key: str, count: int) -> list[str]:
    """Draw overrides of a key: every value once, then values joined or with a prefix."""
    chance = random.Random(key)
    values = chance.sample(VALUES, len(VALUES))
    while len(values) < count:
        one, two = chance.choice(VALUES), chance.choice(VALUES)
        values.append(
            chance.choice([f"[{one},{two}]", f"{{a: {one}}}", f"{one},{two}", f"{one}{two}", f"'{one}'", one * 300])
        )
    return [f"{chance.choice(PREFIXES)}{key}={value}" for value in values[:count]]


@pytest.fixture
def trained_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are made once and train nothing; what Hydra does around them is done."""
    from dlspec.cli.commands import train
    from dlspec.jobs.job import Job
    from dlspec.sweeps.executors import job_worker

    made: list[Job] = []
    make = train.make_job

    def make_once(*args: Any, **kwargs: Any) -> Job:
        if not made:
            made.append(make(*args, **kwargs))
        return made[0]

    for module in (train, job_worker):
        monkeypatch.setattr(module, "make_job", make_once)
    for name in ("run", "run_in_folder"):
        monkeypatch.setattr(Job, name, lambda *_: JobResult())


def end(number: int, words: list[str], folder: Path) -> int:
    """Run a command in a new folder, and check how it ends."""
    inner = folder / "inside" / str(number)
    inner.mkdir(parents=True)
    os.chdir(inner)
    variables = dict(os.environ)
    try:
        ended = run_in_this_process(*words)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
    assert ended.code in (0, 1, 2), words
    assert "Traceback" not in ended.err + ended.out, words
    assert ended.code == 0 or ended.err.strip() or ended.out.strip(), words
    assert "\x1b" not in ended.err + ended.out, words
    return ended.code


def throw(keys: list[str], count: int, folder: Path) -> Counter[int]:
    codes: Counter[int] = Counter()
    failed = []
    for key in keys:
        for word in draw_words(key, count):
            flags = ["-m", "hydra/launcher=dlspec"] if sum(codes.values()) % 4 == 0 else []
            try:
                codes[end(sum(codes.values()), [*flags, *WORDS, word], folder)] += 1
            except (Exception, SystemExit) as error:
                failed.append(f"{[*flags, word]}: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)  # at once, as all values take minutes
                codes[-1] += 1
    assert failed == []
    assert sorted(each.name for each in folder.iterdir()) == ["inside"]  # nothing was written elsewhere
    return codes


def test_a_value_of_every_key(trained_by_nobody: None, work: Path) -> None:
    codes = throw(KEYS, 1, work)
    assert codes[2] > len(KEYS) / 4


@pytest.mark.soak
@pytest.mark.parametrize("part", range(4))
def test_500_values_of_every_key(part: int, trained_by_nobody: None, work: Path) -> None:
    print(throw(KEYS[part::4], 500, work))
