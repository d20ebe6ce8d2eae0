"""The tutorial of docs/export.md: its commands, its Python and its JavaScript code run in their order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import dlspec as library
from helpers.command_line import QUIET, CommandResult
from helpers.docs_examples import read_doc

PAGE = read_doc("export.md")
BLOCK = re.compile(r"^```(python|bash|javascript)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SMALL = [*QUIET, "model.params.embedding=8", "model.params.channels=4", "trainer.max_steps=2"]
TEXTS = ["WIN a free prize now", "see you at lunch"]


@pytest.mark.soak
def test_the_page_runs_as_written(dlspec: Callable[..., CommandResult], work: Path) -> None:
    (work / "texts.csv").write_text(
        "text,label\n" + "win a free prize today,spam\nsee you at lunch today,ham\n" * 30, encoding="utf-8"
    )
    (work / "new.csv").write_text("text\n" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    names: dict[str, object] = {}
    for block in BLOCK.finditer(PAGE):
        if block[1] == "python":
            exec(compile(block[2], "export.md", "exec"), names)
        elif block[1] == "javascript":
            _run_javascript(work, block[2])
        else:
            words = [word for word in shlex.split(block[2])[3:] if word != "data=sms_spam"]
            data = ["data=text_csv", "data.path=texts.csv", "data.text=text", "data.label=label", *SMALL]
            assert dlspec(*words, *([] if words[0] in ("export", "predict") else data)).code == 0
    expected = library.predictor("latest").predict([{"text": each} for each in TEXTS])["label"].tolist()
    assert [line.split(",")[1] for line in (work / "labels.csv").read_text().splitlines()[1:]] == expected
    assert names["found"]["label"].tolist() == expected  # type: ignore[index]


def _run_javascript(work: Path, code: str) -> None:
    """Run the program if Node and its package are there; DLSPEC_NODE_MODULES names the folder of packages."""
    import os

    modules = os.environ.get("DLSPEC_NODE_MODULES")
    node = shutil.which("node")
    if modules is None or node is None:
        return
    (work / "node_modules").symlink_to(modules)
    (work / "classify.mjs").write_text(code, encoding="utf-8")
    said = subprocess.run([node, "classify.mjs", "spam.onnx", *TEXTS], capture_output=True, text=True, check=True)
    expected = library.predictor("latest").predict([{"text": each} for each in TEXTS])["label"].tolist()
    assert json.loads(said.stdout) == expected
