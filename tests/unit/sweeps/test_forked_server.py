"""The fork server of a sweep on the command line: a copy of its process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlspec.compat.forkserver import has_one_thread
from helpers.command_line import make_environment

PROGRAM = """
import multiprocessing, os, signal, sys
from multiprocessing import forkserver
from dlspec.compat.torchmetrics import skip_plot_imports
from dlspec.sweeps.executors.process_executor import import_and_start_fork_server, start_fork_server
skip_plot_imports()
sys.stdout = open(os.devnull, "w")  # as a program that replaces it
import_and_start_fork_server()
import torch
sys.stdout = sys.__stdout__
server = forkserver._forkserver._forkserver_pid
start_fork_server()  # keeps it
with multiprocessing.get_context("forkserver").Pool(1) as pool:
    found = [pool.apply(each) for each in (os.getppid, torch.get_num_threads)]
    names = "[each in __import__('sys').modules for each in ('torchmetrics', 'matplotlib.ticker')]"
    is_imported = pool.apply(eval, (names,))
    files = pool.apply(os.listdir, ("/proc/self/fd",))
print(server, found == [server, 1], is_imported, len(files) < 20, os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(process: str) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # empty if it has ended, and nobody has asked how
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server is started as usual")
def test_a_copy_of_the_process_is_the_fork_server(tmp_path: Path) -> None:
    """Its processes have one thread, whatever this process has, and it ends with a process that is killed."""
    environment = {key: each for key, each in make_environment().items() if key != "OMP_NUM_THREADS"}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    server, *found = done.stdout.split(maxsplit=1)
    assert found == ["True [True, False] True None\n"], done.stdout + done.stderr
    deadline = time.monotonic() + 30
    while is_running(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(server)


def test_a_process_with_threads_is_not_copied() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    assert not has_one_thread()
    ended.set()
    thread.join()
