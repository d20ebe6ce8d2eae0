"""`validate`: checks a spec's form, and opens no data."""

from __future__ import annotations

from collections.abc import Sequence

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.spec_arguments import compose_arguments, make_spec_parser
from dlspec.jobs.composed_spec import make_preparation


def main(argv: Sequence[str]) -> int:
    """Checks the form, opens no data; raises SpecError with every mistake."""
    spec = make_preparation(compose_arguments(parse_arguments(make_spec_parser("validate"), argv))).read()
    count = f"{len(spec.layers)} layer{'s' if len(spec.layers) != 1 else ''}"
    print(f"the form is right: {count}, {spec.optimizer.schema.name}, data {spec.data.source_name}")
    waiting = [f"${{{key}}}" for key in spec.unknown_facts]
    later = ["shapes, the loss and the target", *waiting]
    print(f"not checked yet, for that the data must be open: {', '.join(later)}; 'summary' and 'train' check it")
    return 0
