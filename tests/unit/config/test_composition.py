"""Overrides, the user's own conf/, and where errors point."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import QUICK

TWO_LAYERS = "layers: [Flatten, {Linear: '${data.num_outputs}'}]\n"
GLOBAL = "# @package _global_\n"

LEGAL = [
    "optimizer=AdamW optimizer.weight_decay=0.1",
    "optimizer.amsgrad=true",
    "+trainer.epochs=3",
    "trainer={epochs: 3}",
    "optimizer={type: SGD, lr: 0.1}",
    "optimizer={lr: 0.1}",
    "loss={HuberLoss: {delta: 2.0}}",
    "loss=HuberLoss loss.delta=2.0",
    "scheduler=StepLR scheduler.step_size=3",
    "scheduler=null",
    "loss=null metrics=null",
    "metrics=[Accuracy,F1Score] metrics.F1Score.average=macro",
    "metrics=[Accuracy,{F1Score: {average: macro}}]",
    "metrics={F1Score: {average: macro}}",
    "~trainer.patience",
    "model.layers.3={Linear: 10}",
    "model={layers: [Flatten, {Linear: 10}]}",
    "model={layers: [Flatten, {Linear: {out_features: 10, bias: false}}]}",
    "model.params.kernel_size=${model.params.channels}",
    'model.params.activation="GELU"',
    "model.params.activation={LeakyReLU: {negative_slope: 0.1}}",
    "trainer.epochs=1e2",
    "optimizer=[SGD] optimizer.lr=0.1",
    "trainer=null trainer.max_steps=1",
    "optimizer={type:SGD,momentum:0.9} optimizer=AdamW",
]

# An override that would discard an earlier one, or choices of which only the last would count: what is said.
DISCARDING = {
    "trainer.max_steps=1 trainer=null": "trainer   discards trainer.max_steps=1, which is written before it   "
    "remove one of them",
    "optimizer.lr=0.5 optimizer={type:SGD}": "optimizer   discards optimizer.lr=0.5, which is written before it   "
    "write optimizer.lr=0.5 after it, or remove it",
    "scheduler=StepLR scheduler.step_size=3 scheduler=null": "scheduler   discards scheduler.step_size=3",
    "model.layers.0.Conv2d.bias=false model.layers.0={Conv2d:5}": "model.layers.0   discards model.layers.0.Conv2d.b",
    "trainer.patience=3 ~trainer.patience trainer.patience=3 trainer.epochs=2 trainer=null": "trainer   discards",
    "optimizer=[Adam,SGD]": "optimizer   optimizer takes one choice, got 2   write one of them, or "
    "-m optimizer=Adam,SGD to sweep over them",
    "model=[mlp,cnn]": "model   model takes one choice, got 2",
    "data=[digits,diabetes]": "data   data takes one choice, got 2",
    "loss=[MSELoss,L1Loss]": "loss   loss takes one choice, got 2",
    "scheduler=[StepLR,ExponentialLR]": "scheduler   scheduler takes one choice, got 2",
}

# The command's words, and what is said: the lines without excerpt and count.
WRONG = {
    "model=cn": "command line   model   unknown model 'cn'   did you mean 'cnn'?",
    "optimizer=Adm": "command line   optimizer.type   unknown optimizer 'Adm'   did you mean 'Adam'?",
    "trainer.epoch=3": "command line   trainer.epoch   unknown key   did you mean 'epochs'?",
    "trainr.epochs=3": "command line   trainr   no such key   did you mean 'trainer'?",
    "~trainer.patienc": "command line   trainer.patienc   no key 'patienc' to delete   did you mean 'patience'?",
    "optimizer.lr=1,2": "command line   optimizer.lr   multiple values   "
    "add -m to sweep over them, or write a list: optimizer.lr=[...]",
    "model=mlp,cnn": "command line   model   multiple values   add -m to sweep over them",
    "model.layers.9=ReLU": "command line   model.layers.9   no entry '9' in a list of 4   write an index from 0 to 3",
    "~model.layers.9": "command line   model.layers.9   no entry '9' in a list of 4   write an index from 0 to 3",
    "model.layers[0]=ReLU": "command line   not a valid override   write the index after a dot: model.layers.0",
    "model.layers.-1=ReLU": "command line   not a valid override   write an index of 0 or more",
    "model.layers=[Linear(3)]": "command line   not a valid override   "
    "write a part with its settings in braces: {Linear: 10}",
    'data.target={y: {class: {classes: {"<=50K": low, ">50K": high}}}}': (
        "command line   not a valid override   keys in braces have no quotes here: leave them out, or write a key with "
        "such characters in conf/data/NAME.yaml"
    ),
    "=3": "command line   not a valid override   write KEY=VALUE",
    "trainer.epochs": "command line   not a valid override   write KEY=VALUE",
    "optimizer.betas.0=0.8": "command line   optimizer.betas.0   'betas' is not written as a list   "
    "write the whole list: optimizer.betas=[...]",
    "model.layers.3.Linear.bias=false": "command line   model.layers.3.Linear.bias   "
    "'Linear: ${data.num_outputs}' is a short form, which has no settings to override   "
    "write it in full: 'model.layers.3={Linear: {out_features: ${data.num_outputs}, bias: false}}'",
    "model.layers.2.start_dim=1": "command line   model.layers.2.start_dim   "
    "'Flatten' is a short form, which has no settings to override   "
    "write it in full: 'model.layers.2={Flatten: {start_dim: 1}}'",
    "model.layers.1.inplace=true": "command line   model.layers.1.inplace   "
    "'$activation' is a short form, which has no settings to override   "
    "write it in full: 'model.layers.1={type: $activation, inplace: true}'",
    "seed.x=3": "command line   seed.x   seed is 0 and has no keys   write seed=VALUE",
    "model.params.kernel_size=${oc.env:HOME}": "command line   model.params.kernel_size   "
    "'${oc.env:HOME}' is not allowed: oc.select is the only resolver   refer to a key of the config, or use oc.select",
    "run=nowhere": "command line   run   no run in 'nowhere'   name a run's folder, which contains spec.yaml",
    "--config-dir nowhere": "command line   no such folder",
}


@pytest.mark.parametrize("line", LEGAL)
def test_legal_overrides(dlspec, line: str) -> None:
    words = line.split() if ": " not in line else [line]
    said = dlspec("validate", *words)
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("line", WRONG)
def test_wrong_overrides(dlspec, work: Path, line: str) -> None:
    said = dlspec("train", *(line.split() if line.startswith("--") else [line]))
    first, text, caret, end = said.err.splitlines()
    assert (said.code, said.out, first) == (2, "", WRONG[line])
    assert text.strip() == line
    assert caret.strip() == "^" * len(caret.strip())
    assert end == "1 problem; nothing was run."
    assert not any(work.iterdir())


@pytest.mark.parametrize("line", DISCARDING)
def test_no_override_is_lost_without_a_word(dlspec, line: str) -> None:
    said = dlspec("validate", *line.split())
    assert (said.code, said.err.startswith(f"command line   {DISCARDING[line]}")) == (2, True), said.err


def test_an_override_after_a_value_that_is_merged_is_kept(dlspec) -> None:
    said = dlspec("--cfg", "job", "trainer.patience=7", "trainer={epochs: 3}", "optimizer.lr=0.5", "optimizer=SGD")
    assert "patience: 7" in said.out and "lr: 0.5" in said.out


def test_a_later_choice_replaces_an_earlier_value(dlspec) -> None:
    said = dlspec("--cfg", "job", "optimizer={type: SGD}", "optimizer=AdamW", "loss=null", "loss=HuberLoss")
    assert "optimizer:\n  type: AdamW" in said.out and "loss:\n  type: HuberLoss" in said.out
    said = dlspec("--cfg", "job", "optimizer={lr: 0.5}", "optimizer=AdamW", "trainer=null", "trainer=default")
    assert "optimizer:\n  type: AdamW\n  lr: 0.5" in said.out and "epochs: 20" in said.out


def test_a_job_of_a_sweep_takes_one_choice_too(dlspec) -> None:
    said = dlspec("-m", "validate", "optimizer=[Adam,SGD],[AdamW]")
    assert said.code == 2


def test_every_mistake_at_once(dlspec) -> None:
    said = dlspec("model=cn", "optimizer=Adm", "trainer.epoch=3", "~trainer.nothing")
    assert said.err.count("command line") == 4
    assert said.err.endswith("4 problems; nothing was run.\n")


def test_an_override_over_a_list_moves_the_place_of_its_entries(dlspec) -> None:
    said = dlspec("validate", "model.layers=[Flatten,{Linear: x}]", "~model.params")
    assert said.err.startswith("command line   model.layers.1.Linear")


def test_the_users_own_files(dlspec, write) -> None:
    write("conf/model/mine.yaml", TWO_LAYERS)
    write("conf/model/cnn.yaml", "defaults: [/base/model/cnn@_here_, _self_]\nparams: {channels: 5}\n")
    write("conf/config.yaml", "defaults: [dlspec, _self_]\nhydra: {run: {dir: here}}\n")
    write("elsewhere/model/far.yaml", TWO_LAYERS)
    assert "650 parameters" in dlspec("summary", "model=mine").out
    assert "(5, 6, 6) channels-first" in dlspec("summary").out
    assert dlspec("summary", "model=far").code == 2
    assert dlspec("summary", "--config-dir", "elsewhere", "model=far").code == 0
    assert dlspec("model=mine", *QUICK).out.endswith("here\n")


def test_an_experiment_wins_over_the_defaults(dlspec, write) -> None:
    text = "loss: CrossEntropyLoss\nseed: 3\noptimizer: {type: SGD, lr: 0.25}\n"
    write("conf/experiment/mine.yaml", GLOBAL + text)
    said = dlspec("--cfg", "job", "experiment=mine")
    assert "seed: 3" in said.out and "lr: 0.25" in said.out and "loss: CrossEntropyLoss" in said.out
    assert "seed: 4" in dlspec("--cfg", "job", "experiment=mine", "seed=4").out
    said = dlspec("validate", "experiment=mine", "loss.label_smoothing=0.1")
    assert "write it in full: 'loss={type: CrossEntropyLoss, label_smoothing: 0.1}'" in said.err
    assert dlspec("validate", "experiment=mine", "loss={type: CrossEntropyLoss, label_smoothing: 0.1}").code == 0
    assert dlspec("validate", "experiment=mine", "optimizer={type: Adam}").code == 0


BAD_FILES = {
    "conf/experiment/bad.yaml": [
        ("# A comment\n# @package _global_\nseed: 3\n", "conf/experiment/bad.yaml:2:1   '# @package' is ignored"),
        (GLOBAL + "hydra: {run: {dir: x}}\n", "conf/experiment/bad.yaml   a 'hydra' section in this file   move it"),
        ("# @package hydra.run\ndir: x\n", "conf/experiment/bad.yaml   a 'hydra' section in this file   move it"),
        (GLOBAL + "defaults: [override /model: mlpp]\n",
         "conf/experiment/bad.yaml:2:29   model   unknown name 'mlpp' in a defaults list   did you mean 'mlp'?"),
        (GLOBAL + "defaults:\n  - override /optimizer: [Adam, SGD]\n",
         "conf/experiment/bad.yaml:3:33   optimizer   optimizer takes one choice, got a list   write one name"),
        (GLOBAL + "model: {layers: {a: ReLU}}\n",
         "conf/experiment/bad.yaml:2:9   model.layers   'layers' is a mapping here, but a list in the file that "
         "this one extends   "
         "write a list here too, which replaces the other list, or extend another file"),
        (GLOBAL + "trainer: {epoch: 3}\n", "conf/experiment/bad.yaml:2:11   trainer.epoch   unknown key   did you"),
        (GLOBAL + "seed: ${oc.env:HOME}\n",
         "conf/experiment/bad.yaml:2:7   seed   '${oc.env:HOME}' is not allowed: oc.select is the only resolver"),
        (GLOBAL + "seed: [1\n", "conf/experiment/bad.yaml:2:7   this '[' is not closed"),
        ("- 1\n", "conf/experiment/bad.yaml   the file is not a mapping"),
    ],
    "conf/config.yaml": [("name: other\n", "conf/config.yaml   this config.yaml does not extend dlspec's   start")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"), [(name, *row) for name, rows in BAD_FILES.items() for row in rows]
)
def test_wrong_files_of_the_user(dlspec, write, name: str, text: str, message: str) -> None:
    write(name, text)
    said = dlspec("validate", *(["experiment=bad"] if "experiment" in name else []))
    assert said.code == 2
    assert said.err.startswith(message)


def test_in_the_checkout_its_conf_is_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    from dlspec.config.conf_files import find_packaged_conf, find_user_conf

    monkeypatch.chdir(find_packaged_conf().parent)
    assert find_user_conf() is None
