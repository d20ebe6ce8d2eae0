"""Checkpoints of strangers: whatever is in them, nothing of it is run, and the answer is a line."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from dlspec.training.checkpoint.checkpoint_files import (
    STATE_TENSOR,
    DamagedCheckpoint,
    Snapshot,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from dlspec.training.checkpoint.tensor_file import CHECKSUM_KEY, compute_checksum, write_tensors
from helpers.command_line import QUIET, CommandResult, run_in_this_process
from helpers.interrupted_runs import CallAfterBatches, make_signal_sender

Run = Callable[..., CommandResult]
SMALL = (*QUIET, "trainer.batch_size=16", "trainer.limit_batches=6", "trainer.epochs=3", "trainer.progress=none")
SECONDS = 20


@pytest.fixture
def limited() -> Iterator[None]:
    """A hang is a failure."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS * 30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with contextlib.chdir(folder):
        assert run_in_this_process(*SMALL, "model=linear", "hydra.run.dir=run").code == 0
    return folder / "run"


@pytest.fixture
def run(_run: Path, work: Path) -> Path:
    """A finished run of a few kB, whose checkpoints are to be replaced."""
    return Path(shutil.copytree(_run, work / "run"))


class Evil:
    """Unpickled it would leave a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("pwned"),)


def header(content: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


def one(start: int, end: int, shape: list[int], kind: str = "F32") -> bytes:
    return header({"a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}) + bytes(64)


FILES: dict[str, bytes | Callable[[Path], None]] = {
    "a pickle": pickle.dumps(Evil()),
    "torch.save": lambda path: torch.save(Evil(), path),
    "an endless header": (2**64 - 1).to_bytes(8, "little") + b"{",
    "a long header": (2**40).to_bytes(8, "little") + b"{" * 1000,
    "a header of 90 MB that is not there": (90 * 10**6).to_bytes(8, "little") + b"{",
    "no JSON": header(b"\xff" * 64),
    "deep JSON": header(b"[" * 100_000 + b"]" * 100_000),
    "deep metadata": header(b'{"__metadata__":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    "a list": header([1, 2]),
    "offsets behind the end": one(0, 2**40, [2**38]),
    "offsets before the start": one(2**64 - 4, 64, [16]),
    "offsets that cross": one(32, 0, [8]),
    "offsets beside the shape": one(0, 64, [3]),
    "a shape that overflows": one(0, 64, [2**62, 2**62]),
    "a shape below 0": one(0, 64, [-4, -4]),
    "an unknown type": one(0, 64, [16], "F1"),
    "a type of half bytes": one(0, 64, [128], "F4"),
    "other people's weights": one(0, 64, [16]),
    "many tensors": header({f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint(
    name: str, run: Path, dlspec: Run, limited: None, caplog: pytest.LogCaptureFixture
) -> None:
    content, path = FILES[name], run / "checkpoints/step-000000099.safetensors"
    content(path) if callable(content) else path.write_bytes(content)
    said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert (said.code, Path("pwned").exists()) == (0, False)
    assert "step-000000099.safetensors can't be used: " in caplog.text
    assert path.with_name(f"{path.name}.damaged").exists()


def hostile_state(folder: Path, state: bytes, **texts: str) -> Path:
    """A checkpoint whose sums are right and whose state is the given one."""
    tensors = {STATE_TENSOR: torch.frombuffer(bytearray(state), dtype=torch.uint8)}
    texts = {"format": "1", "step": "99", **texts}
    path = folder / "step-000000099.safetensors"
    write_tensors(path, tensors, {**texts, CHECKSUM_KEY: compute_checksum(tensors, texts)})
    return path


@pytest.mark.parametrize(
    ("state", "texts", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, {}, "its state can't be read"),
        (b"\xff\xfe", {}, "its state can't be read"),
        (b"{}", {"step": "9" * 5000}, "its state can't be read"),
        (b"{}", {"step": "-99"}, "its name does not match its step -99"),
        (b"{}", {"format": "\x1b[31m" * 90}, "expected checkpoint format 1, got \ufffd\\[31m"),
        (b"{}", {"format": "2"}, "expected checkpoint format 1, got 2"),
    ],
)
def test_a_state_that_can_not_be_read(tmp_path: Path, state: bytes, texts: dict[str, str], reason: str) -> None:
    with pytest.raises(DamagedCheckpoint, match=reason):
        read_checkpoint(hostile_state(tmp_path, state, **texts))


@pytest.mark.parametrize("state", [b"{}", b"[]", b"1", b'{"dict": [[[], 1]]}', b'{"dict": [["progress", 1]]}',
                                   b'{"tensor": "gone"}', b'{"float": "x"}', b'{"exec": "import os"}'])  # fmt: skip
def test_a_state_of_another_kind(state: bytes, run: Path, dlspec: Run) -> None:
    hostile_state(run / "checkpoints", state)
    said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("the checkpoint of step 99 does not fit this run: ")


def changed(tree: Any, way: str, value: Any) -> None:
    """Puts `value` at a way such as `generators.numpy.2` into a packed tree."""
    first, _, rest = way.partition(".")
    if isinstance(tree, list):
        inner, key = tree, int(first)
    else:
        [pair] = [each for each in tree["dict"] if str(each[0]) == first]
        inner, key = pair, 1
    if rest:
        changed(inner[key], rest, value)
    else:
        inner[key] = value


@pytest.mark.parametrize(
    ("way", "value", "reason"),
    [
        ("generators.numpy.2", 2**31 - 1, "invalid position of NumPy's generator: 2147483647"),
        (
            "optimizer.state.0.exp_avg",
            {"tensor": "optimizer.state.1.exp_avg"},
            "the optimizer's exp_avg has shape (10,), ",
        ),
        ("schedule", {"dict": [["step", 1]]}, "the scheduler has no attribute 'step'"),
        ("progress.epoch", -(2**60), "epoch: Input should be greater than or equal to 0"),
        ("progress.epoch", 2, "2 epochs are finished, but 3 have results"),
        ("monitor.epoch", 9, "the best epoch is 9, but only 3 epochs are finished"),
    ],
)
def test_values_that_would_be_used_without_asking(way: str, value: Any, reason: str, work: Path, dlspec: Run) -> None:
    scheduler = ("scheduler=StepLR", "scheduler.step_size=1")
    assert dlspec(*SMALL, *scheduler, "model=linear", "hydra.run.dir=run").code == 0
    newest = list_checkpoints(work / "run/checkpoints")[-1]
    snapshot = read_checkpoint(newest)
    changed(snapshot.tree, way, value)
    write_checkpoint(newest.parent, snapshot, {})
    said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 1
    assert reason in said.err.splitlines()[-1]


# ---- names that lead elsewhere ---------------------------------------------------------------------------------------


def test_links_lead_nowhere(run: Path, work: Path, dlspec: Run) -> None:
    """Nothing outside the folder is written, deleted or trained from."""
    outside = work / "outside"
    outside.mkdir()
    shutil.copytree(run / "checkpoints", outside / "checkpoints")
    for name in ("log.txt", "metrics.jsonl", "timing.jsonl", "result.json", "status.json", "environment.json"):
        (run / name).unlink()
        (run / name).symlink_to(outside / name)  # where nothing is yet
    (outside / "spec").write_bytes((run / "spec.yaml").read_bytes())
    newest = list_checkpoints(run / "checkpoints")[-1]
    later = newest.with_name("step-000000099.safetensors")
    later.symlink_to(outside / "checkpoints" / newest.name)
    before = {each: each.read_bytes() for each in outside.rglob("*") if each.is_file()}
    assert dlspec("resume", "run=run", "trainer.epochs=4").code == 0
    assert before == {each: each.read_bytes() for each in outside.rglob("*") if each.is_file()}
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(outside / "checkpoints")
    said = dlspec("resume", "run=run", "trainer.epochs=5")
    assert (said.code, said.err) == (
        2,
        "'run/checkpoints' is a symbolic link: replace it with the folder that it points to\n",
    )
    assert before == {each: each.read_bytes() for each in outside.rglob("*") if each.is_file()}


def test_imports_are_the_users_to_allow(run: Path, work: Path, dlspec: Run, write: Callable[[str, str], Path]) -> None:
    write("theirs.py", "from pathlib import Path\nPath('pwned').touch()\n")
    spec = run / "spec.yaml"
    spec.write_text("imports: [theirs]\n" + spec.read_text())
    said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 2
    assert "this spec runs code from theirs   if you trust them, add 'imports=[theirs]'" in said.err
    assert not (work / "pwned").exists()


# ---- everything else -------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, -0.5, 1e300, "", "x", "nan", "1", [], [[]], {}, {"dict": []},
    {"rows": 1}, {"rows": [{"x": []}]},
    {"float": "inf"}, {"float": "nan"}, {"tuple": []}, {"tensor": ""}, {"dict": [["step", 1]]}, {"dict": [["x", None]]},
]  # fmt: skip


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in it."""
    yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in pairs:
        yield from nodes(each, (*path, key))


