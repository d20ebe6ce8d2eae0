"""Train several runs as a stack: they take turns, and their training passes are made in one loop."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dlspec.training.runtime.randomness import preserve_generators
from dlspec.training.stacking.compilation import (
    COMPILE_SECONDS,
    describe_step,
    find_compile_obstacle,
    have_equal_data,
)
from dlspec.training.stacking.compiled_stack import CompiledStack
from dlspec.training.stacking.member_generators import MemberGenerators
from dlspec.training.stacking.network_structure import describe_structure
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.stacking.stacked_network import StackedNetwork
from dlspec.training.stacking.stacked_pass import StackedPass
from dlspec.training.stacking.training_pass import TrainingPass

log = logging.getLogger("dlspec")


class Stack:
    """Runs the members until all have ended.

    Args:
        members: the runs; none of them has started yet.
        saved_seconds: what a compiled step saves each member, to compile the steps where that pays; 0 compiles only
            with `trainer.compile: step`.
        announce: is given what the user should know, by default for the log.
    """

    def __init__(
        self,
        members: Sequence[StackMember],
        saved_seconds: float = 0.0,
        announce: Callable[[str], None] = log.warning,
    ) -> None:
        self._members, self._saved_seconds, self._announce = members, saved_seconds, announce
        self._compiled: dict[Any, CompiledStack | None] = {}  # by the constants of the step
        self._networks: dict[tuple[int, ...], StackedNetwork] = {}  # by the indices of the members

    def run(self) -> Iterator[tuple[int, Any]]:
        """Run all members; yield the index and the result of each when it has ended."""
        waiting = list(range(len(self._members)))
        with preserve_generators():
            while waiting:
                for index in list(waiting):
                    self._members[index].resume()
                    if self._members[index].is_done:
                        waiting.remove(index)
                        self._forget(index)
                        yield index, self._members[index].result
                for group in self._group(waiting):
                    self._train(group)

    def _group(self, waiting: Sequence[int]) -> list[list[int]]:
        """Group the members whose passes can be made in one loop."""
        groups: defaultdict[Any, list[int]] = defaultdict(list)
        for index in waiting:
            training_pass = self._members[index].training_pass
            assert training_pass is not None  # it waits for it
            key = training_pass.position, describe_structure(training_pass.network)
            groups[*key, describe_step(training_pass) if self._may_compile(training_pass) else ()].append(index)
        return list(groups.values())

    def _may_compile(self, training_pass: TrainingPass) -> bool:
        return self._saved_seconds > 0 or training_pass.compiles_steps

    def _find_compiled(self, passes: Sequence[TrainingPass]) -> CompiledStack | None:
        """Return what compiles the steps of these passes; None if that is impossible or does not pay."""
        first = passes[0]
        if not self._may_compile(first):
            return None
        key = describe_structure(first.network), describe_step(first)
        known = self._compiled.get(key)
        saved = self._saved_seconds * sum(each.remaining_steps for each in passes)
        if key not in self._compiled or (known is not None and not known.has_room_for(passes)):
            if not first.compiles_steps and saved < COMPILE_SECONDS:
                return None
            is_possible = not find_compile_obstacle(first.network, first.optimizer, first.batches)
            has_one_split = is_possible and all(have_equal_data(first, each) for each in passes[1:])
            self._compiled[key] = CompiledStack(passes, self._announce) if has_one_split else None
        return self._compiled[key]

    def _train(self, group: Sequence[int]) -> None:
        """Train the passes of a group; those that leave the loop go on by themselves."""
        remaining = list(group)
        while remaining:
            members = [self._members[index] for index in remaining]
            passes = [each.training_pass for each in members if each.training_pass is not None]
            if len(passes) == 1 or passes[0].state.batch >= len(passes[0].batches.sizes):
                for each in members:
                    each.end_pass(each.generator_state)
                return
            network = self._make_network(remaining)
            network.generators.set_states([each.generator_state for each in members])
            for position, member in enumerate(members):
                member.generator = network.generators[position]
            stacked = StackedPass(passes, network, self._find_compiled(passes))
            stacked.run()
            states = network.generators.get_states()
            leaving = {*stacked.find_leaving(), *stacked.errors}
            is_complete = passes[0].state.batch >= len(passes[0].batches.sizes)
            for position, member in enumerate(members):
                if is_complete or position in leaving:
                    member.end_pass(states[position], stacked.errors.get(position))
                else:
                    member.keep_generator_state(states[position])
            remaining = [] if is_complete else [each for n, each in enumerate(remaining) if n not in leaving]

    def _make_network(self, group: Sequence[int]) -> StackedNetwork:
        """Return the stacked network of these members; the same one as before if they are the same."""
        key = tuple(group)
        if key not in self._networks:
            for index in group:
                self._forget(index)
            passes = [self._members[index].training_pass for index in group]
            networks = [each.network for each in passes if each is not None]
            generators = MemberGenerators([self._members[index].generator_state for index in group])
            self._networks[key] = StackedNetwork(networks, generators)
        return self._networks[key]

    def _forget(self, index: int) -> None:
        """Forget the stacked networks that a member belongs to."""
        for key in [each for each in self._networks if index in each]:
            self._networks.pop(key).release()
