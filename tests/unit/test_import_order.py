"""One direction, no circle: a room imports what stands below it, in the order that CONTRIBUTING and the READMEs say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers import source_trees
from helpers.paths import ROOT
from helpers.source_trees import PACKAGE, parse_package

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The rooms from above to below, as CONTRIBUTING's table has them.
ROOMS = re.findall(r"^\| `(\w+)` \| ", CONTRIBUTING, flags=re.M)
# Files that only keep a name for what version 0.1.0 wrote, and what finds the command line.
OLD_NAMES = {"app/__init__.py", "app/plugins.py", "data/alphabet.py"}
ENTRANCES = {"__init__.py", "__main__.py"}


def module_name(path: Path) -> str:
    """`dlspec.data.dataset` for dlspec/data/dataset.py, `dlspec.data` for dlspec/data/__init__.py."""
    return ".".join(("dlspec", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_name(path): path for path in source_trees.FILES}


def list_imports(path: Path) -> Iterator[str]:
    """Every module that a file imports: at its top, in functions, and for type checkers alone."""
    for node in ast.walk(parse_package()[path]):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the top"
            for each in node.names:
                submodule = f"{node.module}.{each.name}"
                yield submodule if submodule in FILES else str(node.module)


@cache
def find_imports(name: str) -> frozenset[str]:
    return frozenset(list_imports(FILES[name]))


def list_inner_imports(name: str) -> list[str]:
    return sorted(each for each in find_imports(name) if each.split(".")[0] == "dlspec")


def room_of(module: str) -> str:
    """The first name below dlspec; '' for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def relative_path(module: str) -> str:
    return str(FILES[module].relative_to(PACKAGE))


MODULES = [name for name in FILES if relative_path(name) not in ENTRANCES | OLD_NAMES]
FOLDERS = [room for room in ROOMS if (PACKAGE / room).is_dir()]


def test_every_room_has_its_place() -> None:
    assert len(ROOMS) > 20
    assert {room_of(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_stands_below_it(room: str) -> None:
    below = set(ROOMS[ROOMS.index(room) :])
    wrong = [
        f"{relative_path(name)} imports {each}"
        for name in MODULES
        if room_of(name) == room
        for each in list_inner_imports(name)
        if room_of(each) not in below
    ]
    assert wrong == []


@pytest.mark.parametrize("room", FOLDERS)
def test_a_readme_lists_the_rooms_that_a_room_imports(room: str) -> None:
    text = (PACKAGE / room / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", text.partition("May import: ")[2].partition(".")[0]))
    below = set(ROOMS[ROOMS.index(room) + 1 :])
    listed = below if "everything" in words else words & set(ROOMS)
    imported = {room_of(each) for name in MODULES if room_of(name) == room for each in list_inner_imports(name)} - {
        room
    }
    assert imported <= listed <= below


def test_no_file_imports_itself_by_way_of_others() -> None:
    list(TopologicalSorter({name: list_inner_imports(name) for name in FILES}).static_order())


def read_order(room: str) -> list[str]:
    """A room's files and folders from below to above, as its README names them."""
    text = (PACKAGE / room / "README.md").read_text(encoding="utf-8")
    paragraph = text.partition("From below to above:")[2].partition("\n\n")[0]
    named = [each.removesuffix("/") for each in re.findall(r"`(\w+/?)`", paragraph)]
    return list(dict.fromkeys(each for each in named if f"dlspec.{room}.{each}" in FILES))


@pytest.mark.parametrize("room", [room for room in FOLDERS if room != "compat"])
def test_a_readme_states_the_order_inside_a_room(room: str) -> None:
    order = read_order(room)
    inside = [name for name in FILES if name.startswith(f"dlspec.{room}.")]
    assert set(order) == {name.split(".")[2] for name in inside}
    wrong = [
        f"{relative_path(name)} imports {each}"
        for name in inside
        for each in list_inner_imports(name)
        if each.startswith(f"dlspec.{room}.") and order.index(each.split(".")[2]) > order.index(name.split(".")[2])
    ]
    assert wrong == []


@pytest.mark.parametrize("room", FOLDERS)
def test_a_readme_fits_a_screen(room: str) -> None:
    assert len((PACKAGE / room / "README.md").read_text(encoding="utf-8").splitlines()) < 60


def test_no_two_files_have_one_name() -> None:
    names = [FILES[name].name for name in MODULES if FILES[name].name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


# ---- other libraries -------------------------------------------------------------------------------------------------

HYDRA_ROOMS = ("dlspec.config.", "dlspec.sweeps.hydra.", "dlspec.compat.hydra")


def test_hydra_is_imported_in_its_rooms_alone() -> None:
    users = [
        name for name in FILES if {each.split(".")[0] for each in find_imports(name)} & {"hydra", "omegaconf", "antlr4"}
    ]
    assert [name for name in users if not name.startswith(HYDRA_ROOMS)] == []
    assert users


@pytest.mark.parametrize("room", ["language", "runs", "report", "config"])
def test_a_room_without_torch(room: str) -> None:
    names = [name for name in FILES if room_of(name) == room]
    program = (
        f"import sys, importlib; [importlib.import_module(each) for each in {names}]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["summary", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from dlspec.cli.main import run_command as main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dlspec" in done.stdout
