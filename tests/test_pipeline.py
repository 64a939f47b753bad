"""The whole pipeline in a temporary clone: real dump, real PostgreSQL, real HTTP, real training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from clones import ROOT, Clone, after_smoke
from dvc.repo import Repo

from stages.config.compose import compose
from stages.workspace import paths

RERUNS = re.compile(r"^\| `(\w+\.\w+)` \| `(\S+)` \| (.+) \|$", re.MULTILINE)
"""A row of the table in stages/README.md: a parameter, a value for it, the stages that rerun."""

PLOTS = {name for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for name in plot}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = after_smoke(tmp_path_factory)
    clone.run("git", "commit", "--all", "--quiet", "--message", "The smoke experiment")
    return clone


def test_every_artifact_is_there(clone: Clone) -> None:
    named = [value for name, value in vars(paths).items() if isinstance(value, Path) and not name.startswith("FOLDER_")]
    assert [path for path in named if not (clone.folder / path).exists()] == []


def test_the_metrics_are_whole(clone: Clone) -> None:
    metrics = clone.json(paths.TEST_METRICS)
    for key in ("auroc", "average_precision", "f1", "precision", "recall"):
        assert 0 <= metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"] <= 1
    assert 0 < metrics["threshold"] < 1


def test_every_image_of_the_catalogue_ends_as_a_row(clone: Clone) -> None:
    catalogue = pd.read_parquet(clone.folder / paths.IMAGES)
    status = pd.read_parquet(clone.folder / paths.STATUS)
    assert list(status.image_id) == list(catalogue.image_id)
    assert len(catalogue) == 120
    assert (status.status == "ok").mean() > 0.95


def test_no_group_is_in_two_splits(clone: Clone) -> None:
    groups = [set(pd.read_parquet(clone.folder / path).group) for path in paths.SPLITS.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_a_second_repro_does_nothing(clone: Clone) -> None:
    assert "up to date" in clone.run("dvc", "repro")


@pytest.fixture
def stages_that_run(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], set[str]]]:
    """Overrides a parameter and runs the pipeline up to its last stage, of which DVC only says whether it would run."""
    for name, value in clone.forking.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone.folder)

    def run(override: str) -> set[str]:
        paths.PARAMS.write_text(compose(["experiment=smoke", override], paths.CONF))
        # In this process: a new one would spend a second on imports, and `dvc exp run` two more on git.
        with Repo() as repo:
            ran = {stage.name for stage in repo.reproduce("train")}
        with Repo() as repo:
            return ran | repo.status("test").keys()

    yield run
    clone.run("git", "checkout", "--quiet", ".")
    with Repo() as repo:
        repo.checkout(force=True)


@pytest.mark.parametrize(("key", "value", "stages"), RERUNS.findall((ROOT / "stages/README.md").read_text()))
def test_a_changed_parameter_reruns_exactly_the_stages_that_depend_on_it(
    stages_that_run: Callable[[str], set[str]], key: str, value: str, stages: str
) -> None:
    assert stages_that_run(f"{key}={value}") == set(stages.split(", "))


def test_the_table_of_reruns_has_a_parameter_of_each_stage() -> None:
    keys = [key for key, _, _ in RERUNS.findall((ROOT / "stages/README.md").read_text())]
    assert [key.split(".")[0] for key in keys] == ["restore", "extract", "download", "split", "train", "test"]


def test_every_plot_can_be_drawn(clone: Clone) -> None:
    drawn = json.loads(clone.run("dvc", "plots", "show", "--json"))
    assert drawn.get("errors", []) == []
    assert set(drawn["data"]) == PLOTS, "and none that DVC guesses"


def test_the_predictor_judges_a_picture(clone: Clone) -> None:
    shard = min((clone.folder / paths.SHARDS).glob("shard-*.parquet"))
    (clone.folder / "picture").write_bytes(pd.read_parquet(shard).bytes[0])
    answer = json.loads(clone.run("python", "-m", "stages.inference.predictor", "picture", "--json"))
    assert answer["verdict"] in ("flagged", "clean")
