"""How the tokens of a text are chosen, as words of a command: `temperature=0.8 top_k=40`."""

from __future__ import annotations

from dlspec.cli.run_arguments import RunArguments
from dlspec.generation.sampling import DEFAULT_TEMPERATURE, GenerationOptions

GENERATION_WORDS = ("temperature", "top_k", "top_p", "seed", "max_length", "stop", "beams")


def read_generation_options(arguments: RunArguments) -> GenerationOptions | None:
    """Read the words; None if none of them is given."""
    if not arguments.words.keys() & set(GENERATION_WORDS):
        return None
    temperature, beams = arguments.get_number("temperature"), arguments.get_number("beams", int)
    return GenerationOptions(
        DEFAULT_TEMPERATURE if temperature is None else temperature,
        arguments.get_number("top_k", int),
        arguments.get_number("top_p"),
        arguments.get_number("seed", int) or 0,
        arguments.get_number("max_length", int),
        arguments.get_list("stop") or (),
        1 if beams is None else beams,
    )
