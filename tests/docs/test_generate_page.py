"""The tutorial of docs/generate.md: its commands and its Python code run in their order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from helpers.command_line import QUIET, CommandResult
from helpers.docs_examples import read_doc

PAGE = read_doc("generate.md")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SMALL = [*QUIET, "model.params.width=16", "model.params.depth=1", "trainer.max_steps=2"]


def test_the_page_runs_as_written(dlspec: Callable[..., CommandResult], work: Path) -> None:
    names: dict[str, object] = {}
    for block in BLOCK.finditer(PAGE):
        if block[1] == "python":
            exec(compile(block[2], "generate.md", "exec"), names)
            continue
        words = shlex.split(block[2])[3:]
        if "run=FOLDER" not in words:
            said = dlspec(*words, *(SMALL if words[0] != "generate" else []))
            assert said.code == 0, said.err
            assert words[0] != "generate" or said.out.startswith("The function returns")
    assert isinstance(names["text"], str) and len(names["texts"]) == 2  # type: ignore[arg-type]
