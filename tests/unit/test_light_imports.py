"""What small parts of dlspec do without: each works in a fork of one process that has imported PyTorch alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer

from helpers.command_line import MAX_WAIT_SECONDS, make_environment
from helpers.paths import TESTS

FORKING = """
import json, os, signal, sys, torch, traceback
for name, program in json.load(sys.stdin).items():
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    signal.alarm(SECONDS)
    os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), 1)
    os.dup2(1, 2)
    try:
        exec(program, {})
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)
"""
OPTIMIZERS = [
    name
    for name, each in vars(torch.optim).items()
    if isinstance(each, type) and issubclass(each, Optimizer) and name not in ("Optimizer", "LBFGS", "SparseAdam")
]
PROGRAMS = {
    "deterministic algorithms": """
import sys
from dlspec.training.runtime.determinism import deterministic_algorithms
with deterministic_algorithms(True):
    pass
print("torch._inductor" in sys.modules)
""",
    "checkpoints": """
import sys, dlspec.training.checkpoint.stateful
names = [each for each in sys.modules if each.startswith("dlspec.training.")]
print([each for each in names if not each.startswith("dlspec.training.checkpoint")])
""",
    "observed operations": """
import sys, torch
from dlspec.compat.torch_dispatch import observe_operations
seen = []
with observe_operations(lambda operation, output, arguments: seen.append(operation.overloadpacket)):
    torch.ones(2, 3) @ torch.ones(3, 2)
print(torch.ops.aten.mm in seen, "torch._dynamo" in sys.modules)
""",
    # Prints the names of the optimizers of which torch._dynamo was imported after making, stepping and saving them.
    "optimizers": f"""
import sys, torch
from torch.optim.lr_scheduler import StepLR
from dlspec.compat.torch_dynamo import make_step_function, without_dynamo
from dlspec.optim.optimizer import make_optimizer
for name in {OPTIMIZERS}:
    net = torch.nn.Linear(3, 2, bias=False)
    optimizer = make_optimizer(getattr(torch.optim, name), net.parameters(), {{}})
    schedule = StepLR(optimizer, 1)
    step = make_step_function(optimizer)
    for _ in range(2):
        net(torch.ones(4, 3)).sum().backward()
        step()
        schedule.step()
    with without_dynamo():
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
    if "torch._dynamo" in sys.modules:
        print(name)
        break
""",
    "a run": """
import sys
from pathlib import Path
from helpers.toy_training import TrainerSpec, make_trainer
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
settings = {"epochs": 2, "progress": "none", "patience": 9, "clip_grad_norm": 1.0, "deterministic": True}
settings |= {"accumulate": 2, "average": {"decay": 0.9}}
Path("run").mkdir()
make_trainer(settings=settings, callbacks=make_default_callbacks(TrainerSpec(**settings), Path("run"))).run()
print([name for name in ("torch._dynamo", "tensorflow", "matplotlib.pyplot", "torchmetrics") if name in sys.modules])
""",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each program wrote to its standard streams."""
    folder, variables = tmp_path_factory.mktemp("light"), make_environment()
    variables["PYTHONPATH"] += f":{TESTS}"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING.replace("SECONDS", str(MAX_WAIT_SECONDS))],
        input=json.dumps(PROGRAMS), text=True, cwd=folder, env=variables, check=True,
    )  # fmt: skip
    return {name: Path(folder, name).read_text() for name in PROGRAMS}


def test_deterministic_algorithms_do_without_the_compiler(said: dict[str, str]) -> None:
    assert said["deterministic algorithms"] == "False\n"


def test_checkpoints_do_without_the_trainer(said: dict[str, str]) -> None:
    assert said["checkpoints"] == "[]\n"


def test_observing_operations_does_not_import_the_compiler(said: dict[str, str]) -> None:
    assert said["observed operations"] == "True False\n"


def test_optimizers_do_without_the_compiler(said: dict[str, str]) -> None:
    assert OPTIMIZERS and said["optimizers"] == ""


def test_a_whole_run_with_its_files_does_without_slow_imports(said: dict[str, str]) -> None:
    assert said["a run"] == "[]\n"
