"""`summary`: print a spec's network as a table, and draw it with `--graph`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.cli.graph.dot_export import check_picture_path, write_picture
from dlspec.cli.graph.network_picture import make_picture
from dlspec.cli.spec_arguments import compose_arguments, make_spec_parser
from dlspec.cli.summary.memory_lines import TargetMachines, parse_target
from dlspec.cli.summary.network_summary import format_summary, summarize
from dlspec.errors import UserError, replace_control_characters
from dlspec.jobs.composed_spec import make_preparation

WORDS = ("world", "memory")  # of the command: number of processes, and memory of each


def main(argv: Sequence[str]) -> int:
    """Make all checks of `train`, then print the network with one line per layer."""
    parser = make_spec_parser("summary")
    parser.add_argument("--depth", type=_parse_depth, metavar="N")
    parser.add_argument("--graph", type=Path, metavar="FILE")
    parser.add_argument("--expand", action="store_true")
    arguments = parse_arguments(parser, argv)
    if arguments.graph is not None:
        check_picture_path(arguments.graph)
    elif arguments.expand:
        raise UserError("--expand needs --graph: add --graph network.svg")
    target = _take_target(arguments)
    found = summarize(make_preparation(compose_arguments(arguments)))
    for note in found.prepared.notes:
        print(replace_control_characters(note), file=sys.stderr)
    if arguments.graph is not None:
        network, container_types = found.prepared.network, found.prepared.spec.graph.container_types
        write_picture(
            make_picture(network, found.rows, container_types, arguments.depth, expand=arguments.expand),
            arguments.graph,
        )
    print_message(format_summary(found, arguments.depth, target))
    if arguments.graph is not None:
        print_message(f"drawn: {arguments.graph}")
    return 0


def _take_target(arguments: argparse.Namespace) -> TargetMachines:
    """Take the words that describe machines out of the overrides of the spec."""
    words = {name: [each for each in arguments.overrides if each.startswith(f"{name}=")] for name in WORDS}
    arguments.overrides = [each for each in arguments.overrides if each.partition("=")[0] not in WORDS]
    for name, found in words.items():
        if len(found) > 1:
            raise UserError(f"{name} is given twice; leave one of them out")
    world, memory = (found[0].partition("=")[2] if found else None for found in words.values())
    return parse_target(world, memory)


def _parse_depth(word: str) -> int:
    if word.isdigit() and int(word):
        return int(word)
    raise argparse.ArgumentTypeError(f"expected a whole number of names, 1 or more, got '{word}'")
