"""`generate`: text that follows a prompt, with a finished run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dlspec.cli.generation_arguments import GENERATION_WORDS, read_generation_options
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.errors import UserError, replace_in_lines
from dlspec.generation.sampling import GenerationOptions
from dlspec.inference.predictor import predictor
from dlspec.jobs.error_reporting import EXIT_OK

WORDS = ("run", "prompt", *GENERATION_WORDS, "checkpoint", "device", "imports")
STANDARD_INPUT = "-"
EXAMPLE = "python -m dlspec generate run=latest prompt='The first time'"


def main(argv: Sequence[str]) -> int:
    """Print a text, and return the exit code."""
    arguments = parse_run_arguments("generate", argv, WORDS)
    for name in arguments.data:
        raise UserError(f"data.{name} has no effect on a prompt; leave it out")
    prompt, options = _read_prompt(arguments), read_generation_options(arguments) or GenerationOptions()
    run = predictor(
        arguments.require_run(),
        checkpoint=arguments.get_text("checkpoint") or "best",
        device=arguments.get_text("device"),
        imports=arguments.get_list("imports") or (),
    )
    generator = run.text_generator
    if generator.problem:
        found = f"each token computes the window again, as {generator.problem}"
        print(replace_in_lines(found), file=sys.stderr, flush=True)
    pieces = generator.generate(prompt, options)
    if not generator.is_written:
        _show(prompt)
    for piece in pieces:
        _show(piece)
    _show("\n")
    return EXIT_OK


def _read_prompt(arguments: RunArguments) -> str:
    prompt = arguments.get_text("prompt")
    if prompt is None:
        raise UserError(f"no prompt is given; write for example {EXAMPLE}")
    return sys.stdin.read() if prompt == STANDARD_INPUT else prompt


def _show(text: str) -> None:
    """Print a piece of text at once, without control characters that a terminal would obey."""
    print(replace_in_lines(text), end="", flush=True)
