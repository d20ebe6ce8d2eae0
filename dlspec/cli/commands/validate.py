"""The commands that train nothing: `validate` and `summary`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlspec.cli.flags import parse_flags
from dlspec.cli.graph.dot import check_path, draw
from dlspec.cli.graph.picture import picture_of
from dlspec.cli.summary.network_summary import summary_text, summed
from dlspec.config.composition import Composed, start_hydra
from dlspec.errors import UserError
from dlspec.jobs.running import composed_or_refused, preparation
from dlspec.sweeps.hydra.plugins import register


def validate(words: Sequence[str]) -> int:
    """Checks the form, opens no data; raises SpecError with every mistake."""
    spec = preparation(_composed(parse_flags(_parser("validate"), words))).read()
    count = f"{len(spec.layers)} layer{'s' if len(spec.layers) != 1 else ''}"
    print(f"the form is right: {count}, {spec.optimizer.schema.name}, data {spec.data.source_name}")
    waiting = [f"${{{key}}}" for key in spec.waiting]
    later = ["shapes, the loss and the target", *waiting]
    print(f"not checked yet, for that the data must be open: {', '.join(later)}; 'summary' and 'train' check it")
    return 0


def summary(words: Sequence[str]) -> int:
    """Checks all that `train` would, then prints the network, a line a layer."""
    parser = _parser("summary")
    parser.add_argument("--depth", type=_depth, metavar="N")
    parser.add_argument("--graph", type=Path, metavar="FILE")
    parser.add_argument("--expand", action="store_true")
    arguments = parse_flags(parser, words)
    if arguments.graph is not None:
        check_path(arguments.graph)
    elif arguments.expand:
        raise UserError("--expand is for a picture: add --graph network.svg")
    found = summed(preparation(_composed(arguments)))
    for note in found.prepared.notes:
        print(note, file=sys.stderr)
    if arguments.graph is not None:
        network, holders = found.prepared.network, found.prepared.spec.graph.holders
        draw(picture_of(network, found.rows, holders, arguments.depth, expand=arguments.expand), arguments.graph)
    print(summary_text(found, arguments.depth))
    print(*([] if arguments.graph is None else [f"drawn: {arguments.graph}\n"]), end="")
    return 0


def _depth(word: str) -> int:
    if word.isdigit() and int(word):
        return int(word)
    raise argparse.ArgumentTypeError(f"'{word}' is no number of names, 1 or more")


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"dlspec {command}", add_help=False)  # --help was answered before
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    return parser


def _composed(arguments: argparse.Namespace) -> Composed:
    register()
    return composed_or_refused(arguments.overrides, start_hydra(arguments.config_dir))


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"validate": validate, "summary": summary}
