"""Private names of other libraries are touched in dlspec/compat/ alone, and each file there has a row in its table."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

from helpers import source_trees
from helpers.paths import ROOT
from helpers.source_trees import PACKAGE, parse_package

COMPAT = PACKAGE / "compat"
FILES = [path for path in source_trees.FILES if not path.is_relative_to(COMPAT)]

PUBLIC_BY_CONVENTION = {
    "_asdict", "_fields", "_replace",  # named tuples have no other names for these
    "_exit",  # of os, documented
}  # fmt: skip
SETTINGS = {
    "logging.lastResort",
    "torch.backends.cudnn.benchmark",
}  # attributes of a library that its documentation says to assign
OWN_OBJECTS = ("self", "cls", "super()")
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter"}
LIBRARIES = "torch|torchmetrics|hydra|omegaconf|pydantic|numpy|scipy|sklearn|pandas|matplotlib|yaml|safetensors|rich"


def is_private(name: str) -> bool:
    """Whether a name, or a dotted one's part, begins with one underscore."""
    parts = name.split(".")
    return any(re.match(r"_(?!_)\w", each) and each not in PUBLIC_BY_CONVENTION for each in parts)


def defined_names(tree: ast.AST) -> set[str]:
    """What a file itself defines: functions, classes, variables, fields, and attributes of its own objects."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            names.add(node.attr)
    return names


def _is_own(node: ast.expr) -> bool:
    return ast.unparse(node) in OWN_OBJECTS if isinstance(node, ast.Name | ast.Call) else False


def reaches(tree: ast.AST, here: set[str], anywhere: set[str]) -> Iterator[str]:
    """Each reach into a library's private parts, as it is written.

    `here` are the names that the file defines; an inherited attribute may be defined `anywhere` in dlspec.
    """
    foreign = _foreign_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            is_reach = any(is_private(each) or each == "ctypes" for each in _imported(node))
        elif isinstance(node, ast.Attribute):
            known = anywhere if _is_own(node.value) else here
            is_reach = (is_private(node.attr) and node.attr not in known) or _is_assigned(node, foreign)
        elif isinstance(node, ast.Call):
            is_reach = _asks_by_name(node, anywhere)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_reach = re.match(rf"({LIBRARIES})\.[\w.]+\Z", node.value) is not None and is_private(node.value)
        else:
            is_reach = isinstance(node, ast.Subscript) and _fakes_module(node)
        if is_reach:
            yield ast.unparse(node)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Modules and names of other packages."""
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    module = node.module or ""
    return [] if module.split(".")[0] == "dlspec" else [module, *(each.name for each in node.names)]


def _foreign_names(tree: ast.AST) -> set[str]:
    """The names under which a file knows modules and classes of other packages."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and _imported(node)]
    return {each.asname or each.name.split(".")[0] for node in imports for each in node.names}


def _is_assigned(node: ast.Attribute, foreign: set[str]) -> bool:
    """Whether an attribute of something imported is replaced: `nn.functional.relu = ...`."""
    name = ast.unparse(node)
    return isinstance(node.ctx, ast.Store) and name.split(".")[0] in foreign and name not in SETTINGS


def _asks_by_name(node: ast.Call, known: set[str]) -> bool:
    """Whether it is `getattr(..., "_name")` or one of its kind."""
    if ast.unparse(node.func).split(".")[-1] not in BY_NAME:
        return ast.unparse(node.func) == "sys.modules.update"
    names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return any(is_private(each) and each not in known for each in names)


def _fakes_module(node: ast.Subscript) -> bool:
    """Whether an entry of `sys.modules` is set or deleted; a program may always replace its own `__main__`."""
    is_read = isinstance(node.ctx, ast.Load) or ast.unparse(node.value) != "sys.modules"
    return not is_read and ast.unparse(node.slice) != "'__main__'"


@pytest.fixture(scope="module")
def defined() -> Mapping[Path, set[str]]:
    """The names that each file defines."""
    return {path: defined_names(parse_package()[path]) for path in FILES}


def test_only_compat_reaches_into_private_parts(defined: Mapping[Path, set[str]]) -> None:
    anywhere = set[str]().union(*defined.values())
    found = [
        f"{path.relative_to(PACKAGE)}: {each}"
        for path in FILES
        for each in reaches(parse_package()[path], defined[path], anywhere)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "from torch.utils._python_dispatch import TorchDispatchMode",
        "from torch.nn.modules.batchnorm import _NormBase",
        "import torch._dynamo",
        "import ctypes",
        "module._parameters",
        "self._parameters",
        "torch._C._set_deterministic_algorithms(True)",
        "optimizer._opt_called = True",
        "getattr(metric, '_defaults')",
        "'torch._dynamo' in sys.modules",
        "sys.modules['matplotlib'] = None",
        "del sys.modules['matplotlib']",
        "sys.modules.update(absent)",
        "from torch import nn\nnn.functional.relu = None",
    ],
)
def test_reaches_are_found(code: str) -> None:
    tree = ast.parse(code)
    assert list(reaches(tree, defined_names(tree), set()))


@pytest.mark.parametrize(
    "code",
    [
        "from dlspec.api import _preparation",
        "from __future__ import annotations",
        "class A:\n def __init__(self):\n  self._x = 1\n def same(self, other):\n  return self._x == other._x",
        "point._replace(x=1)",
        "module.__dict__",
        "sys.modules.get('torch')",
        "sys.modules['__main__'] = ModuleType('__main__')",
        "import torch\ntorch.backends.cudnn.benchmark = True",
        "name + '_lengths'",
    ],
)
def test_what_is_no_reach_is_not_found(code: str) -> None:
    tree = ast.parse(code)
    names = defined_names(tree)
    assert list(reaches(tree, names, names)) == []


def test_no_class_overrides_private_methods_of_another_library(defined: Mapping[Path, set[str]]) -> None:
    overridden = [
        f"{each.__module__}.{each.__name__}.{name}"
        for path in FILES
        for each in _own_classes(path)
        for name in vars(each).keys() & defined[path]
        for base in each.__mro__[1:]
        if is_private(name) and name in vars(base) and not base.__module__.startswith("dlspec")
    ]
    assert overridden == []


def _own_classes(path: Path) -> list[type]:
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]


# ---- the table -----------------------------------------------------------------------------------------------------

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (COMPAT / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def test_every_file_of_compat_has_rows() -> None:
    files = {path.name for path in COMPAT.glob("*.py")} - {"__init__.py"}
    assert {re.findall(r"`(\w+\.py)`", row[0])[0] for row in ROWS} == files


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_rows_functions_and_tests_are_there(row: list[str]) -> None:
    file, functions = re.findall(r"`([\w.]+)`", row[0])[0], re.findall(r"`(\w+)`", row[1])
    module = import_module(f"dlspec.compat.{file.removesuffix('.py')}")
    assert functions and [name for name in functions if not hasattr(module, name)] == []
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", " ".join(row))
    assert tests
    for name, function in tests:
        assert f"def {function}(" in (ROOT / "tests" / name).read_text(encoding="utf-8"), f"{name}::{function}"
