"""Where `predict` writes: a table of predictions, or a folder of images, whose name ends in a slash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dlspec.cli.run_arguments import RunArguments
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.errors import UserError
from dlspec.inference.answers.row_predictions import ROW
from dlspec.inference.answers.row_predictor import RowPredictor
from dlspec.inference.output.image_folders import (
    ImageFolderWriter,
    check_folder_output,
    is_folder_output,
    open_image_folder,
)
from dlspec.inference.output.image_targets import list_image_targets
from dlspec.inference.output.prediction_files import PredictionWriter, check_output, open_prediction_file

Writer = PredictionWriter | ImageFolderWriter
TABLE_WORDS = ("columns", "keep", "probabilities")  # of a table of predictions
MAX_SHOWN_CLASSES = 30


def check_output_words(output: str, arguments: RunArguments) -> None:
    """Check that predictions can be written to `output`, before anything is read.

    Raises:
        UserError: if they can't, or a word has no effect on a folder of images.
    """
    if not is_folder_output(output):
        check_output(output)
        return
    unused = next((word for word in TABLE_WORDS if word in arguments.words), None)
    if unused is not None:
        raise UserError(f"{unused} has no effect on images, which are written to the folder '{output}'; leave it out")
    check_folder_output(output)


@contextmanager
def open_output(output: str, model: RowPredictor, files: Sequence[str] = ()) -> Iterator[Writer]:
    """Open the file or folder that predictions are written to.

    Args:
        output: the file, or the folder of images
        model: the run or exported file
        files: the input files, after which images are named
    """
    if not is_folder_output(output):
        with open_prediction_file(output) as writer:
            yield writer
        return
    fitted = model.preparation
    images = [] if fitted is None else [name for name in fitted.inputs if isinstance(fitted.inputs[name], FittedImage)]
    names = [*([fitted.id] if fitted is not None and fitted.id else []), "file", *images[:1], ROW]
    targets = list_image_targets(model.targets, fitted)
    with open_image_folder(output, targets, names, files) as folder:
        yield folder


def describe_output(output: str, model: RowPredictor, rows: int, left_out: int) -> str:
    """Describe what was written; of masks also which number is which class.

    Args:
        output: the file or folder
        model: the run or exported file
        rows: how many rows were read
        left_out: how many of them have no prediction
    """
    if not is_folder_output(output):
        return f"{output}: {rows:,} row{'s' if rows != 1 else ''}"
    targets, images = list_image_targets(model.targets, model.preparation), rows - left_out
    classes = [format_classes(each.classes) for each in targets if each.classes]
    return "; ".join([f"{output}: {images:,} image{'s' if images != 1 else ''}", *classes])


def format_classes(classes: Sequence[str]) -> str:
    """Format the numbers of classes: `0 background, 1 road`."""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(classes[:MAX_SHOWN_CLASSES]))
    return f"{shown}, ..." if len(classes) > MAX_SHOWN_CLASSES else shown
