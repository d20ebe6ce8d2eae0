"""Check that names and texts are plain English: no banned words, no function named by a bare participle, Args listed.

`make lint` runs it. `banned.txt` beside this file lists the words and constructions, and what to write instead;
`allowed.txt` lists the exceptions, one `file: text of the line` a line. It is empty, and should stay so.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MIN_LISTED_PARAMETERS = 3  # a public function with this many parameters or more lists them under "Args:"

# Participles that do not end in "ed". A function's name that is only one of these says nothing about what it does.
IRREGULAR_PARTICIPLES = frozenset(
    "told made taken left held kept found known shown given drawn written begun brought built chosen done gone heard "
    "laid led lost meant met paid said seen sent stood sunk thought thrown understood".split()
)
# Nouns and verbs that only look like participles.
NOT_PARTICIPLES = frozenset(
    "embed feed need seed speed shed string ring king thing padding embedding rounding ending".split()
)


def read_rules(path: Path = HERE / "banned.txt") -> list[tuple[re.Pattern[str], str]]:
    """Read the banned patterns and what to write instead of each."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    pairs = [line.split(" -> ", 1) for line in lines]
    return [(re.compile(pattern), instead) for pattern, instead in pairs]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a file's texts line by line, numbered: comments, docstrings and strings of Python, comments of YAML."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield from enumerate(token.string.splitlines(), token.start[0])
    elif path.suffix == ".yaml":
        yield from ((n, line[line.index("#") :]) for n, line in enumerate(text.splitlines(), 1) if "#" in line)
    else:
        yield from enumerate(text.splitlines(), 1)


def find_banned(path: Path, rules: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str]]:
    """Yield line number and complaint for every banned word or construction in a file."""
    for number, line in texts_of(path):
        for pattern, instead in rules:
            if found := pattern.search(line):
                yield number, f"{found[0]!r}: write {instead}   | {line.strip()}"


def is_bare_participle(name: str) -> bool:
    """Whether a function's name is a single past or present participle, such as `_measured` or `following`."""
    word = name.strip("_")
    if "_" in word or word in NOT_PARTICIPLES:
        return False
    return word in IRREGULAR_PARTICIPLES or bool(re.fullmatch(r"[a-z]{2,}(ed|ing)", word))


def find_unclear_functions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield functions that are named by a participle, and public ones that do not list their parameters."""
    yield from _check_functions(ast.parse(path.read_text(encoding="utf-8")), is_public=True)


def _check_functions(node: ast.Module | ast.ClassDef, is_public: bool) -> Iterator[tuple[int, str]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _check_functions(child, is_public and not child.name.startswith("_"))
        elif isinstance(child, ast.FunctionDef):
            if is_bare_participle(child.name) and not _is_property(child):
                yield child.lineno, f"{child.name!r}: name a function by a verb and an object"
            if is_public and not child.name.startswith("_") and not _is_overload(child):
                missing = _missing_arguments(child)
                if missing:
                    yield child.lineno, f"{child.name!r}: list under 'Args:' in its docstring: {', '.join(missing)}"


def _missing_arguments(function: ast.FunctionDef) -> list[str]:
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
    if len(names) < MIN_LISTED_PARAMETERS:
        return []
    docstring = ast.get_docstring(function) or ""
    listed = docstring.partition("Args:\n")[2]
    return [
        name for name in names if not re.search(rf"^\s+(?:\w+, )*{re.escape(name)}(?:, \w+)*: ", listed, re.MULTILINE)
    ]


def _is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def _is_overload(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith(("overload", "override")) for decorator in function.decorator_list)


def find_complaints(root: Path = ROOT) -> Iterator[str]:
    """Yield `file:line: complaint` for the whole project, without what `allowed.txt` allows."""
    rules = read_rules()
    allowed = set((HERE / "allowed.txt").read_text(encoding="utf-8").splitlines())
    code = sorted((root / "dlspec").rglob("*.py"))
    others = [*(root / "dlspec").rglob("*.md"), *(root / "conf").rglob("*.yaml"), *(root / "docs").glob("*.md")]
    others += [root / "README.md", root / "CONTRIBUTING.md", *(root / "tests" / "golden").rglob("*.txt")]
    for path in [*code, *sorted(others)]:
        complaints = list(find_banned(path, rules)) + (
            list(find_unclear_functions(path)) if path.suffix == ".py" else []
        )
        lines = path.read_text(encoding="utf-8").splitlines()
        name = path.relative_to(root).as_posix()
        for number, complaint in sorted(complaints):
            if f"{name}: {lines[number - 1].strip()}" not in allowed:
                yield f"{name}:{number}: {complaint}"


def main() -> int:
    """Print every complaint, and return 1 where there is one."""
    complaints = list(find_complaints())
    for complaint in complaints:
        print(complaint)
    print(f"{len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
