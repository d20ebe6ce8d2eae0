"""Which of the network's outputs and which target each loss compares: as written, or the only ones there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code, suggest
from dlspec.language.problems import Problems
from dlspec.losses.rules import LossRule, rule_of
from dlspec.parts.specs.loss_spec import Arguments, LossTerm, Terms, arguments
from dlspec.parts.torch.torch_parts import LOSSES

if TYPE_CHECKING:
    from dlspec.network.builder import Network, Output


@dataclass(frozen=True)
class Match:
    """A loss, the names of the outputs that it takes by its arguments, and what it compares the first with.

    A target that is a number is the same for every sample.
    """

    term: LossTerm
    names: Mapping[str, str]
    outputs: Mapping[str, Output]
    target: Target | float | None
    rule: LossRule
    arguments: Arguments

    @property
    def main(self) -> Output:
        """The output that is judged."""
        return next(iter(self.outputs.values()))

    @property
    def is_several(self) -> bool:
        return len(self.outputs) > 1


def match_losses(network: Network, data: Dataset, terms: Terms | None, problems: Problems) -> tuple[Match, ...]:
    """What each term compares; None terms are `auto`. What is left open and not plain is a mistake."""
    before = len(problems)
    chosen = _automatic(network, data, problems) if terms is None else terms
    found = [_match(term, network, data, problems) for term in chosen]
    return () if len(problems) > before else tuple(each for each in found if each is not None)


def auto_loss(output: Output, target: Target) -> str:
    """The loss that `loss: auto` means for this target and this network's end."""
    if target.kind == "numbers":
        return "MSELoss"
    if target.num_outputs == 1 and output.value.channels == 1:
        return "BCELoss" if output.end.type == "Sigmoid" else "BCEWithLogitsLoss"
    return "NLLLoss" if output.end.type == "LogSoftmax" else "CrossEntropyLoss"


def _automatic(network: Network, data: Dataset, problems: Problems) -> Terms:
    """A term for each target: the only one with the only output, several with the outputs of their names.

    Data without a target are their own: the network gives its input again.
    """
    targets, outputs = _predicted(network, data), network.outputs
    if len(targets) == len(outputs) == 1:
        output = next(iter(outputs.values()))
        return (_auto_term("", output, targets[0], "", "" if data.targets else targets[0].name),)
    missing = [each.name for each in targets if each.name not in outputs]
    if missing or not targets:
        _tell_unclear(targets, list(outputs), problems)
        return ()
    names = ["" if len(targets) == 1 else each.name for each in targets]
    pairs = zip(names, targets, strict=True)
    return tuple(_auto_term(name, outputs[each.name], each, each.name, each.name) for name, each in pairs)


def _auto_term(name: str, output: Output, target: Target, output_name: str, target_name: str) -> LossTerm:
    return LossTerm(name, LOSSES[auto_loss(output, target)], output=output_name or None, target=target_name or None)


def _predicted(network: Network, data: Dataset) -> list[Target]:
    return [each for each in data.aims if data.targets or each.name in network.inputs]


def _tell_unclear(targets: Sequence[Target], outputs: Sequence[str], problems: Problems) -> None:
    named = ", ".join(each.name for each in targets)
    what = f"{len(targets)} target{'s' if len(targets) != 1 else ''} ({named})"
    found = f"{what} and {len(outputs)} output{'s' if len(outputs) > 1 else ''} ({', '.join(outputs)})"
    first = f"{{type: LOSS, output: {outputs[0]}, target: {targets[0].name if targets else 'FIELD'}}}"
    fix = f"give each target's output its name, or say what belongs together: loss: {{main: {first}}}"
    problems.add(Code.AMBIGUOUS, ("model", "outputs") if len(outputs) > 1 else ("loss",), found, fix)


def _match(term: LossTerm, network: Network, data: Dataset, problems: Problems) -> Match | None:
    takes = arguments(term.schema.build)
    names = _output_names(term, takes, network, data, problems)
    target = _target(term, takes, names, data, problems)
    if names is None or (takes.target and target is None):
        return None
    outputs = {key: network.outputs[name] for key, name in names.items()}
    return Match(term, names, outputs, target, rule_of(term.schema, term.settings), takes)


def _output_names(
    term: LossTerm, takes: Arguments, network: Network, data: Dataset, problems: Problems
) -> dict[str, str] | None:
    """The outputs' names by the loss's arguments."""
    names = _written_names(term, takes, network, data)
    if names is None:
        _tell_open(term, takes, network, problems)
        return None
    unknown = [name for name in names.values() if name not in network.outputs]
    for name in unknown:
        fix = suggest(name, network.outputs)
        problems.add(Code.UNKNOWN_OUTPUT, term.where("output"), f"the model has no output '{name}'", fix, at_value=True)
    return None if unknown else names


def _written_names(term: LossTerm, takes: Arguments, network: Network, data: Dataset) -> dict[str, str] | None:
    """As written, else the only output, or the one of the target's name; None where that leaves an argument open."""
    written, outputs = term.output, network.outputs
    if written is None and len(takes.outputs) == 1:
        only = data.targets[0].name if len(data.targets) == 1 else ""
        wanted = term.target if isinstance(term.target, str) else only
        name = next(iter(outputs)) if len(outputs) == 1 else wanted if wanted in outputs else None
        return None if name is None else {takes.outputs[0]: name}
    named = {takes.outputs[0]: written} if isinstance(written, str) else written
    if isinstance(named, tuple):
        named = dict(zip(takes.outputs, named, strict=False))
    if named is None or set(named) != set(takes.outputs):
        return None
    return {each: named[each] for each in takes.outputs}


def _tell_open(term: LossTerm, takes: Arguments, network: Network, problems: Problems) -> None:
    names = ", ".join(network.outputs)
    if len(takes.outputs) > 1:
        found = f"{term.type} compares {' and '.join([', '.join(takes.outputs[:-1]), takes.outputs[-1]])}"
        several = ", ".join(f"{each}: NAME" for each in takes.outputs)
        fix = f"say which outputs they are: output: {{{several}}}; the model has {names}"
    else:
        found = f"the model has {len(network.outputs)} outputs ({names})"
        fix = f"say which one {term.type} takes: output: {next(iter(network.outputs))}"
    problems.add(Code.AMBIGUOUS, term.where("output"), found, fix)


def _target(
    term: LossTerm, takes: Arguments, names: Mapping[str, str] | None, data: Dataset, problems: Problems
) -> Target | float | None:
    """What is compared with: as written, else the only target, that of the output's name, or the only field."""
    if not takes.target or isinstance(term.target, int | float):
        return term.target if takes.target and not isinstance(term.target, str) else None
    written = term.target
    if written is None:
        own = data.aims
        mine = [each for each in own if each.name in (names or {}).values()]
        if len(own) == 1 or mine:
            return (mine or own)[0]
        _tell_targets([target.name for target in own], term, data, problems)
        return None
    found = data.compared(written)
    if found is None:
        known = [*(each.name for each in data.targets), *(each.name for each in data.fields)]
        problems.add(
            Code.UNKNOWN_TARGET,
            term.where("target"),
            f"the data have no '{written}'",
            suggest(written, known),
            at_value=True,
        )
    return found


def _tell_targets(names: Sequence[str], term: LossTerm, data: Dataset, problems: Problems) -> None:
    kind = "targets" if data.targets else "fields and no target"
    fix = f"say which one {term.type} compares with: target: {names[0]}"
    problems.add(Code.AMBIGUOUS, term.where("target"), f"the data have {len(names)} {kind} ({', '.join(names)})", fix)