def mutated_tree(tree: Any, tensors: dict[str, Tensor], chance: random.Random) -> Any:
    """A value, a key or an entry is another, gone, or there twice."""
    tree = copy.deepcopy(tree)
    *way, last = chance.choice([each for each in nodes(tree) if each])
    inner = tree
    for key in way:
        inner = inner[key]
    kind = chance.randrange(5)
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, list):
        inner.insert(last, copy.deepcopy(inner[last]))
    elif kind == 2:
        inner[last] = {"tensor": chance.choice(sorted(tensors))}
    else:
        inner[last] = copy.deepcopy(chance.choice(VALUES))
    return tree


def mutated_tensor(tensor: Tensor, chance: random.Random) -> Tensor:
    """Of another shape, type or content."""
    changes: list[Callable[[], Tensor]] = [
        lambda: tensor.reshape(-1)[:-1],
        lambda: torch.zeros(0),
        lambda: torch.zeros(()),
        lambda: tensor.to(chance.choice([torch.int64, torch.float16, torch.bool, torch.uint8, torch.float64])),
        lambda: torch.cat([tensor.reshape(-1)] * 2),
        lambda: tensor.unsqueeze(0),
        lambda: torch.full_like(tensor, chance.choice([-1, 255, 0])) if tensor.dtype != torch.bool else ~tensor,
    ]
    return chance.choice(changes)().contiguous()


