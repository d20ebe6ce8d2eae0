"""Builds a network, layer by layer, and learns each layer's inputs by passing a sample through.

Every layer is built once, for real, in the order in which it runs: under one seed its weights are those of the same
PyTorch code. The sample is passed in eval mode, with the random generators kept as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from dlspec.data.batches.trimming import border, fewest_steps
from dlspec.data.dataset import Field
from dlspec.errors import Code, Finding, KeyPath, suggest
from dlspec.language.expand.containers import JOIN
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import Ref
from dlspec.language.problems import Problems
from dlspec.layouts import Lengths, Value, format_shape, guess_layout
from dlspec.network.built import BuiltLayer as BuiltLayer
from dlspec.network.built import Network as Network
from dlspec.network.built import Output as Output
from dlspec.network.built import Taken
from dlspec.network.codegen import Step, assemble
from dlspec.network.joining import plan_join
from dlspec.network.layer_call import (
    Layer,
    agrees,
    are_enough,
    attempt,
    completed,
    computed,
    in_order,
    made,
    may_parametrize,
)
from dlspec.network.memory_limits import bounded_growth
from dlspec.network.meta_device import RUN, Place
from dlspec.network.rules.layout_rules import (
    infer,
    layout_after,
    lengths_after,
    refusal,
    roles_after,
    rule_for,
    takes_any_length,
)
from dlspec.network.shortcuts import is_norm
from dlspec.network.ties import tie
from dlspec.network.tracing import Tracer, memory_of, sampling
from dlspec.parts.layers.rule import main

# What leaves an end as it is: what stands before is what a loss sees.
PASSING = frozenset(
    "Identity Flatten Unflatten Reshape Permute Dropout AlphaDropout FeatureAlphaDropout UnfoldTime".split()
)
_SHOWN = 6
"""So many shapes before a mistake are shown."""
# Settings that open further outputs.
_OPENING = ("need_weights", "return_indices")


def build(
    graph: Graph,
    layers: Sequence[Layer],
    fields: Mapping[str, tuple[Field, Tensor]],
    problems: Problems,
    place: Place = RUN,
) -> Network | None:
    """The network of a graph whose nodes were read, or None where a layer does not fit and `problems` says why.

    `fields` are the data's by the model's names for its inputs, each with a small batch of samples. Raises `Unfit`
    where the place is none for this network.
    """
    if not graph.inputs:  # the model names none: its only one has the field's name
        fields = dict(zip(("",), fields.values(), strict=False))
    before = len(problems)
    with sampling(), place.making():
        builder = Builder(graph, fields, problems, place)
        for layer in layers:
            builder.add(layer)
        problems.enter({})
        return builder.network() if len(problems) == before else None


class Builder:
    """Grows one network, layer by layer, in the order in which they run."""

    def __init__(
        self, graph: Graph, fields: Mapping[str, tuple[Field, Tensor]], problems: Problems, place: Place
    ) -> None:
        self.graph, self.problems = graph, problems
        self.fields = {name: each for name, (each, _) in fields.items()}
        self.values: dict[Ref, Value] = {}
        self.samples: dict[Ref, Tensor] = {}
        for name, (each, sample) in fields.items():
            lengths = Lengths(each.name) if each.has_lengths else None
            self.values[Ref(MODEL, name)] = Value(each.shape, each.layout, lengths, each.vocab_size)
            self.samples[Ref(MODEL, name)] = sample.to(place.device, copy=True)
        self.data = [*self.samples.values()]  # kept, so that no other output comes to lie there
        self.rows: dict[str, BuiltLayer] = {}
        self.layers: dict[tuple[str, ...], tuple[Layer, nn.Module, dict[str, Any]]] = {}
        self.nodes: dict[str, Node] = {}
        self.steps: list[Step] = []
        self.aliases: dict[Ref, Ref] = {}
        self.wanted = _wanted(graph)
        self.last_read = _last_read(graph)
        self.places = {node.id: at for at, node in enumerate(graph.nodes)}
        self.limit, self.tracer, self.any_length = place.weights(), Tracer(), True

    # ---- one layer -------------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Builds a layer and passes the sample; what comes from a layer that failed is passed by."""
        self.problems.enter(layer.node.origins)
        node = layer.node
        if not all(self._is_there(ref, node) for ref in node.inputs.values()):
            return
        if node.part.type == JOIN:
            self._join(layer)
        else:
            self.add_one(layer)
        for ref in node.inputs.values():  # what nothing reads any more need not be kept
            if self.last_read.get(ref, -1) <= self.places[node.id]:
                self.samples.pop(ref, None)

    def _join(self, layer: Layer) -> None:
        """Adds a residual's body and its shortcut."""
        node = layer.node
        body, shortcut = node.inputs[0], node.inputs[1]
        layers = plan_join(layer, self.values[body], self.values[shortcut], self._last_norm(body))
        if isinstance(layers, Finding):
            self.problems.add_finding(node.where, layers, note=self.chain(node))
            return
        if not layers:  # the body flows on alone
            self.again_as(body, Ref(node.id))
            self.nodes[node.id] = node
        for each in layers:
            if all(ref in self.values for ref in each.node.inputs.values()):
                self.add_one(each)

    def _last_norm(self, ref: Ref) -> tuple[str, Mapping[str, Any]] | None:
        """The normalisation that a residual's body ends in, and the settings that it was written with."""
        ref = self.aliases.get(ref, ref)
        while ref.node in self.rows and self.rows[ref.node].type in ("StochasticDepth", "Dropout"):
            ref = next(iter(self.nodes[ref.node].inputs.values()))
            ref = self.aliases.get(ref, ref)
        if ref.node not in self.rows or not is_norm(self.rows[ref.node].type):
            return None
        layer, _, _ = self.layers[self.nodes[ref.node].path]
        inferred = [name for name, each in layer.schema.settings.items() if each.is_inferred]
        return layer.type, {name: each for name, each in layer.settings.items() if name not in inferred}

    def _is_there(self, ref: Ref, node: Node | None) -> bool:
        """Whether a value is known; a further output that its layer does not have is a mistake."""
        if ref in self.values or ref.node not in self.rows:
            return ref in self.values
        row = self.rows[ref.node]
        names = [*getattr(row.module, "output_names", ())[1:]]
        names = names or [each.output for each in self.values if each.node == ref.node and each.output]
        fix = suggest(ref.output, names) if names else "it has one output: write its name alone"
        path = self._where_taken(ref, node)
        self.problems.add(Code.UNKNOWN_OUTPUT, path, f"{row.type} has no output '{ref.output}'", fix, at_value=True)
        return False

    def _where_taken(self, ref: Ref, node: Node | None) -> KeyPath:
        """Where a value is named: by an entry, or among the network's outputs."""
        if node is None:
            name = next(name for name, each in self.graph.outputs.items() if each == ref)
            return self.graph.output_paths.get(name, ("model", "outputs"))
        if "from" not in node.part.keys:
            return node.where
        path, raw = node.part.where("from"), node.part.keys["from"]
        key = next(key for key, each in node.inputs.items() if each == ref)
        return (*path, key) if isinstance(raw, list | dict) else path

    def add_one(self, layer: Layer) -> None:
        node, problems = layer.node, self.problems
        layer, settings = self._settings(layer)
        if settings is not None and node.is_shared and not self._fits_again(layer, settings):
            return
        by_argument = {key: self.values[ref] for key, ref in node.inputs.items()}
        values = in_order(layer, by_argument, problems) if settings is not None else None
        if settings is None or values is None or self._is_refused(layer, values, settings):
            return
        if not are_enough(layer, by_argument, problems):
            return
        found = self._module(layer, settings, values)
        if found is None:
            return
        module, settings = found
        if self._misses_lengths(layer, module, values):
            return
        given = self._given(layer, module, settings, values)
        if given is not None:
            self._note(layer, module, settings, values, given)

    def _settings(self, layer: Layer) -> tuple[Layer, dict[str, Any] | None]:
        """The layer and its settings; of a module that is used again, those that it was built with."""
        if layer.node.is_shared and layer.node.path in self.layers:
            first, _, settings = self.layers[layer.node.path]
            return replace(layer, schema=first.schema), settings
        return layer, computed(layer, lambda ref: self.values[ref].channels, self.problems)

    def _fits_again(self, layer: Layer, settings: Mapping[str, Any]) -> bool:
        """Whether a module that is used again takes inputs like these."""
        values = [self.values[ref] for ref in layer.node.inputs.values()]
        for name, setting in layer.schema.settings.items():
            known = infer(name, values) if setting.is_inferred and values else None
            if known is None or settings.get(name) is None or agrees(name, settings[name], known, values[0]):
                continue
            found = f"'{layer.node.name}' has {name} {settings[name]}, and {values[0]} comes in"
            self.problems.add(
                Code.SHAPE_MISMATCH, layer.node.entry, found, "write the layer again, for weights of its own"
            )
            return False
        return True

    def _is_refused(self, layer: Layer, values: Sequence[Value], settings: Mapping[str, Any]) -> bool:
        refused = None
        if values:
            with bounded_growth():  # a formula is tried
                refused = refusal(layer.schema, values, settings)
        if refused is not None:
            self.problems.add_finding(layer.node.where, refused, shown=layer.shown, note=self.chain(layer.node))
            return True
        return settings.get("inplace") is True and self._would_overwrite(layer)

    def _would_overwrite(self, layer: Layer) -> bool:
        """Whether working in place would change the data, or what another layer takes later."""
        node = layer.node
        memory = memory_of(self.samples[next(iter(node.inputs.values()))])
        path = node.part.where("inplace")
        if memory in [memory_of(each) for each in self.data]:
            found = "inplace would overwrite the data"
            self.problems.add(Code.INPLACE, path, found, "leave it out", at_value=True, shown=layer.shown)
            return True
        place = self.places.get(node.id, 0)
        for ref, sample in self.samples.items():
            if memory_of(sample) == memory and self.last_read.get(ref, -1) > place:
                name = self.rows[ref.node].name if ref.node in self.rows else ref.output
                found = f"inplace would overwrite the output of '{name}', which is taken below"
                self.problems.add(Code.INPLACE, path, found, "leave it out", at_value=True, shown=layer.shown)
                return True
        return False

    def _module(
        self, layer: Layer, settings: dict[str, Any], values: Sequence[Value]
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        """The module and all its settings; None where it can't be made of these inputs."""
        node, problems = layer.node, self.problems
        if node.is_shared and node.path in self.layers:
            _, module, settings = self.layers[node.path]
            return module, settings
        words = self.wanted.get(node.name, ("",))
        opening = [key for key in _OPENING if "1" in words and key in layer.schema.settings]
        settings = {**dict.fromkeys(opening, True), **settings}
        whole = completed(layer, settings, values, problems) if values else settings
        if whole is None:
            return None
        module = attempt(lambda: made(layer, whole, self.limit), layer, values, problems, lambda: self.chain(node))
        if (
            module is None
            or not may_parametrize(layer, module, problems)
            or not tie(layer, module, self.layers, self.problems)
        ):
            return None
        _choose_outputs(module, words)
        self.layers[node.path] = (layer, module, whole)
        return module, whole

    def _misses_lengths(self, layer: Layer, module: nn.Module, values: Sequence[Value]) -> bool:
        """Whether the layer would take padding for steps, as a layer before it has mixed the two."""
        wanted: Mapping[str, int] = getattr(module, "lengths_of", {})
        lost = next((values[at].lost for at in wanted.values() if at < len(values) and values[at].lost), "")
        if not lost or not getattr(module, "needs_lengths", True):
            return False
        row = self.rows[lost]
        found = f"{layer.type} needs each sample's length, and behind {row.type} ('{row.name}') none is known"
        fix = f"{row.type} mixes steps and padding: put {layer.type} before it, or take a layer that keeps steps apart"
        self.problems.add(
            Code.LENGTHS_LOST, layer.node.where, found, fix, shown=layer.shown, note=self.chain(layer.node)
        )
        return True

    # ---- what it gives ---------------------------------------------------------------------------------------------

    def _given(
        self, layer: Layer, module: nn.Module, settings: Mapping[str, Any], values: Sequence[Value]
    ) -> dict[str, Tensor] | None:
        """What the layer gives for the sample, by word: a row for each row, in the layout that was asked for."""
        inputs = {key: self.samples[ref] for key, ref in layer.node.inputs.items()}
        found = attempt(
            lambda: self.tracer.given(layer, module, settings, values, inputs),
            layer,
            values,
            self.problems,
            lambda: self.chain(layer.node),
        )
        if found is None:
            return None
        tensors = found if isinstance(found, tuple) else (found,)
        if not all(isinstance(each, Tensor) for each in tensors):
            fix = "a layer's forward gives a tensor, or a tuple of tensors"
            self.problems.add(
                Code.WRONG_RESULT, layer.node.where, f"{layer.type} gives {type(tensors[0]).__name__}", fix
            )
            return None
        has_batch = layer.type != PARAMETER and any(each.has_batch for each in values)
        given = dict(zip(_words(module, len(tensors)), tensors, strict=False))
        if has_batch and not self._has_rows(layer, module, next(iter(given.values()))):
            return None
        return given if self._can_have_layout(layer, next(iter(given.values())), has_batch) else None

    def _has_rows(self, layer: Layer, module: nn.Module, given: Tensor) -> bool:
        with_batch = [ref for ref in layer.node.inputs.values() if self.values[ref].has_batch]
        rows = len(self.samples[with_batch[0]])
        if getattr(module, "folds_batch", False) or (given.dim() > 0 and len(given) == rows):
            return True
        found = f"{layer.type} makes {tuple(given.shape)} of a batch of {rows}"
        fix = "dimension 0 is the batch: a layer gives a row for each of its rows"
        self.problems.add(Code.WRONG_RESULT, layer.node.where, found, fix, shown=layer.shown)
        return False

    def _can_have_layout(self, layer: Layer, given: Tensor, has_batch: bool) -> bool:
        layout = layer.node.layout
        if layout is None:
            return True
        dims, wanted = _SHAPES[layout]
        shape = tuple(given.shape[1:]) if has_batch else tuple(given.shape)
        if len(shape) >= dims and (layout != "tokens" or not given.is_floating_point()):
            return True
        found = f"layout is {layout}, which is {wanted}, and {layer.type} gives {format_shape(shape)}"
        path = layer.node.part.where("layout")
        self.problems.add(
            Code.WRONG_LAYOUT, path, found, "leave it out, or write another", at_value=True, shown=layer.shown
        )
        return False

    def _note(
        self,
        layer: Layer,
        module: nn.Module,
        settings: Mapping[str, Any],
        values: Sequence[Value],
        given: Mapping[str, Tensor],
    ) -> None:
        """Keeps what the layer gave, for those that take it."""
        node = layer.node
        first = next(iter(given))
        for word, tensor in given.items():
            ref = Ref(node.id, "" if word == first else word)
            self.values[ref] = self._value(layer, module, settings, values, tensor, ref.output)
            self.samples[ref] = tensor
        lengths = self._lengths_of(layer, module, values)
        words = tuple(given)
        taken, is_several = ("", *words[1:]), len(words) > 1
        edge = border(main(values), self.values[Ref(node.id)]) if values else None
        self.steps.append(Step(node.id, node.path, module, layer.type, node.inputs, taken, lengths, is_several, edge))
        if words[0]:  # a layer with named outputs: the first one flows on, and numbers will do, too
            names: tuple[str, ...] = module.output_names  # type: ignore[assignment]  # its class says so
            self.again_as(Ref(node.id), Ref(node.id, words[0]), Ref(node.id, str(names.index(words[0]))))
            for word in words[1:]:
                self.again_as(Ref(node.id, word), Ref(node.id, str(names.index(word))))
        self.nodes[node.id] = node
        output = self.values[Ref(node.id)]
        defaults = {name: each.default for name, each in layer.schema.settings.items()}
        written = {name: settings[name] for name in layer.settings if settings[name] != defaults[name]}
        takes = tuple(self._taken(ref) for ref in node.inputs.values())
        again = node.is_shared
        self.rows[node.id] = BuiltLayer(node.id, layer.type, module, output, node.entry, again, written, takes)

    def _taken(self, ref: Ref) -> Taken:
        ref = self._own_name(ref)
        return Taken(ref.node, ref.output, self.values[ref])

    def _own_name(self, ref: Ref) -> Ref:
        """The first of a value's names."""
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref

    def _value(
        self,
        layer: Layer,
        module: nn.Module,
        settings: Mapping[str, Any],
        values: Sequence[Value],
        given: Tensor,
        word: str,
    ) -> Value:
        if layer.type == PARAMETER:
            shape = tuple(given.shape)
            return Value(shape, layer.node.layout or guess_layout(shape), has_batch=False)
        has_batch = any(each.has_batch for each in values)
        shape = tuple(given.shape[1:]) if has_batch else tuple(given.shape)
        told = layout_after(layer.schema, values, settings, shape, word)
        layout = layer.node.layout or told
        lengths = lengths_after(layer.schema, module, values, settings, shape, word)
        if any(each.lengths for each in values):
            any_length = takes_any_length(layer.schema, module, values, settings, shape, word)
            self.any_length &= any_length and layout == told
        is_of_vocabulary = layout == "tokens" and rule_for(layer.schema).keeps_vocabulary(settings)
        vocab = main(values).vocab_size if is_of_vocabulary else None
        value = Value(shape, layout, lengths if layout == told else None, vocab, has_batch)
        if layout == told and not word:
            value = replace(value, own_roles=roles_after(layer.schema, values, settings, shape, layout))
        if value.time_dim is None or value.lengths is not None:
            return value if value.time_dim is not None else replace(value, lengths=None)
        has_dropped = any(each.lengths for each in values)
        return replace(value, lost=layer.node.id if has_dropped else main(values).lost)

    def _lengths_of(self, layer: Layer, module: nn.Module, values: Sequence[Value]) -> dict[str, Lengths]:
        """The lengths that the layer asks for, by the argument's name."""
        wanted: Mapping[str, int] = getattr(module, "lengths_of", {})
        found = {name: values[at].lengths for name, at in wanted.items() if at < len(values)}
        return {name: each for name, each in found.items() if each is not None}

    def again_as(self, ref: Ref, *others: Ref) -> None:
        """The same value under other names."""
        for each in others:
            self.values[each], self.samples[each] = self.values[ref], self.samples[ref]
            self.aliases[each] = ref

    # ---- the end ---------------------------------------------------------------------------------------------------

    def network(self) -> Network | None:
        """The network, or None where an output is none."""
        outputs = {name: ref for name, ref in self.graph.outputs.items() if self._is_there(ref, None)}
        if len(outputs) < len(self.graph.outputs) or not outputs or not self._all_have_batch(outputs):
            return None
        module, inputs = assemble(self.steps, self.fields, outputs, self.aliases)
        ends = {name: self._output(ref) for name, ref in outputs.items()}
        fields = {name or each.name: self.values[Ref(MODEL, name)] for name, each in self.fields.items()}
        return Network(
            module.train(), inputs, fields, tuple(self.rows.values()), ends, self.any_length, self._fewest_steps()
        )

    def _fewest_steps(self) -> dict[str, int]:
        """By the field that has lengths."""
        fewest: dict[str, int] = {}
        for each in filter(None, (value.lengths for value in self.values.values())):
            fewest[each.field] = max(fewest.get(each.field, 1), fewest_steps(each.windows))
        return fewest

    def _all_have_batch(self, outputs: Mapping[str, Ref]) -> bool:
        for name, ref in outputs.items():
            if not self.values[ref].has_batch or ref.node == MODEL:
                what = "a model's input" if ref.node == MODEL else "a Parameter"
                fix = "let a layer that computes with it be the output"
                path = self.graph.output_paths.get(name, ("model", "outputs"))
                self.problems.add(
                    Code.WRONG_RESULT, path, f"the output '{name}' is {what} as it is", fix, at_value=True
                )
                return False
        return True

    def _output(self, ref: Ref) -> Output:
        value = self.values[ref]
        ref = self._own_name(ref)
        layer = end = self.rows[ref.node]
        while end.type in PASSING and self.nodes[ref.node].inputs:
            ref = self._own_name(next(iter(self.nodes[ref.node].inputs.values())))
            if ref.node == MODEL:
                break
            end = self.rows[ref.node]
        return Output(value, layer, end)

    def chain(self, node: Node) -> str:
        """The shapes that lead to a layer: 'image (3, 32, 32) -> 0 Conv2d (16, 30, 30) -> here'."""
        shapes: list[str] = []
        ref = next(iter(node.inputs.values()), None)
        while ref is not None:
            name = self._called(ref)
            shapes.append(f"{name} {format_shape(self.values[ref].shape)}".strip())
            inner = self.nodes.get(self.aliases.get(ref, ref).node)
            ref = None if inner is None else next(iter(inner.inputs.values()), None)
        others = [
            f"; {self._called(each)} {format_shape(self.values[each].shape)}" for each in list(node.inputs.values())[1:]
        ]
        if len(shapes) < 2 and not others:
            return ""
        shown = shapes if len(shapes) <= _SHOWN else [*shapes[: _SHOWN - 1], "...", shapes[-1]]
        return "shapes: " + " -> ".join(reversed(shown)) + "".join(others) + f" -> {node.id} {node.part.type}"

    def _called(self, ref: Ref) -> str:
        if ref.node == MODEL:
            return ref.output or next(iter(self.fields.values())).name
        row = self.rows.get(self.aliases.get(ref, ref).node)
        if row is None:
            return ref.node
        holder, _, inner = row.name.rpartition(".")
        return f"{holder} TimeDistributed" if inner in ("<fold>", "<unfold>") else f"{row.name} {row.type}"


# The fewest dimensions, batch left out, that a layout has, and what they are.
_SHAPES: Mapping[str, tuple[int, str]] = {
    "features": (1, "(C)"),
    "tokens": (1, "(T) of whole numbers"),
    "sequence": (2, "(T, C)"),
    "channels-first": (2, "(C, T or S...)"),
    "channels-last": (2, "(S..., C)"),
}


def _wanted(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each module the outputs that something takes, wherever it is used."""
    names = {node.id: node.name for node in graph.nodes}
    wanted: dict[str, dict[str, None]] = {}
    for node, outputs in graph.wanted().items():
        wanted.setdefault(names.get(node, node), {}).update(dict.fromkeys(outputs))
    return {name: tuple(outputs) for name, outputs in wanted.items()}


def _last_read(graph: Graph) -> dict[Ref, int]:
    """The place of the last node that takes each value; the network's outputs come after all."""
    last = {ref: at for at, node in enumerate(graph.nodes) for ref in node.inputs.values()}
    return last | {ref: len(graph.nodes) for ref in graph.outputs.values()}


def _choose_outputs(module: nn.Module, words: Sequence[str]) -> None:
    """Tells a layer with named outputs which of them are taken; the first one always is."""
    names: tuple[str, ...] = getattr(module, "output_names", ())
    if not names:
        return
    taken = [names[int(word)] if word.isdigit() and int(word) < len(names) else word for word in words if word]
    module.wanted = (names[0], *(name for name in names[1:] if name in taken))  # type: ignore[assignment]


def _words(module: nn.Module, count: int) -> Iterator[str]:
    """The words for what a module gives: '' for the first."""
    names: tuple[str, ...] = getattr(module, "wanted", ())
    yield from names if names else ("", *(str(at) for at in range(1, count)))
