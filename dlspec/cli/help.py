"""The text of `--help`: commands, groups and their choices, made without slow imports."""

from __future__ import annotations

from textwrap import TextWrapper

from dlspec.config.conf_files import GROUPS, PART_GROUPS, list_group_files
from dlspec.formatting import COMMANDS

_LIBRARY_CHOICES = {
    "loss": "any loss of torch.nn",
    "optimizer": "any optimizer of torch.optim",
    "scheduler": "any scheduler of torch.optim.lr_scheduler",
    "metrics": "any metric of torchmetrics",
}


def format_help() -> str:
    """Make the text that `python -m dlspec --help` prints."""
    width = max(len(name) for name in (*COMMANDS, *GROUPS))
    commands = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    lines = TextWrapper(116, subsequent_indent=" " * (width + 4), break_on_hyphens=False)
    groups = [lines.fill(f"  {group:<{width}}  {_format_choices(group)}") for group in GROUPS]
    return "\n".join(
        [
            "dlspec: a page of YAML in, a trained PyTorch network out.",
            "",
            "python -m dlspec [COMMAND] [GROUP=CHOICE ...] [KEY=VALUE ...]",
            "python -m dlspec -m model=cnn,mlp optimizer.lr=1e-2,1e-3       a sweep",
            "",
            "commands",
            *commands,
            "",
            "groups and their choices (a file conf/GROUP/NAME.yaml in your working directory adds one)",
            *groups,
            "",
            "Any setting can be changed: trainer.epochs=3 optimizer.lr=0.01 model.params.activation=Sigmoid seed=1",
            "Hydra's own flags: --cfg job prints the config, --info how it was composed, --hydra-help lists the rest.",
        ]
    )


def _format_choices(group: str) -> str:
    names = list_group_files(group)
    also = [_LIBRARY_CHOICES[group]] if group in PART_GROUPS else []
    return "; ".join([*([", ".join(names)] if names else []), *also])
