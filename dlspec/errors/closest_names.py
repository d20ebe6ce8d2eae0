"""Find the name that a misspelled one probably means."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache


def find_closest(name: str, choices: Iterable[str]) -> str:
    """Find the choice that a misspelled name probably means; return '' if there is none.

    Case is ignored: 'Relu' means 'ReLU', not 'RNNCell'. Two swapped letters are found in names of any length ('mpl'
    means 'mlp'), a prefix that only one choice has ('F1' means 'F1Score'), and names with a module ('nn.GRU').
    """
    return _find_closest_cached(name, tuple(choices))


@lru_cache(maxsize=2_000)  # the same typo may occur a thousand times in a spec
def _find_closest_cached(name: str, choices: tuple[str, ...]) -> str:
    lowered = {choice.lower(): choice for choice in choices}
    found = [
        each for each in (*_swap_adjacent_letters(name.lower()), name.lower().rpartition(".")[2]) if each in lowered
    ]
    found = found or get_close_matches(name.lower(), lowered, n=1, cutoff=0.7)
    if not found and len(name) > 1:
        longer = [choice for choice in lowered if choice.startswith(name.lower())]
        found = longer if len(longer) == 1 else []
    return lowered[found[0]] if found else ""


def _swap_adjacent_letters(word: str) -> list[str]:
    """Return all variants of a word in which two adjacent letters are swapped."""
    return [word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(min(len(word), 100) - 1)]


def suggest(name: str, choices: Iterable[str], max_names: int = 12) -> str:
    """Suggest a similar name ("did you mean 'ReLU'?"), or list the available ones if none is similar.

    Args:
        name: the name that was not found.
        choices: the available names.
        max_names: how many of them to list.

    Returns:
        The fix of a problem, '' without choices.
    """
    names = sorted(choices)
    guess = find_closest(name, names)
    if guess:
        return f"did you mean '{guess}'?"
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"available: {', '.join(names[:max_names])}{more}" if names else ""
