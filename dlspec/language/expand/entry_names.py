"""The names of entries' outputs: as written, as `name` gives them, and those that can't be seen from outside."""

from __future__ import annotations

from dlspec.errors import Code
from dlspec.language.expand.entry_use import EntryUse
from dlspec.language.expand.output_names import EntryOutput
from dlspec.language.expand.repeat_rows import require_known_early
from dlspec.language.expressions.evaluator import UnknownValue
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import Entry, check_name, is_valid_name
from dlspec.language.problems import Problems


def read_name(use: EntryUse, problems: Problems) -> str:
    """The name that an entry's `name` gives, '' where there is none or it is wrong."""
    entry = use.entry
    if "name" not in entry.part.keys:
        return ""
    path, raw = entry.part.path_of("name"), entry.part.keys["name"]
    name = require_known_early(use.scope.fill_text(raw, path), path, "name", problems)
    if isinstance(name, UnknownValue) or (
        name == raw and not is_valid_name(name)
    ):  # the latter was told when it was read
        return ""
    if not entry.is_named_by_key:
        return str(name) if check_name(name, path, problems, at_value=True) else ""
    found = f"'{entry.key}' and '{name}' both name it"
    problems.add(Code.CONFLICT, path, found, "in a mapping the key is the name: remove one", at_value=True)
    return ""


def name_output(use: EntryUse, output: EntryOutput, name: str, problems: Problems) -> EntryOutput:
    """Give an output its name, which nothing that can be seen has yet."""
    entry, level = use.entry, use.level
    name = name or (entry.key if entry.is_named_by_key else "")
    if not name:
        return output
    if level.find(name) is not None:
        is_written = "name" in entry.part.keys
        path = entry.part.path_of("name") if is_written else entry.path
        fix = "names are unique in a block" if name in level.names else "something around it has it: take another"
        problems.add(Code.NAME_TAKEN, path, f"the name '{name}' is taken", fix, at_value=is_written)
    level.names[name] = output
    return output


def get_written_name(entry: Entry) -> str:
    """An entry's name as written."""
    name = entry.part.keys.get("name")
    return name if isinstance(name, str) else entry.key if entry.is_named_by_key else ""


def check_parameter_named(entry: Entry, problems: Problems) -> None:
    """A `Parameter` without a name is a mistake."""
    if not get_written_name(entry):
        fix = "give it one: Parameter: {shape: [16], name: scale}"
        problems.add(Code.MISSING_NAME, entry.path, "a Parameter without a name can't be reached", fix)


def find_model_names(model: Block) -> set[str]:
    """All names of the model's own level."""
    return {name for each in model.entries if (name := get_written_name(each))} | {each.name for each in model.inputs}


def find_hidden_names(model: Block) -> dict[str, str]:
    """Names inside containers and blocks, and what holds them: for those who look for them outside."""
    hidden: dict[str, str] = {}
    for block in (model, *model.all_blocks()):
        for entry in block.all_entries():
            inside = [each for body in entry.bodies.values() for each in body]
            hidden |= {name: f"a {entry.type}" for each in inside if (name := get_written_name(each))}
        if block.name:
            hidden |= {name: f"block '{block.name}'" for each in block.entries if (name := get_written_name(each))}
    return hidden
