"""Hydra's own tests of a launcher, with `pool`: whole programs that are not dlspec's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from helpers.paths import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("default")]

# As an installed package of plugins would bring it along.
PLUGIN = """
from dlspec.sweeps.hydra.plugins import PoolLauncher, VectorizedLauncher, name_plugins

name_plugins()
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from dlspec.sweeps.hydra.plugins import register

    register()
    folder = tmp_path_factory.mktemp("installed")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins/pool_of_dlspec.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    yield


@pytest.mark.parametrize("launcher_name, overrides", [("pool", []), ("vectorized", [])])
class TestPool(LauncherTestSuite):
    """What Hydra asks of every launcher, called in this process."""


@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags", [({}, ["-m", f"hydra/launcher={name}"]) for name in ("pool", "vectorized")]
)
class TestPoolOfAProgram(IntegrationTestSuite):
    """The same of a program that is started with it."""
