"""Write `run.html`, the page of one run."""

from __future__ import annotations

from pathlib import Path

from dlspec.report.network_description import NetworkDescription
from dlspec.report.page import RUN_PAGE, render_page
from dlspec.report.records import read_record
from dlspec.report.report_files import refuse_to_overwrite
from dlspec.report.run_page_data import make_run_curves, make_run_data
from dlspec.runs.file_names import RUN_PAGE_FILE
from dlspec.runs.io import write_text


def write_run_page(folder: Path, network: NetworkDescription) -> Path:
    """Write the page of the run in a folder, and return its path.

    Args:
        folder: the run's folder
        network: the run's network, or why it is unknown: this room can't build it

    Returns:
        The path of the page.

    Raises:
        UserError: without a run in the folder, or if dlspec did not write the file of this name.
        OSError: if the folder is not writable.
    """
    data = make_run_data(read_record(folder), network)
    path = folder / RUN_PAGE_FILE
    refuse_to_overwrite(path, RUN_PAGE.start, "move it to another place")
    write_text(path, render_page(RUN_PAGE, data["title"], data, make_run_curves(folder)))
    return path
