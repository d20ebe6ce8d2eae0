"""`export`: a finished run as a file that needs no dlspec: ONNX, torch.export, AOTInductor or safetensors."""

from __future__ import annotations

from collections.abc import Sequence

from dlspec.cli.console_output import print_message
from dlspec.cli.run_arguments import parse_run_arguments
from dlspec.errors import UserError
from dlspec.inference.export.run_export import choose_format, export_run
from dlspec.inference.loading.loaded_run import load_run
from dlspec.jobs.error_reporting import EXIT_OK

WORDS = ("run", "output", "format", "prepare", "checkpoint", "imports")
EXAMPLE = "python -m dlspec export run=latest output=model.onnx"


def main(argv: Sequence[str]) -> int:
    """Export a run, and return the exit code."""
    arguments = parse_run_arguments("export", argv, WORDS)
    for name in arguments.data:
        raise UserError(f"data.{name} has no effect on an export; leave it out")
    output = arguments.get_text("output")
    if not output:
        raise UserError(f"no output is given; write for example {EXAMPLE}")
    form = choose_format(output, arguments.get_text("format"))
    prepare = arguments.get_flag("prepare") if "prepare" in arguments.words else True
    if not prepare and form == "safetensors":
        raise UserError("prepare has no effect on format=safetensors, which contains the weights alone; leave it out")
    run = load_run(
        arguments.require_run(),
        arguments.get_text("checkpoint") or "best",
        imports=arguments.get_list("imports") or (),
        device="cpu",
    )
    for line in export_run(run, output, form, prepare=prepare).lines:
        print_message(line)
    return EXIT_OK
