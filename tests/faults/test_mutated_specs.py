"""Mutated specs end in a network or in a text for the user, whichever way they come; generated right ones build.

A spec that ends otherwise is `mutant(NUMBER)`: print it, cut it down by hand, and put it in tests/golden/wrong_specs/.
"""

from __future__ import annotations

import copy
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dlspec as library
from dlspec.errors import TrainingFailed
from dlspec.jobs import python_spec as face
from dlspec.language.yaml.yaml_files import load_yaml_text
from helpers.command_line import CommandResult
from helpers.docs_examples import ONE_STEP, make_arrays
from helpers.spec_mutations import ValidModel, load_valid_models, mutate

SECONDS = 20
"""What takes longer hangs."""


class Hangs(BaseException):
    """A spec that is neither built nor refused."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutant(number: int) -> tuple[ValidModel, str]:
    """A right spec and the text that was made of it."""
    random = Random(number)
    right = random.choice(load_valid_models())
    return right, mutate(right.text, random)


# ---- the three ways in ---------------------------------------------------------------------------------------------


@cache
def _composed(overrides: tuple[str, ...]) -> Any:
    return COMPOSED(list(overrides), face.start_hydra())


COMPOSED = face.compose_or_raise


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra composes the same config once: that takes most of the time."""
    monkeypatch.setattr(face, "compose_or_raise", lambda overrides, _: _composed(tuple(overrides)))


def built(right: ValidModel, text: str) -> str:
    """As a mapping in Python."""
    return _told(lambda: library.build({"model": load_yaml_text(text, "mine.yaml").tree}, make_arrays(right.data)))


def trained(right: ValidModel, text: str) -> str:
    """As `built`, and then a step of training."""
    return _told(
        lambda: library.train(
            {"model": load_yaml_text(text, "mine.yaml").tree, "trainer": ONE_STEP}, make_arrays(right.data)
        )
    )


def _told(action: Callable[[], object]) -> str:
    """'accepted', 'failed' in training or 'refused'; whatever else is raised is a defect of ours."""
    try:
        action()
    except library.SpecError as error:
        assert error.problems and all(each.found for each in error.problems)
        return "refused"
    except TrainingFailed as error:
        assert str(error)
        return "failed"
    except library.UserError as error:
        assert str(error)
        return "refused"
    return "accepted"


def summed_up(right: ValidModel, text: str, dlspec: Callable[..., CommandResult]) -> str:
    """As a file, from the command line."""
    Path("conf/model").mkdir(parents=True, exist_ok=True)
    Path("conf/model/mine.yaml").write_text(text, encoding="utf-8")
    facts = [f"data.{key}={value}".replace(" ", "") for key, value in right.data.items()]
    said = dlspec("summary", "model=mine", "data=random", *facts)
    assert (said.code, bool(said.out), bool(said.err)) in ((0, True, False), (2, False, True)), said
    return "refused" if said.code else "accepted"


def end(number: int, dlspec: Callable[..., CommandResult]) -> str:
    """How the mutant ends that has this number, by one of the three ways."""
    right, text = mutant(number)
    try:
        with alarm(SECONDS):
            if number % 5 == 0 and right.is_stated:
                return summed_up(right, text, dlspec)
            return trained(right, text) if number % 5 == 1 else built(right, text)
    finally:
        assert not Path("runs").exists()


# ---- mutated specs -------------------------------------------------------------------------------------------------

A_RUN = 100


