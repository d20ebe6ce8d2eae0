"""The config of a sweep's job, composed as what it changes in the config that the jobs share; the files of a run's."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dlspec.compat.hydra import RunCallbacks, format_yaml
from dlspec.config.composition import DlspecConfigLoader, compose, start_hydra
from dlspec.config.hydra_run import HydraJob, SingleRun, prepare_hydra_process, unwrap_job_return
from dlspec.config.job_config import JobConfig
from dlspec.errors import SpecError

COMMON = ("model=mlp", "data=digits", "hydra/launcher=pool", "hydra.job.name=named")
OVERRIDES = [
    ("optimizer.lr=0.1", "seed=3"),
    ("optimizer={type: SGD, lr: 0.1}", "+trainer.threads=2", "trainer.epochs=7"),
    ("~metrics", "loss=MSELoss", "optimizer.lr=1e-3"),
    ("model.params.width=8", "model.name=small"),
    ("model.layers.0=null", "data.limit=30"),
    ("seed=${oc.env:HOME}", "name='a b=c'", "optimizer.lr=${seed}"),
    ("optimizer=SGD", "scheduler=StepLR", "scheduler.step_size=2"),
]


def start(*words: str) -> tuple[DlspecConfigLoader, DictConfig]:
    hydra = start_hydra()
    assert isinstance(hydra.config_loader, DlspecConfigLoader)
    return hydra.config_loader, hydra.compose_config("config", list(words), run_mode=RunMode.MULTIRUN)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda each: each[0])
def test_a_job_is_composed_as_hydra_composes_it(overrides: tuple[str, ...]) -> None:
    loader, sweep_config = start(*COMMON)
    words = (*COMMON[:2], *overrides)
    whole = loader.compose_job(sweep_config, words)
    short: JobConfig = pickle.loads(pickle.dumps(loader.compose_job(sweep_config, words)))
    assert len(short.hydra_values) == 2 and not whole.hydra_values  # the first one was composed by Hydra
    for each in (whole, short):
        assert OmegaConf.to_yaml(each.make()) == OmegaConf.to_yaml(loader.load_sweep_config(sweep_config, list(words)))
        assert each.overrides == words
        assert each.tree == whole.tree and list(each.tree) == list(whole.tree)
        assert format_yaml(each.hydra_tree) == format_yaml(whole.hydra_tree)


def test_a_later_job_changes_no_earlier_one() -> None:
    loader, sweep_config = start(*COMMON)
    jobs = [loader.compose_job(sweep_config, (*COMMON[:2], f"model.params.width={width}")) for width in (4, 5, 6)]
    assert [each.tree["model"]["params"]["width"] for each in jobs] == [4, 5, 6]


@pytest.mark.parametrize("override", ["optimizer.lr.x=3", "model=nothing", "seed=1,2", "~model.layrs"])
def test_a_wrong_override_is_refused_after_right_ones(override: str) -> None:
    loader, sweep_config = start(*COMMON)
    loader.compose_job(sweep_config, (*COMMON[:2], "seed=1"))
    with pytest.raises(SpecError) as wanted:
        start(*COMMON)[0].load_sweep_config(sweep_config, [*COMMON[:2], override])
    with pytest.raises(SpecError) as found:
        loader.compose_job(sweep_config, (*COMMON[:2], override))
    assert str(found.value) == str(wanted.value)


def test_hydra_files_and_hydra_config_of_a_job(tmp_path: Path) -> None:
    prepare_hydra_process()
    loader, sweep_config = start(*COMMON)
    context = HydraContext(config_loader=loader, callbacks=RunCallbacks(sweep_config))
    seen = []
    for number in (0, 1):
        job = HydraJob(loader.compose_job(sweep_config, (*COMMON[:2], f"seed={number}")))
        (tmp_path / str(number)).mkdir()
        job.run(context, number, tmp_path / str(number), lambda: seen.append(HydraConfig.get()))
        files = {each.name: each.read_text() for each in (tmp_path / str(number) / ".hydra").iterdir()}
        assert files["overrides.yaml"] == f"- model=mlp\n- data=digits\n- seed={number}\n"
        wanted = loader.load_sweep_config(sweep_config, [*COMMON[:2], f"seed={number}"])
        with open_dict(wanted):
            del wanted["hydra"]
        assert files["config.yaml"] == OmegaConf.to_yaml(wanted)
        assert files["hydra.yaml"] == OmegaConf.to_yaml(OmegaConf.create({"hydra": seen[-1]}))
    assert [each.job.num for each in seen] == [0, 1]
    assert seen[1].runtime.output_dir == str(tmp_path / "1")


def test_a_single_run_leaves_what_hydra_itself_would_leave(tmp_path: Path) -> None:
    hydra, folder, seen = start_hydra(), tmp_path / "run", []
    composed = compose(["model=mlp", "seed=3", f"hydra.run.dir={folder}", "hydra.job.name=named"], hydra)
    run = SingleRun(hydra, composed)
    assert run.configured_folder() == folder
    assert unwrap_job_return(run.run(folder, lambda: seen.append(HydraConfig.get()))) is None
    found = {each.name: each.read_text() for each in (folder / ".hydra").iterdir()}
    context = HydraContext(config_loader=hydra.config_loader, callbacks=RunCallbacks(composed.config))
    run_job(lambda _: seen.append(HydraConfig.get()), composed.config, "hydra.run.dir", None, context, False)
    assert found == {each.name: each.read_text() for each in (folder / ".hydra").iterdir()} and len(found) == 3
    assert OmegaConf.to_yaml(seen[0]) == OmegaConf.to_yaml(seen[1])
    assert seen[0].job.override_dirname == seen[1].job.override_dirname == "model=mlp,seed=3"
    with pytest.raises(ZeroDivisionError):
        unwrap_job_return(run.run(folder, lambda: 1 / 0))
