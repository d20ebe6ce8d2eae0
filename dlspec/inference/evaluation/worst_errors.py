"""The samples with the worst predictions of a pass, without keeping all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_ERRORS = 50


@dataclass(frozen=True)
class SampleError:
    """A sample that was predicted wrongly."""

    position: int  # in the split, from 0
    badness: float  # larger is worse
    details: dict[str, Any]  # JSON values: truth, prediction, and the probability or the error


class WorstErrors:
    """Keeps the worst errors; of equally bad ones the first."""

    def __init__(self, at_most: int = MAX_ERRORS) -> None:
        self._at_most = at_most
        self._heap: list[tuple[float, int, SampleError]] = []

    def add(self, badness: Iterable[float], start: int, describe: Callable[[int], dict[str, Any]]) -> None:
        """Add the samples of a batch.

        Args:
            badness: of each sample: 0 or less if it was predicted correctly
            start: the position of the first sample in the split
            describe: returns the details of a sample by its index in the batch; called only for those that are kept
        """
        for index, bad in enumerate(badness):
            position = start + index
            if not bad > 0 or (len(self._heap) == self._at_most and (bad, -position) <= self._heap[0][:2]):
                continue
            entry = (bad, -position, SampleError(position, bad, describe(index)))
            if len(self._heap) == self._at_most:
                heapq.heapreplace(self._heap, entry)
            else:
                heapq.heappush(self._heap, entry)

    def list(self) -> list[SampleError]:
        """List the errors, the worst first."""
        return [entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