@pytest.mark.parametrize("tens", range(A_RUN // 10))
def test_mutants_end_well(quick: None, dlspec: Callable[..., CommandResult], tens: int) -> None:
    for number in range(10 * tens, 10 * tens + 10):
        end(number, dlspec)


@pytest.mark.soak
def test_many_mutants_end_well(quick: None, dlspec: Callable[..., CommandResult]) -> None:
    tally: Counter[str] = Counter()
    for number in range(A_RUN, A_RUN + 10_000):
        tally[_tallied(number, dlspec)] += 1
    print(dict(tally))
    assert tally.keys() <= {"accepted", "refused", "failed"}


def _tallied(number: int, dlspec: Callable[..., CommandResult]) -> str:
    """The end, and for one that is none what to look at."""
    try:
        return end(number, dlspec)
    except (Exception, Hangs) as error:
        kind = "hang" if isinstance(error, Hangs) else "traceback" if not Path("runs").exists() else "run folder"
        print(f"mutant({number}): {kind}: {type(error).__name__}: {error}")
        return kind


# ---- generated right specs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """An entry, the features that it gives, and the state dict's keys below its path."""

    entry: Any
    width: int
    keys: tuple[str, ...] = ()


BOTH = ("weight", "bias")
NORM = (*BOTH, "running_mean", "running_var", "num_batches_tracked")
WIDTHS = st.integers(1, 6)


@st.composite
def entries(draw: st.DrawFn, width: int, depth: int = 2, most: int = 3) -> Made:
    """A list of entries that takes `width` features; an entry's path is its place or its name."""
    listed, keys = [], []
    for place in range(draw(st.integers(1, most))):
        made = draw(entry(width, depth))
        named = isinstance(made.entry, dict) and draw(st.booleans())
        name = f"d{depth}_{place}" if named else str(place)
        listed.append({**made.entry, "name": name} if named else made.entry)
        keys += [f"{name}.{key}" for key in made.keys]
        width = made.width
    return Made(listed, width, tuple(keys))


@st.composite
def entry(draw: st.DrawFn, width: int, depth: int) -> Made:
    kinds = [linear, plain, norm] + [residual, parallel, sequential, block, formula] * (depth > 0)
    made: Made = draw(draw(st.sampled_from(kinds))(width, depth - 1))
    return made


@st.composite
def linear(draw: st.DrawFn, width: int, depth: int) -> Made:
    """Once, or repeated by a number or by columns."""
    out, times = draw(WIDTHS), draw(st.integers(0, 3))
    if times == 0:
        return Made({"Linear": {"out_features": out}}, out, BOTH)
    keys = tuple(f"{copy}.{key}" for copy in range(times) for key in BOTH)
    if draw(st.booleans()):
        return Made({"Linear": {"out_features": out}, "repeat": times}, out, keys)
    columns = draw(st.lists(WIDTHS, min_size=times, max_size=times))
    return Made({"Linear": "$c", "repeat": {"c": columns}}, columns[-1], keys)


@st.composite
def plain(draw: st.DrawFn, width: int, depth: int) -> Made:
    return Made(draw(st.sampled_from(["ReLU", "Tanh", {"Dropout": 0.5}, {"GELU": None, "if": True}])), width)


@st.composite
def norm(draw: st.DrawFn, width: int, depth: int) -> Made:
    return draw(st.sampled_from([Made("LayerNorm", width, BOTH), Made({"BatchNorm1d": None}, width, NORM)]))


@st.composite
def residual(draw: st.DrawFn, width: int, depth: int) -> Made:
    """The last entry of the body gives what came in."""
    body = draw(entries(width, depth))
    last = len(body.entry)
    keys = (*body.keys, *(f"{last}.{key}" for key in BOTH))
    return Made({"Residual": [*body.entry, {"Linear": width}]}, width, tuple(f"body.{key}" for key in keys))


@st.composite
def parallel(draw: st.DrawFn, width: int, depth: int) -> Made:
    """Branches by name or in a list, the last one the input itself."""
    made = draw(st.lists(entries(width, depth, most=2), min_size=1, max_size=2))
    is_named = draw(st.booleans())
    names = [f"b{place}" if is_named else str(place) for place in range(len(made))]
    listed = [each.entry for each in made]
    branches = {**dict(zip(names, listed, strict=True)), "same": []} if is_named else [*listed, []]
    keys = tuple(f"{name}.{key}" for name, each in zip(names, made, strict=True) for key in each.keys)
    return Made({"Parallel": {"branches": branches}}, width + sum(each.width for each in made), keys)


@st.composite
def sequential(draw: st.DrawFn, width: int, depth: int) -> Made:
    """Repeated, with an output as wide as its input."""
    inner, times = draw(entries(width, depth)), draw(st.integers(1, 2))
    keys = (*inner.keys, *(f"{len(inner.entry)}.{key}" for key in BOTH))
    copies = tuple(f"{copy}.{key}" for copy in range(times) for key in keys)
    return Made({"Sequential": [*inner.entry, {"Linear": width}], "repeat": times}, width, copies)


@st.composite
def block(draw: st.DrawFn, width: int, depth: int) -> Made:
    out = draw(WIDTHS)
    return Made({"dense": out}, out, tuple(f"{place}.{key}" for place in ("0", "act.norm") for key in BOTH))


@st.composite
def formula(draw: st.DrawFn, width: int, depth: int) -> Made:
    texts = ("_ * 2 - 1", "tanh(_) + $half", "_ / (1 + abs(_))", "cat([_, _ ** 2], dim=1)")
    text = draw(st.sampled_from(texts))
    return Made({"Formula": text}, 2 * width if "cat" in text else width)


BLOCK = {
    "params": {"out": None},
    "layers": [{"Linear": "$out"}, {"Sequential": [{"LayerNorm": {"name": "norm"}}, "ReLU"], "name": "act"}],
}


@st.composite
def models(draw: st.DrawFn) -> Made:
    """A whole model of 4 features that ends in 3."""
    body = draw(entries(4, depth=2, most=4))
    layers = [*body.entry, {"Formula": "_ + 0 * $half"}, {"dense": 2}, {"Linear": 3}]
    start = len(body.entry) + 1
    dense = tuple(f"{start}.{place}.{key}" for place in ("0", "act.norm") for key in BOTH)
    keys = (*body.keys, *dense, *(f"{start + 1}.{key}" for key in BOTH))
    return Made({"params": {"half": 0.5}, "blocks": {"dense": BLOCK}, "layers": layers}, 3, keys)


DATA = {"shape": [4], "num_classes": 3}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=models())
def test_generated_specs_build_what_they_say(quick: None, work: Path, model: Made) -> None:
    network = library.build({"model": model.entry}, DATA)
    assert list(network.state_dict()) == list(model.keys)
    assert equal(network.state_dict(), library.build({"model": model.entry}, DATA).state_dict())
    rows = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4)  # a LayerNorm of 2 amplifies rounding
    with torch.no_grad():
        outputs = network.double().eval()(rows)
        assert outputs.shape == (5, 3)
        for place in range(5):
            torch.testing.assert_close(network(rows[place : place + 1]), outputs[place : place + 1])
        assert torch.equal(copy.deepcopy(network)(rows), outputs)


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
