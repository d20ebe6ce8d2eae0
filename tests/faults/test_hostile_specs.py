"""Hostile specs are refused with a text, in little memory, without a hang, and leave nothing behind.

Each runs `summary`, or `train`, in a process of its own, forked from one that has imported everything and summed up a
right spec: what its memory has grown is what the hostile spec cost. A few run as a user would run them, from the start.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers import fork_server
from helpers.command_line import make_environment
from helpers.fork_server import MAX_SPEC_SECONDS

MOST = 300
"""So many MiB may a refusal cost; where a layer's output is tried, as many as the limit `sample_bytes` says."""
MOST_TRIED = 1_300
LONGEST = 20_000
"""Characters that a terminal may be told."""
MODEL = "conf/model/m.yaml"
IMAGE = ("data.shape=[1,8,8]",)
SEQUENCE = ("data.shape=[6,8]",)
TOKENS = ("data.shape=null", "data.vocab_size=10", "data.length=6")
RIGHT = "layers: [Flatten, {Linear: 2}]"
BIG, HUGE = 10**5, 10**12


class Case(NamedTuple):
    """A model file, words that stderr must have, and the data."""

    text: str | bytes
    message_has: str = ""
    data: tuple[str, ...] = IMAGE
    command: str = "summary"


class Ended(NamedTuple):
    code: int
    seconds: float
    mebibytes: float
    message: str


# ---- asking the process that forks ----------------------------------------------------------------------------------


