"""Experiments: the table that compares them, and the file that keeps one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages import experiments
from stages.config.compose import check, compose
from stages.workspace.errors import ParamsError

CONF = Path(__file__).parents[2] / "conf"


def runs(*settings: dict[str, object], scores: tuple[float, ...] = (0.7, 0.8, 0.9)) -> pd.DataFrame:
    """Each setting on as many folds as there are scores; each setting's are lower by .1 than the one's before."""
    task = {"extract.policy.name": "house", "split.group_by": "content"}
    return pd.DataFrame(
        task
        | setting
        | {"split.fold": fold, "auroc": score - place / 10, "average_precision": score / 2, "recall_drop": 0.0}
        for place, setting in enumerate(settings)
        for fold, score in enumerate(scores)
    )


def test_a_table_tells_means_intervals_and_paired_differences() -> None:
    rows = experiments.table(runs({"train.model.name": "probe"}, {"train.model.name": "finetune"})).splitlines()
    # Student's t of .975 and 2 degrees is 4.303: .1 / sqrt(3) * 4.303 = .248.
    assert (
        rows[2] == "| house | content | probe | 3 | 0.800 (0.552 to 1.000) |  | 0.400 (0.276 to 0.524) |  | 0.000 |  |"
    )
    assert rows[3].startswith("| house | content | finetune | 3 | 0.700 (0.452 to 0.948) | -0.100 | 0.400 (")
    assert rows[3].endswith(" | +0.000 | 0.000 | +0.000 |")


def test_folds_that_only_one_setting_has_are_not_compared() -> None:
    table = runs({"train.model.name": "probe"}, {"train.model.name": "finetune"})
    rows = experiments.table(table[(table["train.model.name"] == "probe") | (table["split.fold"] == 2)]).splitlines()
    assert rows[3] == "| house | content | finetune | 1 | 0.800 | -0.100 | 0.450 | +0.000 | 0.000 | +0.000 |"


def test_a_value_that_is_not_set_is_a_setting_too() -> None:
    table = runs(
        {"train.model.name": "probe", "extract.limit": None}, {"train.model.name": "probe", "extract.limit": 50.0}
    )
    assert set(experiments.told_apart(table)) == {"probe limit=none", "probe limit=50"}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1e-3, 2e-3]), st.booleans()), min_size=1, unique=True)
)
def test_settings_have_names_of_their_own(chosen: list[tuple[str, float, bool]]) -> None:
    keys = ("train.model.name", "train.lr", "train.balance")
    table = runs(*(dict(zip(keys, each, strict=True)) for each in chosen))
    assert experiments.told_apart(table).nunique() == len(chosen)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONF, tmp_path / "conf")
    return tmp_path / "conf"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], {}),
        (["model=finetune", "train.lr=0.5"], {"defaults": [{"override /model": "finetune"}], "train": {"lr": 0.5}}),
        (["policy=people", "extract.limit=7"], {"defaults": [{"override /policy": "people"}], "extract": {"limit": 7}}),
        (["experiment=baseline"], {"defaults": [{"override /model": "mini_xception"}], "train": {"epochs": 12}}),
    ],
    ids=" ".join,
)
def test_what_is_kept_composes_to_the_same_parameters(conf: Path, overrides: list[str], said: object) -> None:
    wanted = compose(overrides, conf)
    Path("params.yaml").write_text(wanted)
    file = experiments.keep("winner", conf)
    assert (yaml.safe_load(file.read_text()) or {}) == said
    assert yaml.safe_load(compose(conf=conf)) == yaml.safe_load(wanted)
    assert Path("params.yaml").read_text() == compose(conf=conf)


def test_a_group_can_still_be_chosen_over_what_is_kept(conf: Path) -> None:
    Path("params.yaml").write_text(compose(["model=finetune"], conf))
    experiments.keep("winner", conf)
    assert yaml.safe_load(compose(["model=probe"], conf))["train"]["model"]["name"] == "probe"


@pytest.mark.parametrize(
    ("name", "said"),
    [("smoke", "smoke.yaml is there already"), ("../x", "cannot be an experiment's name"), ("Best", "small letters")],
)
def test_a_name_that_cannot_be_is_refused(conf: Path, name: str, said: str) -> None:
    before = (conf / "config.yaml").read_text()
    Path("params.yaml").write_text(compose(["train.lr=0.5"], conf))
    with pytest.raises(ParamsError, match=said):
        experiments.keep(name, conf)
    assert (conf / "config.yaml").read_text() == before


def test_what_no_file_can_express_is_refused(conf: Path) -> None:
    values = yaml.safe_load(compose(conf=conf))
    del values["test"]["worst_count"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    check(values)
    with pytest.raises(ParamsError, match=r"params\.yaml lacks test\.worst_count, which conf/ gives"):
        experiments.keep("winner", conf)
    assert not (conf / "experiment/winner.yaml").exists()


def test_only_what_ended_well_is_compared() -> None:
    states = {"workspace": None, "a": "Success", "b": None, "c": "Queued", "d": "Running", "e": "Failed"}
    rows = pd.DataFrame({"Experiment": [None, *"abcde"], "State": list(states.values())})
    assert list(rows["Experiment"][experiments.finished(rows)]) == ["a", "b"], "b ran at once, not in the queue"
