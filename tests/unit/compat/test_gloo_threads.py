"""The end of a process waits for Gloo's threads."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
import torch.distributed as dist

from dlspec.compat.torch_gloo import THREAD_NAME, wait_for_gloo_threads

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(not TASKS.exists(), reason="needs /proc")


def test_threads_that_work_are_waited_for() -> None:
    done: list[str] = []
    start = threading.Barrier(3)

    def work() -> None:
        (TASKS / str(threading.get_native_id()) / "comm").write_text(THREAD_NAME)
        start.wait()
        for _ in range(3):
            hashlib.pbkdf2_hmac("sha256", b"", b"", 30_000)  # without Python's lock
        done.append("worked")

    for _ in range(2):
        threading.Thread(target=work).start()
    start.wait()
    wait_for_gloo_threads()
    assert done == ["worked", "worked"]


def test_pytorch_gives_its_threads_this_name() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        dist.barrier()  # by a thread that then has its name
        assert THREAD_NAME in {each.read_text().strip() for each in TASKS.glob("*/comm")}
        wait_for_gloo_threads()
    finally:
        dist.destroy_process_group()
