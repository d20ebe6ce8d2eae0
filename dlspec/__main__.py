"""The command line. `--help` and `--version` answer before anything heavy is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

COMMANDS = {
    "train": "train and test (the default: the word may be left out); -m sweeps",
    "validate": "check a spec without opening data; says which checks had to wait for them",
    "summary": "the network's layers, shapes and parameters",
}
NOT_YET = ("evaluate", "predict", "resume", "report", "compare", "export", "eject", "schema", "inspect", "list",
           "show", "explain", "status")  # fmt: skip
DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is 0 done, 1 failed, 2 a mistake in spec or arguments, 130 interrupted."""
    words = list(sys.argv[1:] if words is None else words)
    command, rest = _split(words)
    if command == "train" and ("--help" in rest or "-h" in rest):
        return _say_help()
    if "--version" in words:
        return _say_version()
    if command not in COMMANDS:
        return _unknown(command)
    return _guarded(lambda: _run(command, rest))


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command is a bare first word; none means `train`."""
    if words and not words[0].startswith(("-", "+", "~")) and "=" not in words[0]:
        return words[0], words[1:]
    return "train", words


def _say_help() -> int:
    from dlspec.app.help import help_text

    print(help_text())
    return DONE


def _say_version() -> int:
    from dlspec.run_folder import package_version

    print(f"dlspec {package_version('dlspec') or '(not installed)'}")
    return DONE


def _unknown(command: str) -> int:
    from dlspec.errors import suggest

    what = "is not there yet" if command in NOT_YET else f"is no command; {suggest(command, COMMANDS)}"
    print(f"'{command}' {what}\nto change a setting write KEY=VALUE; --help lists commands and groups", file=sys.stderr)
    return WRONG


def _run(command: str, rest: list[str]) -> int:
    if command == "train":
        from dlspec.app.train import main as train

        return train(rest)
    from dlspec.app.commands import COMMANDS as functions

    return functions[command](rest)


def _guarded(action: Callable[[], int]) -> int:
    """Whatever ends the action becomes an exit code, and a user's mistake a text without a traceback."""
    from dlspec.errors import UserError

    try:
        return action()
    except UserError as error:
        print(error, file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `dlspec validate | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return _other(error)


def _other(error: Exception) -> int:
    """Hydra's and the training's own complaints in one line; anything else is a defect of ours and shows itself."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dlspec.training.state import TrainingFailed

    if isinstance(error, HydraException | OmegaConfBaseException):
        print(_hydra_text(error), file=sys.stderr)
        return WRONG
    if isinstance(error, TrainingFailed):
        print(error, file=sys.stderr)
        return FAILED
    raise error


def _hydra_text(error: Exception) -> str:
    lines = [line.strip() for line in str(error.__cause__ or error).split("\n") if line.strip()]
    return "\n".join([f"config   {lines[0] if lines else type(error).__name__}", "1 problem; nothing was run."])


if __name__ == "__main__":
    sys.exit(main())
