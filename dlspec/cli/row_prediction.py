"""What `predict run=` and `predict file=` have in common: from the words of the command to the written answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlspec.cli.console_output import print_message
from dlspec.cli.prediction_output import check_output_words, describe_output, open_output
from dlspec.cli.prediction_progress import PredictionProgress
from dlspec.cli.run_arguments import RunArguments
from dlspec.errors import UserError
from dlspec.inference.answers.answer_columns import AnswerOptions
from dlspec.inference.answers.row_predictor import RowPredictor
from dlspec.inference.output.image_folders import is_folder_output
from dlspec.inference.output.prediction_files import STANDARD_OUTPUT, check_output
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_settings import make_input_settings
from dlspec.inference.rows.input_sources import find_inputs
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT

ANSWER_WORDS = ("columns", "probabilities", "keep", "threshold")
Predict = Callable[[Iterator[RowChunk], AnswerOptions], Iterator[AnswerChunk]]


@dataclass(frozen=True)
class PredictionCommand:
    """What a command writes, and where."""

    arguments: RunArguments
    output: str  # a file, `-`, or a folder of images, which ends in a slash
    options: AnswerOptions

    @property
    def writes_folder(self) -> bool:
        """Whether images are written into a folder; the columns of the input name them."""
        return is_folder_output(self.output)

    def predict_files(self, model: RowPredictor, predict: Predict, source: Sequence[str]) -> int:
        """Predict files chunk by chunk, so that memory does not grow with the rows; return the exit code.

        Args:
            model: the run or exported file
            predict: predicts chunks of rows with it
            source: the files
        """
        options = replace(self.options, keep=True) if self.writes_folder else self.options
        settings = make_input_settings(
            model.source, model.require_preparation(), self.arguments.data, keep=model.needs_all_columns(options)
        )
        inputs = find_inputs(source, settings)
        if not self.writes_folder:
            check_output(self.output, [Path(each) for each in inputs.files])
        chunks = iterate_row_chunks(inputs, settings, model.max_rows)
        files = inputs.names if inputs.kind == "images" else ()
        return replace(self, options=options).write(model, predict, chunks, files)

    def write(
        self, model: RowPredictor, predict: Predict, chunks: Iterable[RowChunk], files: Sequence[str] = ()
    ) -> int:
        """Predict chunks of rows, write the answers, and return the exit code.

        Args:
            model: the run or exported file
            predict: predicts chunks of rows with it
            chunks: the rows
            files: the input files, after which images are named
        """
        progress = PredictionProgress(model.device)
        with open_output(self.output, model, files) as writer:
            for answers in predict(progress.watch(chunks), self.options):
                writer.write(answers.columns, answers.problems)
                progress.add(answers)
                if writer.is_closed:
                    break
        progress.finish()
        if self.output != STANDARD_OUTPUT:
            print_message(describe_output(self.output, model, progress.rows, progress.left_out))
        return EXIT_ROWS_LEFT_OUT if progress.left_out else EXIT_OK


def read_prediction_command(arguments: RunArguments, example: str) -> PredictionCommand:
    """Read what a command writes, and check that it can.

    Args:
        arguments: the words of the command
        example: a command that a message shows

    Raises:
        UserError: if a word is missing or wrong, or the output can't be written.
    """
    output = arguments.get_text("output")
    if not output:
        raise UserError(f"no output is given; write for example {example}")
    check_output_words(output, arguments)
    options = AnswerOptions(
        arguments.get_flag("probabilities"),
        arguments.get_number("threshold"),
        arguments.get_list("columns"),
        arguments.get_flag("keep"),
    )
    return PredictionCommand(arguments, output, options)