def mutated(snapshot: Snapshot, chance: random.Random) -> Snapshot:
    tree, tensors = snapshot.tree, dict(snapshot.tensors)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if chance.random() < 0.25 and tensors:
            name = chance.choice(sorted(tensors))
            tensors[name] = mutated_tensor(tensors[name], chance)
        else:
            tree = mutated_tree(tree, tensors, chance)
    return Snapshot(snapshot.step, tree, tensors)


RUNS: dict[str, tuple[str, ...]] = {
    "fused Adam in an epoch": ("model=linear", "scheduler=MultiStepLR", "scheduler.milestones=[1,2]"),
    "EMA, plateau": ("model=linear", "optimizer=SGD", "optimizer.momentum=0.9", "trainer.average=EMA",
                     "scheduler=ReduceLROnPlateau", "trainer.patience=2"),
    "one cycle, accumulation": ("model=linear", "optimizer=AdamW", "scheduler=OneCycleLR", "scheduler.max_lr=0.01",
                                "trainer.accumulate=2", "metrics=[F1Score,AUROC]"),
}  # fmt: skip


@pytest.fixture(params=RUNS)
def cut_run(request: pytest.FixtureRequest, work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was ended within its second epoch."""
    from dlspec.jobs import job

    usual = job.make_default_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(
            job,
            "make_default_callbacks",
            lambda *args: [*usual(*args), CallAfterBatches("train", 8, make_signal_sender(15))],
        )
        assert dlspec(*SMALL, *RUNS[request.param], "hydra.run.dir=run").code == 143
    return work / "run"


def check_mutants(folder: Path, dlspec: Run, numbers: range) -> dict[int, int]:
    """How many mutants went on, and how many were refused; fails on everything else."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    snapshot, codes = read_checkpoint(newest), {0: 0, 1: 0, 2: 0}
    shutil.copytree(folder, "right")
    for number in numbers:
        shutil.rmtree(folder)
        shutil.copytree("right", folder)
        write_checkpoint(newest.parent, mutated(snapshot, random.Random(number)), {"spec": "{}"})
        said = dlspec("resume", "run=run")  # an exception here is a traceback for the user
        assert said.code in codes, (number, said)
        assert said.code == 0 or len(said.err.splitlines()[-1]) < 1000, (number, said)
        codes[said.code] += 1
    return codes


def test_mutated_checkpoints(cut_run: Path, dlspec: Run, limited: None) -> None:
    codes = check_mutants(cut_run, dlspec, range(12))
    assert codes[1] > 2
    assert codes[2] < 4  # other numbers of samples


@pytest.mark.soak
def test_a_thousand_mutated_checkpoints(cut_run: Path, dlspec: Run) -> None:
    print(check_mutants(cut_run, dlspec, range(1000)))
