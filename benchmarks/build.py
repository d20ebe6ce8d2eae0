"""Time to build a network with dlspec and by hand: `python benchmarks/build.py`.

dlspec's time includes everything: composing, checking and expanding the YAML file, building each layer, passing a
sample through. Both versions create and initialize the same weights. The contenders take turns on one core with one
thread, and the difference is computed within each round.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from measuring import ONE_THREAD, machine, pin, spread, table
from startup import run

os.environ.update(ONE_THREAD)

NETWORKS = ("ResNet-50", "GPT-2", "ResNet-18", "small GPT", "text model")
LAYERS = (125, 250, 500, 1000, 2000)
STACKS: Mapping[str, str] = {
    "Linear, ReLU": "[{Sequential: [{Linear: 32}, ReLU], repeat: COUNT}]",
    "Residual: [Linear, ReLU]": "[{Residual: [{Linear: 32}, ReLU], repeat: COUNT}]",
    "as entries": "[{Linear: 32}, ReLU] * COUNT",
}
Maker = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    where, about = pin(), machine("torch")
    print(f"{about}; {where}, one thread; median of {rounds} rounds (quartiles), seconds\n", flush=True)
    print(table(["built again and again", "by hand", "dlspec", "more"], [_network(each, rounds) for each in NETWORKS]))
    print(flush=True)
    header = ["layers", *STACKS, "by hand"]
    print(table(header, [_stacks(count, rounds) for count in LAYERS]), "\n", flush=True)
    print(
        table(["a fresh process that builds", "by hand", "dlspec", "more"], [_fresh(each, rounds) for each in NETWORKS])
    )


def _network(name: str, rounds: int) -> list[str]:
    from pairs import PAIRS

    pair = PAIRS[name]
    return [name, *_compared(_in_turn([pair.by_hand, pair.build], rounds))]


def _compared(times: Sequence[Sequence[float]]) -> list[str]:
    by_hand, ours = times
    more = [mine - theirs for mine, theirs in zip(ours, by_hand, strict=True)]
    return [f"{spread(each):.3f}" for each in (by_hand, ours, more)]


def _in_turn(makers: Sequence[Maker], rounds: int) -> list[list[float]]:
    """Return the seconds of each maker, after one warm-up round."""
    times = [[_seconds(make) for make in makers] for _ in range(rounds + 1)][1:]
    return [list(each) for each in zip(*times, strict=True)]


def _seconds(make: Maker) -> float:
    gc.collect()
    started = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - started
    del made
    return seconds


def _stacks(count: int, rounds: int) -> list[str]:
    """A row of the table of growth: the seconds to build `count` layers, in total and per layer."""
    makers = [_maker(text, count) for text in STACKS.values()]
    times = _in_turn([*makers, lambda: _by_hand(count)], rounds)
    return [f"{count:,}", *(_with_each(each, count) for each in times)]


def _with_each(seconds: Sequence[float], count: int) -> str:
    middle = spread(seconds).middle
    return f"{middle:.3f} ({1e6 * middle / count:.0f} µs a layer)"


def _maker(text: str, count: int) -> Maker:
    """Return a function that builds a spec with `count` layers, two in each repetition."""
    import yaml

    import dlspec

    if text.endswith("* COUNT"):
        layers = yaml.safe_load(text.removesuffix("* COUNT")) * (count // 2)
    else:
        layers = yaml.safe_load(text.replace("COUNT", str(count // 2)))
    return lambda: dlspec.build({"layers": layers}, {"shape": [32], "num_classes": None, "size": 8})


def _by_hand(count: int) -> object:
    from torch import nn

    return nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(count // 2)))


def _fresh(name: str, rounds: int) -> list[str]:
    """Time whole processes, imports included."""
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import pairs; pairs.PAIRS[{name!r}]"
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(rounds + 1):
            by_hand, ours = (run(("-c", f"{code}.{what}()"), Path(empty)) for what in ("by_hand", "build"))
            times.append((by_hand, ours))
    return [name, *_compared([list(each) for each in zip(*times[1:], strict=True)])]


if __name__ == "__main__":
    main()
