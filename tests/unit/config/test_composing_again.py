"""A second composition in a process: it copies what the first one read, and equals one that read everything anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dlspec.compat import hydra as compat
from dlspec.config.composition import ComposedConfig, compose
from dlspec.errors import SpecError

Write = Callable[[str, str], Path]
LINES = [
    [],
    ["model=mlp", "data=random"],
    ["model=m"],
    ["experiment=e"],
    ["hydra/launcher=basic", "optimizer=SGD"],
    ["model={layers: [Flatten]}"],
]


def _written(composed: ComposedConfig) -> Any:
    places = composed.find_locations()
    config = OmegaConf.to_container(composed.config, resolve=False, enum_to_str=True)
    return composed.tree, config, places.keys, places.values


def _write_project(write: Write) -> None:
    write("conf/model/m.yaml", "defaults: [mlp, _self_]\nparams: {width: 7}\n")
    write("conf/experiment/e.yaml", "# @package _global_\ndefaults: [{override /model: m}]\ntrainer: {epochs: 2}\n")


@pytest.mark.parametrize("lines", LINES, ids=" ".join)
def test_equals_a_first_one(write: Write, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    _write_project(write)
    monkeypatch.setattr(compat, "_REMEMBERED", {})
    first = _written(compose(lines))
    assert _written(compose(lines)) == first


def test_a_changed_file_is_seen(write: Write) -> None:
    path = write("conf/model/m.yaml", "layers: [Flatten, {Linear: 1}]\n")
    before = path.stat()
    assert compose(["model=m"]).tree["model"]["layers"][1] == {"Linear": 1}
    write("conf/model/m.yaml", "layers: [Flatten, {Linear: 2}]\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time
    assert compose(["model=m"]).tree["model"]["layers"][1] == {"Linear": 2}


def test_a_file_that_comes_and_goes_is_seen(write: Write) -> None:
    packaged = compose(["trainer=default"]).tree["trainer"]
    path = write("conf/trainer/default.yaml", "epochs: 3\n")
    assert compose(["trainer=default"]).tree["trainer"] == {"epochs": 3}
    path.unlink()
    assert compose(["trainer=default"]).tree["trainer"] == packaged


def test_a_changed_defaults_list_is_seen(write: Write) -> None:
    write("conf/model/m.yaml", "defaults: [mlp, _self_]\n")
    assert "Flatten" in compose(["model=m"]).tree["model"]["layers"]
    write("conf/model/m.yaml", "defaults: [text_gru, _self_]\n")
    assert compose(["model=m"]).tree["model"] == compose(["model=text_gru"]).tree["model"]


def test_a_limit_that_was_lowered_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    compose(["model=resnet18"])
    monkeypatch.setenv("DLSPEC_MAX_VALUES", "5")
    with pytest.raises(SpecError, match="values"):
        compose(["model=resnet18"])


def test_compositions_share_nothing(write: Write) -> None:
    _write_project(write)
    for lines in LINES:
        first = _written(compose(lines))
        changed = compose(lines)
        OmegaConf.set_struct(changed.config, False)
        for key in list(changed.config):
            node = changed.config[key]
            changed.config[key] = {"changed": True} if key != "hydra" else node
        OmegaConf.set_readonly(changed.config.hydra, False)
        changed.config.hydra.job.name = "changed"
        changed.config.hydra.help.template = "changed"
        assert _written(compose(lines)) == first


def test_what_the_store_holds_anew_is_seen() -> None:
    store = ConfigStore.instance()
    pool = compose(["hydra/launcher=pool"]).config.hydra.launcher
    for target in ("one", "two"):
        store.store(group="hydra/launcher", name="another", node={"_target_": target})
        assert compose(["hydra/launcher=another"]).config.hydra.launcher == {"_target_": target}
    del store.repo["hydra"]["launcher"]["another.yaml"]
    assert compose(["hydra/launcher=pool"]).config.hydra.launcher == pool


def test_a_runs_folder_has_the_time_of_its_own_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_REMEMBERED", {})
    first = OmegaConf.get_cache(compose([]).config)["now"]
    time.sleep(1.1)
    second = OmegaConf.get_cache(compose([]).config)["now"]
    assert first.keys() == second.keys() != set()
    assert first[("%H-%M-%S",)] != second[("%H-%M-%S",)]


def test_a_choice_within_a_defaults_list(write: Write) -> None:
    write("conf/model/m.yaml", "defaults: [{/loss@same: '${optimizer}'}, _self_]\n")
    for optimizer in ("SGD", "Adam", "SGD"):
        assert compose(["model=m", f"optimizer={optimizer}"]).tree["model"]["same"]["type"] == optimizer


def test_what_can_not_be_pickled_is_copied() -> None:
    class Local:
        """A class that unpickling does not find."""

    copies = compat.ConfigCopier({"a": [Local]})
    assert copies.make() == {"a": [Local]}
    assert copies.make()["a"] is not copies.make()["a"]
