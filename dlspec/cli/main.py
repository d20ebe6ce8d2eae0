"""The command line. `--help` and `--version` answer before anything heavy is imported."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from dlspec.cli.command_names import LIGHT_COMMANDS, PLANNED_COMMANDS
from dlspec.compat.torchmetrics import leave_out_plots
from dlspec.formatting import COMMANDS
from dlspec.jobs.error_reporting import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK


def main() -> int:
    """The command line's process.

    Importing makes a million objects that live as long as the process, and collecting among them takes 0.4 s for
    nothing: the collector rests until training starts it (dlspec.jobs.job_setup), and does not look at them at the end.
    """
    gc.disable()
    enable_interrupts()
    leave_out_plots()
    try:
        return run_command(sys.argv[1:])
    finally:
        gc.freeze()


def enable_interrupts() -> None:
    """Let SIGINT reach this process, however it was started.

    A shell script, and `nohup COMMAND &` in one, starts what runs in the background with SIGINT ignored, and Python
    leaves it so: `kill -INT` would neither save the run nor end it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_command(argv: Sequence[str]) -> int:
    """Runs a command; 0 done, 1 failed, 2 a mistake in spec or arguments, 128 and a signal's number."""
    return _run_with_exit_code(lambda: _dispatch(list(argv)))


def _dispatch(argv: list[str]) -> int:
    command, rest = _split_command(argv)
    if command in COMMANDS and ("--help" in rest or "-h" in rest):
        return _print_help()
    if "--version" in argv:
        return _print_version()
    if command not in COMMANDS:
        return _report_unknown(command)
    return _call_command(command, rest)


def _split_command(argv: list[str]) -> tuple[str, list[str]]:
    """The command is a bare first word; none means `train`."""
    if argv and not argv[0].startswith(("-", "+", "~")) and "=" not in argv[0]:
        return argv[0], argv[1:]
    return "train", argv


def _print_help() -> int:
    from dlspec.cli.help import format_help

    print(format_help())
    return EXIT_OK


def _print_version() -> int:
    print(f"dlspec {_find_version()}")
    return EXIT_OK


def _find_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("dlspec")
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        return f"{tomllib.loads(text)['project']['version']} (a checkout that is not installed)"


def _report_unknown(command: str) -> int:
    from dlspec.errors import suggest

    what = "is not there yet" if command in PLANNED_COMMANDS else f"is no command; {suggest(command, COMMANDS)}"
    print(f"'{command}' {what}\nto change a setting write KEY=VALUE; --help lists commands and groups", file=sys.stderr)
    return EXIT_INVALID


def _call_command(command: str, rest: list[str]) -> int:
    if command in LIGHT_COMMANDS:
        return int(import_module(f"dlspec.cli.commands.{command}").main(rest))
    from dlspec.limits import allow_deep_recursion

    with allow_deep_recursion():
        if command == "train" and {"-m", "--multirun"} & set(rest):
            from dlspec.sweeps.executors.process_executor import start_fork_server

            start_fork_server()
        return int(import_module(f"dlspec.cli.commands.{command}").main(rest))


def _run_with_exit_code(action: Callable[[], int]) -> int:
    """Whatever ends the action becomes an exit code, and a user's mistake a text without a traceback."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SystemExit as asked:  # argparse has told what was wrong
        return asked.code if isinstance(asked.code, int) else EXIT_FAILED
    except KeyboardInterrupt as interrupted:
        print(str(interrupted) or "interrupted", file=sys.stderr)
        return int(getattr(interrupted, "code", EXIT_INTERRUPTED))
    except BrokenPipeError:  # `dlspec --help | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        return _print_error(error)


def _print_error(error: Exception) -> int:
    """A text and an exit code; an error that is a defect of ours shows itself."""
    from dlspec.errors import replace_control_characters
    from dlspec.jobs.error_reporting import message_and_exit_code

    known = message_and_exit_code(error)
    if known is None:
        raise error
    text, code = known
    print("\n".join(replace_control_characters(line) for line in text.split("\n")), file=sys.stderr)
    return code
