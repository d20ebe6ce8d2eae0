"""The words of a command that takes a spec and trains nothing."""

from __future__ import annotations

import argparse

from dlspec.cli.argument_parsing import FlagParser
from dlspec.config.composition import ComposedConfig, start_hydra
from dlspec.jobs.composed_spec import compose_or_raise


def make_spec_parser(command: str) -> FlagParser:
    """Make the parser of overrides and --config-dir."""
    parser = FlagParser(command)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    return parser


def compose_arguments(arguments: argparse.Namespace) -> ComposedConfig:
    """Compose the config that the words describe; SpecError with every mistake."""
    return compose_or_raise(arguments.overrides, start_hydra(arguments.config_dir))
