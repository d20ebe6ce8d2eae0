"""`generate`: text that follows a prompt, with a finished run."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.errors import UserError, replace_in_lines
from dlspec.inference.generation.sampling import DEFAULT_TEMPERATURE, GenerationOptions
from dlspec.inference.predictor import predictor
from dlspec.jobs.error_reporting import EXIT_OK

GENERATION_WORDS = ("temperature", "top_k", "top_p", "seed", "max_length", "beams")
WORDS = ("run", "prompt", *GENERATION_WORDS, "stop", "checkpoint", "device", "imports")
STANDARD_INPUT = "-"
EXAMPLE = "python -m dlspec generate run=latest prompt='Once upon a time'"


def main(argv: Sequence[str]) -> int:
    """Print a text, and return the exit code."""
    arguments = parse_run_arguments("generate", argv, WORDS)
    for name in arguments.data:
        raise UserError(f"data.{name} has no effect on a prompt; leave it out")
    prompt, options = _read_prompt(arguments), read_generation_options(arguments)
    run = predictor(
        arguments.require_run(),
        checkpoint=arguments.get_text("checkpoint") or "best",
        device=arguments.get_text("device"),
        imports=arguments.get_list("imports") or (),
    )
    generator = run.text_generator
    if generator.problem:
        _note(f"each token computes the window again, as {generator.problem}")
    began = time.monotonic()
    if not generator.is_written:
        _show(prompt)
    pieces = 0
    for piece in generator.generate(prompt, options):
        _show(piece)
        pieces += 1
    _show("\n")
    seconds = max(time.monotonic() - began, 1e-9)
    _note(f"{pieces:,} pieces of text in {seconds:.1f} s, {pieces / seconds:,.0f}/s")
    return EXIT_OK


def _read_prompt(arguments: RunArguments) -> str:
    prompt = arguments.get_text("prompt")
    if prompt is None:
        raise UserError(f"no prompt is given; write for example {EXAMPLE}")
    return sys.stdin.read() if prompt == STANDARD_INPUT else prompt


def read_generation_options(arguments: RunArguments) -> GenerationOptions:
    """Read how tokens are chosen from the words of a command."""
    temperature = arguments.get_number("temperature")
    seed = arguments.get_number("seed", int)
    return GenerationOptions(
        DEFAULT_TEMPERATURE if temperature is None else temperature,
        arguments.get_number("top_k", int),
        arguments.get_number("top_p"),
        0 if seed is None else seed,
        arguments.get_number("max_length", int),
        tuple(arguments.get_list("stop") or ()) if "stop" in arguments.words else (),
        arguments.get_number("beams", int) or 1,
    )


def _show(text: str) -> None:
    """Print a piece of text at once, without control characters that a terminal would obey."""
    print(replace_in_lines(text), end="", flush=True)


def _note(text: str) -> None:
    print(replace_in_lines(text), file=sys.stderr, flush=True)
