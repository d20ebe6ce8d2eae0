"""What dlspec says to wrong specs and command lines, word for word.

The cases and texts stand in tests/golden/wrong_specs/. A case is a title, a command line, the files of a project, and
what stderr says (CONF is dlspec's own conf/):

    ===== a misspelled setting
    $ dlspec validate model=m
    --- conf/model/m.yaml
    layers:
      - Linear: {out_featurs: 10}
    --- says
    conf/model/m.yaml:2:14   ...

After a change of the words, `WRONG_SPECS=write pytest tests/golden/test_wrong_specs.py` writes every text anew; read
the difference as a newcomer would before committing it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dlspec.cli.main import EXIT_INVALID
from dlspec.cli.main import run_command as main
from dlspec.config.conf_files import find_packaged_conf
from helpers.wrong_spec_cases import Case, read_cases, write_case, write_files


@pytest.mark.parametrize("case", read_cases(), ids=str)
def test_says_exactly(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(case.files, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = main(list(case.words))
    says = capsys.readouterr().err.replace(str(tmp_path), "FOLDER").replace(str(find_packaged_conf()), "CONF")
    if os.environ.get("WRONG_SPECS") == "write":
        write_case(case, says)
        return
    assert says == case.message_has
    assert code == EXIT_INVALID
    assert sorted(tmp_path.rglob("*")) == before, "a refused spec must leave nothing behind"


def test_titles_are_unique_and_cases_many() -> None:
    cases = read_cases()
    assert len({str(case) for case in cases}) == len(cases) >= 80
