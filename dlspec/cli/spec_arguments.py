"""Arguments of commands that read a spec but do not train."""

from __future__ import annotations

import argparse

from dlspec.cli.argument_parsing import FlagParser
from dlspec.config.composition import ComposedConfig, start_hydra
from dlspec.jobs.composed_spec import compose_or_raise


def make_spec_parser(command: str) -> FlagParser:
    """Make a parser for overrides and --config-dir."""
    parser = FlagParser(command)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    return parser


def compose_arguments(arguments: argparse.Namespace) -> ComposedConfig:
    """Compose a config from parsed arguments; raise a SpecError that lists all problems."""
    return compose_or_raise(arguments.overrides, start_hydra(arguments.config_dir))
