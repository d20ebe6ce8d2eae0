"""The five layouts that a value can have, and the role of each of its dimensions.

A role is one letter: N batch, T time, C channels, S space. A layout is the name of a row of roles; the batch always
comes first and is left out of every shape in a spec.
"""

from __future__ import annotations

from typing import Literal, get_args

Layout = Literal["features", "sequence", "tokens", "channels-first", "channels-last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def roles(layout: Layout, rank: int) -> tuple[str, ...]:
    """The roles of a value's `rank` dimensions, batch left out: `roles("channels-first", 3)` is `("C", "S", "S")`."""
    if layout == "features":
        return ("C",) * rank
    if layout == "sequence":
        return ("T",) + ("C",) * (rank - 1)
    if layout == "tokens":
        return ("T",) * rank
    space = ("S",) * (rank - 1)
    return ("C", *space) if layout == "channels-first" else (*space, "C")
