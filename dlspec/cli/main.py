"""The command line's entry point. `--help` and `--version` are answered before anything heavy is imported."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from dlspec.cli.command_names import LIGHT_COMMANDS, PLANNED_COMMANDS, PRINTING_FLAGS, TRAINING_COMMANDS
from dlspec.compat.torchmetrics import skip_plot_imports
from dlspec.formatting import COMMANDS
from dlspec.jobs.error_reporting import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from dlspec.standard_streams import open_missing_descriptors, tolerate_output_errors


def main() -> int:
    """Run the process of the command line and return its exit code.

    Imports create a million objects that live as long as the process. Garbage collection among them takes 0.4 s and
    frees nothing, so it is disabled until training enables it (dlspec.jobs.job_setup). `gc.freeze` excludes them from
    the collection at exit.
    """
    gc.disable()
    open_missing_descriptors()
    enable_interrupts()
    skip_plot_imports()
    try:
        return _run_with_any_output(sys.argv[1:])
    finally:
        gc.freeze()


def _run_with_any_output(argv: Sequence[str]) -> int:
    """Run a command, also if its output can't be written, and return its exit code.

    A training returns its own exit code. For other commands, what they print is their result: without it they have
    failed. They have not failed if the reader stops reading (`| head -1`).
    """
    trains = _trains(argv)
    with tolerate_output_errors(reports_closed_pipe=trains) as outputs:
        code = run_command(argv)
    printed = outputs.get("stdout")
    has_lost = printed is not None and printed.error is not None and not printed.is_pipe_closed
    return EXIT_FAILED if has_lost and code == EXIT_OK and not trains else code


def _trains(argv: Sequence[str]) -> bool:
    """Whether a command line trains, and does not only print something."""
    command, rest = _split_command(list(argv))
    return command in TRAINING_COMMANDS and not {word.partition("=")[0] for word in rest} & PRINTING_FLAGS


def enable_interrupts() -> None:
    """Make this process react to SIGINT, however it was started.

    A shell script starts background commands (`COMMAND &`, also with nohup) with SIGINT ignored, and Python keeps that:
    `kill -INT` would then neither save the run nor end it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_command(argv: Sequence[str]) -> int:
    """Run a command and return its exit code.

    The code is 0 for success, 1 for a failure, 2 for an error in the spec or the arguments, and 128 plus the signal's
    number after an interruption.
    """
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
    """Split off the command: a first argument without dash or `=`. Without one the command is `train`."""
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
    from dlspec.errors import replace_control_characters, suggest

    choices = suggest(command, COMMANDS, len(COMMANDS))
    what = "is not available yet" if command in PLANNED_COMMANDS else f"is not a command; {choices}"
    shown = replace_control_characters(command)
    print(f"'{shown}' {what}\nto change a setting write KEY=VALUE; --help lists commands and groups", file=sys.stderr)
    return EXIT_INVALID


def _call_command(command: str, rest: list[str]) -> int:
    if command in LIGHT_COMMANDS:
        return int(import_module(f"dlspec.cli.commands.{command}").main(rest))
    from dlspec.limits import allow_deep_recursion

    with allow_deep_recursion():
        if command == "train" and {"-m", "--multirun"} & set(rest):
            from dlspec.sweeps.executors.process_executor import import_and_start_fork_server

            import_and_start_fork_server()
        return int(import_module(f"dlspec.cli.commands.{_find_file(command, rest)}").main(rest))


def _find_file(command: str, rest: Sequence[str]) -> str:
    """Return the file of a command; an exported file is run without PyTorch."""
    uses_file = command in ("predict", "evaluate") and any(each.startswith("file=") for each in rest)
    return f"{command}_with_file" if uses_file else command


def _run_with_exit_code(action: Callable[[], int]) -> int:
    """Run an action and return its exit code; print an error of the user without a traceback."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SystemExit as asked:  # argparse has printed the error
        return asked.code if isinstance(asked.code, int) else EXIT_FAILED
    except KeyboardInterrupt as interrupted:
        from dlspec.errors import replace_in_lines

        print(replace_in_lines(str(interrupted)) or "interrupted", file=sys.stderr)
        return int(getattr(interrupted, "code", EXIT_INTERRUPTED))
    except Exception as error:
        return _print_error(error)


def _print_error(error: Exception) -> int:
    """Print an error's message and return the exit code; raise errors that are bugs of dlspec, with their traceback."""
    from dlspec.errors import replace_in_lines
    from dlspec.jobs.error_reporting import message_and_exit_code

    known = message_and_exit_code(error)
    if known is None:
        raise error
    text, code = known
    print(replace_in_lines(text), file=sys.stderr)
    return code
