"""The names of entries' outputs: written or computed, and those that are hidden inside containers and blocks."""

from __future__ import annotations

from dlspec.errors import Code
from dlspec.language.expand.entry_inputs import FORMULA
from dlspec.language.expand.entry_use import EntryUse
from dlspec.language.expand.output_names import EntryOutput
from dlspec.language.expand.repeat_rows import require_not_deferred
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import Entry, check_name, is_valid_name
from dlspec.language.problems import Problems


def read_name(use: EntryUse, problems: Problems) -> str:
    """Evaluate an entry's `name`; return '' if there is none or it is invalid."""
    entry = use.entry
    if "name" not in entry.part.keys:
        return ""
    path, raw = entry.part.path_of("name"), entry.part.keys["name"]
    name = require_not_deferred(use.scope.insert_params(raw, path), path, "name", problems)
    if isinstance(name, UnknownValue) or (
        name == raw and not is_valid_name(name)
    ):  # invalid names without expressions were reported when the entry was read
        return ""
    if not entry.is_named_by_key:
        return str(name) if check_name(name, path, problems, at_value=True) else ""
    found = f"the entry has two names, '{entry.key}' and '{name}'"
    problems.add(Code.CONFLICT, path, found, "in a mapping the key is the name: remove one", at_value=True)
    return ""


def name_output(use: EntryUse, output: EntryOutput, name: str, problems: Problems) -> EntryOutput:
    """Add an output to the visible names; report a name that is used already.

    Args:
        use: the entry with its scope, blocks and names.
        output: the entry's output.
        name: the evaluated `name`, '' without one. The default is the entry's key in a mapping.
        problems: receives a problem if the name is used already.

    Returns:
        The output.
    """
    entry, level = use.entry, use.level
    name = name or (entry.key if entry.is_named_by_key else "")
    if not name:
        return output
    if level.find(name) is not None:
        is_written = "name" in entry.part.keys
        path = entry.part.path_of("name") if is_written else entry.path
        fix = (
            "names must be unique within a model or block"
            if name in level.names
            else "an entry outside has this name: use another one"
        )
        problems.add(Code.NAME_TAKEN, path, f"the name '{name}' is already used", fix, at_value=is_written)
    level.names[name] = output
    return output


def get_written_name(entry: Entry) -> str:
    """Return an entry's name as written, '' without one."""
    name = entry.part.keys.get("name")
    return name if isinstance(name, str) else entry.key if entry.is_named_by_key else ""


def check_parameter_named(entry: Entry, problems: Problems) -> None:
    """Report a `Parameter`, or a formula of constants, without a name."""
    if not get_written_name(entry) and entry.type == FORMULA:
        found = "the formula uses no output, and needs a name, since other entries refer to it by name"
        fix = "use one in it, as _ for the previous one, or add a name: Formula: {formula: arange(8), name: steps}"
        problems.add(Code.MISSING_NAME, entry.path, found, fix)
    elif not get_written_name(entry):
        fix = "add a name: Parameter: {shape: [16], name: scale}"
        problems.add(
            Code.MISSING_NAME, entry.path, "a Parameter needs a name, since other entries refer to it by name", fix
        )


def find_model_names(model: Block) -> set[str]:
    """Return all names of the model's inputs and of entries that are not nested."""
    return {name for each in model.entries if (name := get_written_name(each))} | {each.name for each in model.inputs}


def find_hidden_names(model: Block) -> dict[str, str]:
    """Map each name inside a container or block to a description of it, for messages about names that are not found."""
    hidden: dict[str, str] = {}
    for block in (model, *model.all_blocks()):
        for entry in block.all_entries():
            inside = [each for body in entry.bodies.values() for each in body]
            hidden |= {name: f"a {entry.type}" for each in inside if (name := get_written_name(each))}
        if block.name:
            hidden |= {name: f"block '{block.name}'" for each in block.entries if (name := get_written_name(each))}
    return hidden
