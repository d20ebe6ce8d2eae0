"""The command line. `--help` and `--version` answer before anything heavy is imported."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from dlspec.cli.names import LIGHT, NOT_YET
from dlspec.compat.torchmetrics import leave_out_plots
from dlspec.jobs.error_messages import DONE, FAILED, INTERRUPTED, WRONG
from dlspec.text import COMMANDS


def main() -> int:
    """The command line's process.

    Importing makes a million objects that live as long as the process, and collecting among them takes 0.4 s for
    nothing: the collector rests until training starts it (dlspec.jobs.setup), and does not look at them at the end.
    """
    gc.disable()
    hear_interrupts()
    leave_out_plots()
    try:
        return run(sys.argv[1:])
    finally:
        gc.freeze()


def hear_interrupts() -> None:
    """Let SIGINT reach this process, however it was started.

    A shell script, and `nohup COMMAND &` in one, starts what runs in the background with SIGINT ignored, and Python
    leaves it so: `kill -INT` would neither save the run nor end it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(words: Sequence[str]) -> int:
    """Runs a command; 0 done, 1 failed, 2 a mistake in spec or arguments, 128 and a signal's number."""
    return _guarded(lambda: _answer(list(words)))


def _answer(words: list[str]) -> int:
    command, rest = _split(words)
    if command in COMMANDS and ("--help" in rest or "-h" in rest):
        return _say_help()
    if "--version" in words:
        return _say_version()
    if command not in COMMANDS:
        return _unknown(command)
    return _run(command, rest)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command is a bare first word; none means `train`."""
    if words and not words[0].startswith(("-", "+", "~")) and "=" not in words[0]:
        return words[0], words[1:]
    return "train", words


def _say_help() -> int:
    from dlspec.cli.help import help_text

    print(help_text())
    return DONE


def _say_version() -> int:
    print(f"dlspec {_version()}")
    return DONE


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("dlspec")
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return f"{tomllib.loads(text)['project']['version']} (a checkout that is not installed)"


def _unknown(command: str) -> int:
    from dlspec.errors import suggest

    what = "is not there yet" if command in NOT_YET else f"is no command; {suggest(command, COMMANDS)}"
    print(f"'{command}' {what}\nto change a setting write KEY=VALUE; --help lists commands and groups", file=sys.stderr)
    return WRONG


def _run(command: str, rest: list[str]) -> int:
    if command in LIGHT:
        return int(import_module(f"dlspec.cli.commands.{command}").main(rest))
    from dlspec.limits import deep_stack

    with deep_stack():
        if command == "train" and {"-m", "--multirun"} & set(rest):
            from dlspec.sweeps.executors.processes import warm_up

            warm_up()
        return int(import_module(f"dlspec.cli.commands.{command}").main(rest))


def _guarded(action: Callable[[], int]) -> int:
    """Whatever ends the action becomes an exit code, and a user's mistake a text without a traceback."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SystemExit as asked:  # argparse has told what was wrong
        return asked.code if isinstance(asked.code, int) else FAILED
    except KeyboardInterrupt as interrupted:
        print(str(interrupted) or "interrupted", file=sys.stderr)
        return int(getattr(interrupted, "code", INTERRUPTED))
    except BrokenPipeError:  # `dlspec --help | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return _tell(error)


def _tell(error: Exception) -> int:
    """A text and an exit code; an error that is a defect of ours shows itself."""
    from dlspec.errors import printable
    from dlspec.jobs.error_messages import told

    known = told(error)
    if known is None:
        raise error
    text, code = known
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr)
    return code
