"""`summary`: the network that a spec describes, as a table and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.flags import parse_flags
from dlspec.cli.graph.dot import check_path, draw
from dlspec.cli.graph.picture import picture_of
from dlspec.cli.spec_words import compose_words, spec_parser
from dlspec.cli.summary.network_summary import summary_text, summed
from dlspec.errors import UserError
from dlspec.jobs.composed_spec import preparation


def main(words: Sequence[str]) -> int:
    """Checks all that `train` would, then prints the network, a line a layer."""
    parser = spec_parser("summary")
    parser.add_argument("--depth", type=_depth, metavar="N")
    parser.add_argument("--graph", type=Path, metavar="FILE")
    parser.add_argument("--expand", action="store_true")
    arguments = parse_flags(parser, words)
    if arguments.graph is not None:
        check_path(arguments.graph)
    elif arguments.expand:
        raise UserError("--expand is for a picture: add --graph network.svg")
    found = summed(preparation(compose_words(arguments)))
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
