"""`inspect`: read data without training, and show columns, kinds, splits, and what to check."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.cli.spec_arguments import compose_arguments, make_spec_parser
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.prepare.kinds.setting_lines import escape_key
from dlspec.errors import UserError
from dlspec.jobs.composed_spec import make_preparation
from dlspec.jobs.data_inspection import draw_training_batch, inspect_data, write_data_settings
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.progress_lines import open_status_line
from dlspec.runs.io import write_bytes, write_text

HEADER = "# Written by 'inspect': the kinds are those that were inferred.\n"


def main(argv: Sequence[str]) -> int:
    """Read the data of a spec, and print what they contain and what to check."""
    parser = make_spec_parser("inspect")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE.yaml")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    arguments = parse_arguments(parser, argv)
    if arguments.write is not None:
        _check_new_file(arguments.write)
    if arguments.picture is not None and arguments.picture.suffix != ".png":
        raise UserError(f"--picture expects a PNG file such as batch.png, got '{arguments.picture}'")
    preparation = make_preparation(compose_arguments(arguments))
    with open_status_line() as show:
        show("reading the data ...")
        spec, inspection = inspect_data(preparation)
        picture = None if arguments.picture is None else draw_training_batch(preparation)
    print_message(json.dumps(inspection.to_json(), indent=2) if arguments.json else str(inspection))
    if arguments.write is not None:
        settings = write_data_settings(spec, inspection)
        text = HEADER + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.write, text)
    if picture is not None:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(arguments.picture, picture)
    if not arguments.json:
        print_message(f"\n{_format_next_step(inspection, arguments.overrides, arguments.write)}")
    return EXIT_OK


def _check_new_file(path: Path) -> None:
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--write expects a YAML file such as conf/data/churn.yaml, got '{path}'")
    if path.exists() or path.is_symlink():
        raise UserError(f"'{path}' exists already; name another file, or remove it")


def _format_next_step(inspection: Inspection, overrides: Sequence[str], written: Path | None) -> str:
    """Return the command that trains on the data."""
    if not inspection.splits:
        return "name the target to train: data.target=COLUMN"
    suggestion = inspection.suggestion
    if not suggestion.model:
        return suggestion.obstacle
    data, kept = [], ["data", "imports", "+imports"]
    if written is not None and written.parent.name == "data":
        data, kept = [f"data={written.stem}"], kept[1:]
    words = [f"model={suggestion.model}", *data, *(each for each in overrides if each.startswith(tuple(kept)))]
    if suggestion.left_out:
        words.append(f"data.columns={{{', '.join(f'{escape_key(name)}: null' for name in suggestion.left_out)}}}")
    command = f"train: python -m dlspec {' '.join(map(shlex.quote, words))}"
    return "\n".join(filter(None, [suggestion.obstacle, command]))