class Server:
    """Asks the process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, folder: Path, case: Case, *, is_forked: bool = True) -> Ended:
        _write(folder, case.text)
        assert self.process.stdin and self.process.stdout
        print(json.dumps([str(folder), _words(case), is_forked]), file=self.process.stdin, flush=True)
        code, seconds, size = json.loads(self.process.stdout.readline())
        said = folder / "said"
        text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
        said.unlink(missing_ok=True)
        return Ended(code, seconds, size, text)


def _write(folder: Path, text: str | bytes) -> None:
    (folder / MODEL).parent.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(text.encode() if isinstance(text, str) else text)


def _words(case: Case) -> list[str]:
    return [case.command, "model=m", "data=random", "data.num_classes=2", *case.data]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, float]]:
    """The server, and the MiB that a right spec takes in it; its limits are a tenth of the default ones."""
    command, limits = [sys.executable, fork_server.__file__], getattr(request, "param", {LAYERS: "1000"})
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**make_environment(), **limits}
    ) as process:
        server = Server(process)
        assert server.ask(tmp_path_factory.mktemp("warm"), Case(RIGHT), is_forked=False).code == 0
        yield server, server.ask(tmp_path_factory.mktemp("right"), Case(RIGHT)).mebibytes
        assert process.stdin
        process.stdin.close()


# ---- the specs -----------------------------------------------------------------------------------------------------


def _list(*entries: str, head: str = "") -> str:
    return head + "layers:\n" + "".join(f"  - {each}\n" for each in entries)


def _then(entry: str) -> str:
    return _list(entry, "Flatten", "Linear: 2")


def _behind(entry: str) -> str:
    return _list("Flatten", entry)


def _blocks(layers: Mapping[str, str]) -> str:
    blocks = "".join(f"  {name}: {{layers: {each}}}\n" for name, each in layers.items())
    return f"blocks:\n{blocks}layers: [Flatten, {{b0: }}, {{Linear: 2}}]"


def _chain(count: int, entries: str, last: str) -> str:
    """Blocks b0, b1, ..., each of `entries`, with {0} for the number of the next."""
    return _blocks({**{f"b{n}": f"[{_next(entries, n)}]" for n in range(count)}, f"b{count}": f"[{last}]"})


def _params(last: str, each: str, count: int, use: str = "{Linear: $a0}") -> str:
    """Params a0, a1, ..., looked up, each with {} for the number of the next."""
    lines = "".join(f"  a{n}: {_next(each, n)}\n" for n in range(count))
    return f"params:\n{lines}  a{count}: {last}\nlayers: [Flatten, {use}]"


def _doubled(each: str) -> str:
    """Params that see those above them, with {0} for the number of the one before."""
    lines = "".join(f"  a{n}: {_next(each, n - 2)}\n" for n in range(1, 60))
    return f"params:\n  a0: [0, 0]\n{lines}layers: [Flatten, {{Linear: $a59}}]"


def _next(text: str, number: int) -> str:
    return text.replace("{0}", str(number + 1)).replace("{}", str(number + 1))


def _bomb(levels: int, each: str) -> str:
    """{} is nine times the level before."""
    nine = [each.replace("{}", ", ".join([f"*a{n}"] * 9)).replace("K", f"k{n}") for n in range(levels)]
    lines = "".join(f"a{n + 1}: &a{n + 1} {text}\n" for n, text in enumerate(nine))
    return f"a0: &a0 {{k: 1}}\n{lines}layers: [{{Linear: *a{levels}}}]"


LAYERS, SIZE, VALUES, NESTING = (f"DLSPEC_MAX_{name}" for name in ("LAYERS", "FORMULA_SIZE", "VALUES", "NESTING"))

GROWING = "[" + ", ".join(["'${model.params.a{}}'"] * 9) + "]"
ROWS_IN_ROWS = "{Sequential: [{Linear: 2, repeat: {y: $a0}}], repeat: {x: $a0}}"
SHARED = [f"{{Sequential: [{{share: a{n}}}, {{share: a{n}}}], name: a{n + 1}}}" for n in range(40)]

REPEATED = {
    "a million copies": Case(_behind("Linear: {out_features: 2, repeat: 1000000}"), LAYERS),
    "copies of copies": Case(
        _behind("Sequential: [{Sequential: [{Linear: 2, repeat: 1000}], repeat: 1000}]\n    repeat: 1000"), LAYERS
    ),
    "copies of nothing": Case(_behind("Sequential: [{Sequential: [], repeat: 900}]\n    repeat: 900"), LAYERS),
    "rows of rows": Case(_params("$([0] * 900)", "$a{}", 0, ROWS_IN_ROWS), LAYERS),
    "a list of a million": Case(_behind("Linear: $([0] * 1000000)"), SIZE),
    "a text of a million": Case(_behind("Linear: $('a' * 1000000)"), SIZE),
    "a chain of blocks": Case(_chain(100, "b{0}", "ReLU"), "blocks are nested more than 60 levels deep"),
    "doubled by blocks": Case(_chain(50, "b{0}, b{0}", "ReLU"), LAYERS),
    "nothing doubled by blocks": Case(_chain(50, "b{0}, b{0}", ""), LAYERS),
    "doubled by share": Case(_list("Flatten", "{Linear: 64, name: a0}", *SHARED), LAYERS),
    "doubled by params": Case(_doubled("[$a{0}, $a{0}]")),
    "doubled by formulas": Case(_doubled("$([a{0}, a{0}])"), SIZE),
    "a block in itself": Case(_blocks({"b0": "[b0]"}), "contains itself (b0 -> b0)"),
    "a block round three": Case(_blocks({"b0": "[b1]", "b1": "[b2]", "b2": "[b0]"}), "(b0 -> b1 -> b2 -> b0)"),
    "concatenated for ever": Case(_then("Concat: {from: [_, _]}\n    repeat: 40")),
}

NESTED = {
    "lists in a flow": Case("layers: " + "[" * 10_000 + "]" * 10_000, NESTING),
    "mappings in a flow": Case("layers: " + "{a: " * 10_000 + "}" * 10_000, NESTING),
    "lists in blocks": Case("layers:\n  " + "- " * 10_000 + "x", NESTING),
    "mappings in blocks": Case("\n".join(" " * n + "a:" for n in range(1300)), NESTING),
    "an alias bomb": Case(_bomb(9, "[{}]"), VALUES),
    "an alias bomb of mappings": Case(_bomb(9, "{x: {}}".replace("{}", "[{}]")), VALUES),
    "a merge bomb": Case(_bomb(9, "{<<: [{}], K: 1}"), VALUES),
}

LOOKED_UP = {
    "itself": Case(_params("${model.params.a0}", "", 0), "refers to itself"),
    "round two": Case(_params("${model.params.a0}", "${model.params.a{}}", 1), "refers to itself"),
    "what it stands in": Case(_behind("Linear: ${model}"), "refers to itself"),
    "all layers in a layer": Case(_behind("Sequential: ${model.layers}"), "refers to itself"),
    "growing lists": Case(_params("[x, x]", GROWING, 12), "100,000 values"),
    "growing text": Case(_params("x" * 20, "${model.params.a{}}" * 9, 12), "more than 10,000 characters"),
    "a chain": Case(_params("2", "${model.params.a{}}", 5000)),
    "within each other": Case(_behind(f"Linear: '{'${' * 2000}a{'}' * 2000}'")),
    "a long list often": Case(
        _list(*["Linear: ${model.params.a}"] * 5000, head=f"params: {{a: [{', '.join('1' * 20_000)}]}}\n")
    ),
    "the environment": Case(
        _behind("Linear: ${oc.env:HOME}"), "'${oc.env:HOME}' is not allowed: oc.select is the only resolver"
    ),
    "Hydra": Case(_behind("Linear: ${hydra:runtime.cwd}"), "'${hydra:runtime.cwd}' is not allowed"),
}

COMPUTED = {
    f"{where} {formula}": Case(_behind(entry.replace("F", formula)), said)
    for formula, said in {
        "9**9**9": "must not exceed 1,000",
        "10**1000": "beyond 1e+18",
        "round(5, -10**9)": "digits",
        "1e308*10": "not a finite number",
        "int('9'*5000)": "",
        "[0][10**10]": "",
    }.items()
    for where, entry in {"setting": "Linear: $(F)", "repeat": 'Linear: {out_features: 2, repeat: "$(F)"}'}.items()
} | {
    f"Formula {formula}": Case(_list("Flatten", "Linear: 20000", f'Formula: "{formula}"', "Flatten", "Linear: 2"))
    for formula in (
        "9**9**9 + _", "_[:, :, None] * _[:, None]", "_ + sum(eye(100000))", "_ + arange(1000000000000)",
        "one_hot(argmax(_, dim=1), 1000000000)", "einsum('bi,bj,bk->bijk', _, _, _)", "__import__('os')",
    )
}  # fmt: skip

LARGE = {
    entry: Case(_then(entry))
    for entry in (
        f"Linear: {HUGE}", "Linear: 1" + "0" * 350, f"Conv2d: {{out_channels: {HUGE}, kernel_size: 3}}",
        f"Upsample: {{scale_factor: {BIG}}}", "Upsample: {scale_factor: 3000}", "ZeroPad2d: 1000000",
        f"AdaptiveAvgPool2d: {BIG}", "Unflatten: {dim: 1, unflattened_size: [1000000, 1000000]}", f"Reshape: [{HUGE}]",
        f"Parameter: {{shape: [{HUGE}], name: p}}", "Parallel: [{Identity: , repeat: 100}]\n    repeat: 9",
    )
} | {
    "much to train": Case(_then("Conv2d: {out_channels: 10000000, kernel_size: 1}"), command="train"),
} | {
    f"{entry} on a sequence": Case(_list(entry, "Mean", "Linear: 2"), data=SEQUENCE)
    for entry in (
        f"LSTM: {HUGE}", f"LSTM: {{hidden_size: 2, num_layers: {BIG}}}",
        f"PositionalEmbedding: {{num_embeddings: {HUGE}}}", f"Attention: {{num_heads: 2, head_dim: {HUGE}}}",
        f"TransformerEncoderLayer: {{nhead: 2, dim_feedforward: {HUGE}}}",
        "PositionalEmbedding: {kind: sinusoidal, num_embeddings: 100000000000}",
    )
} | {"Embedding": Case(_list(f"Embedding: {HUGE}", "Mean", "Linear: 2"), "would need", TOKENS)}  # fmt: skip

FILES = {
    "a tag": Case("layers: !!python/object/apply:os.system ['touch pwned']", "YAML tags are not allowed"),
    "_target_": Case("_target_: os.system\n" + RIGHT, "unknown key '_target_'"),
    "hydra": Case("hydra: {run: {dir: x}}\n" + RIGHT, "hydra"),
    "defaults of a list": Case("defaults: [[m]]\n" + RIGHT, "defaults"),
    "defaults of nothing": Case("defaults: [null]\n" + RIGHT, "defaults"),
    "a hundred megabytes": Case(b"# x\n" * 25_000_000, "DLSPEC_MAX_FILE_BYTES"),
    "NUL bytes": Case(b"layers: [Flatten]\0", "a character that YAML does not allow"),
    "no UTF-8": Case(b"layers: [\xff\xfe]", "not UTF-8 (byte 9)"),
    "UTF-16": Case(RIGHT.encode("utf-16"), "not UTF-8"),
    "a hundred thousand keys": Case("params:\n" + "".join(f"  k{n}: 1\n" for n in range(80_000)), VALUES),
    "a long key": Case("? " + "k" * 990_000 + "\n: 1\n" + RIGHT, "unknown key"),
    "a long number": Case(f"layers: [Flatten, {{Linear: {'9' * 990_000}}}]", "out_features"),
}  # fmt: skip


def _many(count: int) -> dict[str, Case]:
    """So many mistakes of one kind."""
    named = [f"Linear: {{out_features: 2, name: n{n}, from: m{n}}}" for n in range(count)]
    keys = "".join(f"  k{n}: 1\n" for n in range(count))
    return {
        "unused blocks": Case(_blocks({f"b{n}": "[ReLU]" for n in range(count)}), "is never used"),
        "keys": Case(f"params:\n{keys}{RIGHT}", "is never used"),
        "mistakes of form": Case(_list(*["Linera: 2"] * count), "did you mean 'Linear'?"),
        "mistakes of settings": Case(_list("Flatten", *["Linear: {out_featurs: 2}"] * count), "'out_features'"),
        "mistakes of shapes": Case(_list("Flatten", *["Linear: {out_features: 2, in_features: 3}"] * count)),
        "names": Case(_list("Flatten", *named)),
    }


PLACES = {
    "name": 'Linear: {out_features: 2, name: "N"}', "from": 'Linear: {out_features: 2, from: "N"}',
    "tie": 'Linear: {out_features: 2, tie: "N"}', "share": '{share: "N"}', "layer": '"N": 2', "type": '{type: "N"}',
    "setting": 'Linear: {"N": 2}', "value": 'Linear: "N"', "branch": 'Parallel: {branches: {"N": []}}',
}  # fmt: skip
TRICKS = {"red": r"\e[31mred\e[0m", "path": "../../x", "controls": r"x\r\0\u202e", "long": "x" * 100_000}
NAMES = {
    f"{kind} as {place}": Case(_behind(entry.replace("N", name)))
    for place, entry in PLACES.items()
    for kind, name in TRICKS.items()
    if (kind, place) != ("long", "name")
}

ALL = {
    f"{group}: {name[:70]}": case
    for group, cases in (
        ("repeated", REPEATED), ("nested", NESTED), ("looked up", LOOKED_UP), ("computed", COMPUTED), ("large", LARGE),
        ("files", FILES), ("many", _many(250)), ("names", NAMES),
    )
    for name, case in cases.items()
}  # fmt: skip


BY_DEFAULT = ALL | {f"thousands: {name}": case for name, case in _many(1500).items()}


# ---- what is tested ------------------------------------------------------------------------------------------------

_RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


@pytest.mark.parametrize("name", ALL)
def test_refused(server: tuple[Server, float], tmp_path: Path, name: str) -> None:
    check_refused(server, tmp_path, ALL[name])


@pytest.mark.soak
@pytest.mark.parametrize("server", [{}], indirect=True, ids=["default limits"])
@pytest.mark.parametrize("name", BY_DEFAULT)
def test_refused_by_the_default_limits(server: tuple[Server, float], tmp_path: Path, name: str) -> None:
    check_refused(server, tmp_path, BY_DEFAULT[name])


def check_refused(server: tuple[Server, float], tmp_path: Path, case: Case) -> None:
    asked, start = server
    ended = asked.ask(tmp_path, case)
    print(f"{ended.seconds:.1f} s, {ended.mebibytes - start:+.0f} MiB")
    check(case, ended, tmp_path)
    assert ended.mebibytes - start < (MOST_TRIED if "DLSPEC_MAX_SAMPLE_BYTES" in ended.message else MOST)


def check(case: Case, ended: Ended, folder: Path) -> None:
    """A refusal in words, and nothing left in the folder."""
    assert "Traceback" not in ended.message
    assert ended.code == 2, ended.message[:1000]
    assert case.message_has in ended.message
    assert not _RAW.search(ended.message)
    assert len(ended.message) < LONGEST
    assert [str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()] == [MODEL]


FROM_THE_START = ("nested: an alias bomb", "repeated: copies of copies", f"large: Linear: {HUGE}", "files: a tag")


@pytest.mark.soak
@pytest.mark.parametrize("name", FROM_THE_START)
def test_refused_from_the_start(tmp_path: Path, name: str) -> None:
    """As a user runs it; the server's start, a right spec, has the same imports."""
    _write(tmp_path, ALL[name].text)
    command = [sys.executable, "-m", "dlspec", *_words(ALL[name])]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=make_environment(),
        capture_output=True,
        text=True,
        timeout=10 * MAX_SPEC_SECONDS,
        check=False,
    )
    check(ALL[name], Ended(done.returncode, 0, 0, done.stderr), tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_text(server: tuple[Server, float], tmp_path: Path) -> None:
    assert server[0].ask(tmp_path, Case("\ufeff" + RIGHT)).code == 0
