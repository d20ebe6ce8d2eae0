"""Find the outputs and the target that each loss compares: as written in the spec, or the only possible ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code, suggest
from dlspec.language.problems import Problems
from dlspec.losses.loss_rules import LossRule, compare_with_probabilities, find_loss_rule
from dlspec.parts.specs.loss_spec import LossArguments, LossTerm, LossTerms, inspect_loss_arguments
from dlspec.parts.torch.torch_parts import LOSSES

if TYPE_CHECKING:
    from dlspec.network.builder import Network
    from dlspec.network.built_network import NetworkOutput


@dataclass(frozen=True)
class LossMatch:
    """A loss with its outputs and its target."""

    term: LossTerm
    # Names and descriptions of the network's outputs, by the loss's argument names.
    names: Mapping[str, str]
    outputs: Mapping[str, NetworkOutput]
    # A number is the same target for every sample; None: the loss has no target.
    target: Target | float | None
    rule: LossRule
    arguments: LossArguments

    @property
    def main(self) -> NetworkOutput:
        """The first output, which is compared with the target."""
        return next(iter(self.outputs.values()))


def match_losses(network: Network, data: Dataset, terms: LossTerms | None, problems: Problems) -> tuple[LossMatch, ...]:
    """Find what each loss compares.

    Args:
        network: The network.
        data: The data with the targets.
        terms: The losses as written; None stands for `auto`.
        problems: Collects outputs and targets that are unknown or ambiguous.

    Returns:
        The matches in the order of the terms; empty where a problem was found.
    """
    problem_count = len(problems)
    chosen = _make_auto_terms(network, data, problems) if terms is None else terms
    found = [_match_loss(term, network, data, problems) for term in chosen]
    return () if len(problems) > problem_count else tuple(each for each in found if each is not None)


def choose_auto_loss(output: NetworkOutput, target: Target) -> str:
    """Choose the loss that `loss: auto` stands for, by the target and the network's last layer."""
    if target.kind == "numbers" and not target.labels:
        return "MSELoss"
    if target.labels or (target.num_outputs == 1 and output.value.channels == 1):
        return "BCELoss" if output.end.type == "Sigmoid" else "BCEWithLogitsLoss"
    return "NLLLoss" if output.end.type == "LogSoftmax" else "CrossEntropyLoss"


def _make_auto_terms(network: Network, data: Dataset, problems: Problems) -> LossTerms:
    """Make a term for each target. A single target uses a single output, whatever its name; others match by name.

    For data without targets, the network's input is the target, as in an autoencoder.
    """
    targets, outputs = _list_predicted_targets(network, data), network.outputs
    if len(targets) == len(outputs) == 1:
        output = next(iter(outputs.values()))
        return (_make_auto_term("", output, targets[0], "", "" if data.targets else targets[0].name),)
    missing = [each.name for each in targets if each.name not in outputs]
    if missing or not targets:
        _report_ambiguous_pairs(targets, list(outputs), problems)
        return ()
    names = ["" if len(targets) == 1 else each.name for each in targets]
    pairs = zip(names, targets, strict=True)
    return tuple(_make_auto_term(name, outputs[each.name], each, each.name, each.name) for name, each in pairs)


def _make_auto_term(name: str, output: NetworkOutput, target: Target, output_name: str, target_name: str) -> LossTerm:
    return LossTerm(
        name, LOSSES[choose_auto_loss(output, target)], output=output_name or None, target=target_name or None
    )


def _list_predicted_targets(network: Network, data: Dataset) -> list[Target]:
    return [each for each in data.effective_targets if data.targets or each.name in network.inputs]


def _report_ambiguous_pairs(targets: Sequence[Target], outputs: Sequence[str], problems: Problems) -> None:
    named = ", ".join(each.name for each in targets)
    what = f"{len(targets)} target{'s' if len(targets) != 1 else ''} ({named})"
    found = f"can't match {what} with {len(outputs)} output{'s' if len(outputs) > 1 else ''} ({', '.join(outputs)})"
    first = f"{{type: LOSS, output: {outputs[0]}, target: {targets[0].name if targets else 'FIELD'}}}"
    fix = f"name each output like its target, or write which belong together: loss: {{main: {first}}}"
    problems.add(Code.AMBIGUOUS, ("model", "outputs") if len(outputs) > 1 else ("loss",), found, fix)


