"""`validate`: check the form of a spec without opening its data."""

from __future__ import annotations

from collections.abc import Sequence

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.cli.spec_arguments import compose_arguments, make_spec_parser
from dlspec.jobs.composed_spec import make_preparation


def main(argv: Sequence[str]) -> int:
    """Check the form of a spec without opening its data; raise a SpecError that lists all problems."""
    spec = make_preparation(compose_arguments(parse_arguments(make_spec_parser("validate"), argv))).read()
    count = f"{len(spec.layers)} layer{'s' if len(spec.layers) != 1 else ''}"
    print_message(f"the spec's form is valid: {count}, {spec.optimizer.schema.name}, data {spec.data.source_name}")
    waiting = [f"${{{key}}}" for key in spec.unknown_facts]
    later = ["shapes, the loss and the target", *waiting]
    print_message(f"not checked without the data: {', '.join(later)}; 'summary' and 'train' check them")
    return 0
