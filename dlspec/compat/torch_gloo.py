"""The threads of PyTorch's Gloo backend, at the end of a process."""

from __future__ import annotations

import time
from pathlib import Path

THREAD_NAME = "pt_gloo_runloop"
MAX_THREAD_SECONDS = 10.0  # to wait for threads that do not come to rest
REST_SECONDS = 0.02  # several times as long as a thread waits for Python's lock before it asks again, 0.005
_STATE, _SWITCHES = "State", "voluntary_ctxt_switches"  # lines of /proc/self/task/*/status


def wait_for_gloo_threads() -> None:
    """Wait until Gloo's threads have nothing left to do; at most ten seconds. Without `/proc`, this does nothing.

    These threads drop the tensors of a call after it has returned, and take Python's lock (the GIL) for that. If Python
    is ending, a thread that wants the lock is unwound through C++ code that allows no exceptions, and the process
    aborts: "terminate called without an active exception", exit code -6. `destroy_process_group` joins the threads
    only if nothing else refers to the group, but DTensor's caches do.

    Other threads can take the lock while this one sleeps. One that had wanted it has then run, or still waits for a
    core; one that has slept all the time wants nothing.
    """
    deadline = time.monotonic() + MAX_THREAD_SECONDS
    before: dict[str, tuple[str, str]] = {}
    now = _read_states()
    while now != before or any(not state.startswith("S") for state, _ in now.values()):
        if time.monotonic() > deadline:
            return
        time.sleep(REST_SECONDS)
        before, now = now, _read_states()


def _read_states() -> dict[str, tuple[str, str]]:
    """Read the state of each thread, a letter as `ps` shows it, and how often it has gone to sleep."""
    found: dict[str, tuple[str, str]] = {}
    for task in Path("/proc/self/task").glob("*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in task.read_text().splitlines() if ":\t" in line)
        except OSError:  # it has just ended
            continue
        if lines.get("Name") == THREAD_NAME:
            found[task.parent.name] = lines.get(_STATE, "S"), lines.get(_SWITCHES, "")
    return found