def _match_loss(term: LossTerm, network: Network, data: Dataset, problems: Problems) -> LossMatch | None:
    loss_arguments = inspect_loss_arguments(term.schema.build)
    names = _find_output_names(term, loss_arguments, network, data, problems)
    target = _find_target(term, loss_arguments, names, data, problems)
    if names is None or (loss_arguments.target and target is None):
        return None
    outputs = {key: network.outputs[name] for key, name in names.items()}
    rule = find_loss_rule(term.schema, term.settings)
    if rule.numbers == "probabilities" and isinstance(target, Target) and target.kind == "numbers":
        rule = compare_with_probabilities(rule)
    return LossMatch(term, names, outputs, target, rule, loss_arguments)


def _find_output_names(
    term: LossTerm, loss_arguments: LossArguments, network: Network, data: Dataset, problems: Problems
) -> dict[str, str] | None:
    """Find the names of the outputs, by the loss's argument names; None where a problem was found."""
    names = _resolve_output_names(term, loss_arguments, network, data)
    if names is None:
        _report_ambiguous_outputs(term, loss_arguments, network, problems)
        return None
    unknown = [name for name in names.values() if name not in network.outputs]
    for name in unknown:
        fix = suggest(name, network.outputs)
        problems.add(Code.UNKNOWN_OUTPUT, term.where("output"), f"the model has no output '{name}'", fix, at_value=True)
    return None if unknown else names


def _resolve_output_names(
    term: LossTerm, loss_arguments: LossArguments, network: Network, data: Dataset
) -> dict[str, str] | None:
    """Use the outputs as written, else the only output or the one named like the target; None if ambiguous."""
    written, outputs = term.output, network.outputs
    if written is None and len(loss_arguments.outputs) == 1:
        only_target = data.targets[0].name if len(data.targets) == 1 else ""
        target_name = term.target if isinstance(term.target, str) else only_target
        name = next(iter(outputs)) if len(outputs) == 1 else target_name if target_name in outputs else None
        return None if name is None else {loss_arguments.outputs[0]: name}
    named = {loss_arguments.outputs[0]: written} if isinstance(written, str) else written
    if isinstance(named, tuple):
        named = dict(zip(loss_arguments.outputs, named, strict=False))
    if named is None or set(named) != set(loss_arguments.outputs):
        return None
    return {each: named[each] for each in loss_arguments.outputs}


def _report_ambiguous_outputs(
    term: LossTerm, loss_arguments: LossArguments, network: Network, problems: Problems
) -> None:
    names = ", ".join(network.outputs)
    if len(loss_arguments.outputs) > 1:
        found = (
            f"{term.type} compares {' and '.join([', '.join(loss_arguments.outputs[:-1]), loss_arguments.outputs[-1]])}"
        )
        by_argument = ", ".join(f"{each}: NAME" for each in loss_arguments.outputs)
        fix = f"write which outputs these are: output: {{{by_argument}}}; the model's outputs: {names}"
    else:
        found = f"the model has {len(network.outputs)} outputs ({names})"
        fix = f"write which one the loss uses: {{type: {term.type}, output: {next(iter(network.outputs))}}}"
    problems.add(Code.AMBIGUOUS, term.where("output"), found, fix)


def _find_target(
    term: LossTerm, loss_arguments: LossArguments, names: Mapping[str, str] | None, data: Dataset, problems: Problems
) -> Target | float | None:
    """Find the target: as written, else the only target, the one named like the output, or the only field."""
    if not loss_arguments.target or isinstance(term.target, int | float):
        return term.target if loss_arguments.target and not isinstance(term.target, str) else None
    written = term.target
    if written is None:
        choices = data.effective_targets
        same_name = [each for each in choices if each.name in (names or {}).values()]
        if len(choices) == 1 or same_name:
            return (same_name or choices)[0]
        _report_ambiguous_target([target.name for target in choices], term, data, problems)
        return None
    found = data.get_loss_target(written)
    if found is None:
        known = [*(each.name for each in data.targets), *(each.name for each in data.fields)]
        problems.add(
            Code.UNKNOWN_TARGET,
            term.where("target"),
            f"the data have no target or field '{written}'",
            suggest(written, known),
            at_value=True,
        )
    return found


def _report_ambiguous_target(names: Sequence[str], term: LossTerm, data: Dataset, problems: Problems) -> None:
    kind = "targets" if data.targets else "fields and no target"
    fix = f"write which one {term.type} uses: target: {names[0]}"
    problems.add(Code.AMBIGUOUS, term.where("target"), f"the data have {len(names)} {kind} ({', '.join(names)})", fix)
