"""The table that compares experiments, and keeping one in conf/."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages import experiments
from stages.config.__main__ import main as check_params
from stages.config.compose import check, compose
from stages.workspace.errors import ParamsError
from stages.workspace.files import replacing

CONF = Path(__file__).parents[2] / "conf"


def runs(*settings: dict[str, object], scores: tuple[float, ...] = (0.7, 0.8, 0.9)) -> pd.DataFrame:
    """Each setting on as many folds as there are scores; each setting scores .1 less than the one before."""
    task = {"extract.policy.name": "house", "split.group_by": "content"}
    return pd.DataFrame(
        task
        | setting
        | {"split.fold": fold, "auroc": score - place / 10, "average_precision": score / 2, "recall_drop": 0.0}
        for place, setting in enumerate(settings)
        for fold, score in enumerate(scores)
    )


def test_the_table_has_means_intervals_and_paired_differences() -> None:
    rows = experiments.table(runs({"train.model.name": "probe"}, {"train.model.name": "finetune"})).splitlines()
    # Student's t of .975 and 2 degrees is 4.303: .1 / sqrt(3) * 4.303 = .248.
    assert (
        rows[2] == "| house | content | probe | 3 | 0.800 (0.552 to 1.000) |  | 0.400 (0.276 to 0.524) |  | 0.000 |  |"
    )
    assert rows[3].startswith("| house | content | finetune | 3 | 0.700 (0.452 to 0.948) | -0.100 | 0.400 (")
    assert rows[3].endswith(" | +0.000 | 0.000 | +0.000 |")


def test_only_folds_that_both_settings_have_are_paired() -> None:
    table = runs({"train.model.name": "probe"}, {"train.model.name": "finetune"})
    rows = experiments.table(table[(table["train.model.name"] == "probe") | (table["split.fold"] == 2)]).splitlines()
    assert rows[3] == "| house | content | finetune | 1 | 0.800 | -0.100 | 0.450 | +0.000 | 0.000 | +0.000 |"


def test_a_missing_value_distinguishes_a_setting() -> None:
    table = runs(
        {"train.model.name": "probe", "extract.limit": None}, {"train.model.name": "probe", "extract.limit": 50.0}
    )
    assert set(experiments.setting_names(table)) == {"probe limit=none", "probe limit=50"}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1e-3, 2e-3]), st.booleans()), min_size=1, unique=True)
)
def test_no_two_settings_share_a_name(chosen: list[tuple[str, float, bool]]) -> None:
    keys = ("train.model.name", "train.lr", "train.balance")
    table = runs(*(dict(zip(keys, each, strict=True)) for each in chosen))
    assert experiments.setting_names(table).nunique() == len(chosen)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONF, tmp_path / "conf")
    return tmp_path / "conf"


def texts(conf: Path) -> dict[str, str]:
    """What each file under conf/ holds, hidden and temporary ones included."""
    return {str(file.relative_to(conf)): file.read_text() for file in conf.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("overrides", "content"),
    [
        ([], {}),
        (["model=finetune", "train.lr=0.5"], {"defaults": [{"override /model": "finetune"}], "train": {"lr": 0.5}}),
        (["policy=people", "extract.limit=7"], {"defaults": [{"override /policy": "people"}], "extract": {"limit": 7}}),
        (["experiment=baseline"], {"defaults": [{"override /model": "mini_xception"}], "train": {"epochs": 12}}),
    ],
    ids=" ".join,
)
def test_a_kept_experiment_composes_to_the_same_parameters(conf: Path, overrides: list[str], content: object) -> None:
    before = texts(conf)
    wanted = compose(overrides, conf)
    Path("params.yaml").write_text(wanted)
    file = experiments.keep("winner")
    assert (yaml.safe_load(file.read_text()) or {}) == content
    assert yaml.safe_load(compose(conf=conf)) == yaml.safe_load(wanted)
    assert Path("params.yaml").read_text() == compose(conf=conf)
    changed = {name for name, text in texts(conf).items() if before.get(name) != text}
    assert changed == {"config.yaml", "experiment/winner.yaml"}


def with_labels(conf: Path, names: list[str]) -> dict[str, Any]:
    """Write a params.yaml with the policy `ratings`, reduced to these labels in this order."""
    values: dict[str, Any] = yaml.safe_load(compose(["policy=ratings", "train.lr=0.5"], conf))
    policy = values["extract"]["policy"]
    policy["labels"] = {name: policy["labels"][name] for name in names}
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return values


@pytest.mark.parametrize(
    "names",
    [["gross", "horror", "sexual"], ["horror", "sexual", "gross"], ["sexual", "gross"], ["gross", "sexual"]],
    ids=" ".join,
)
def test_labels_that_no_policy_has_become_a_policy(conf: Path, names: list[str]) -> None:
    before = texts(conf)
    values = with_labels(conf, names)
    file = experiments.keep("winner")
    assert yaml.safe_load(file.read_text()) == {"defaults": [{"override /policy": "winner"}], "train": {"lr": 0.5}}
    assert yaml.safe_load((conf / "policy/winner.yaml").read_text()) == {
        "extract": {"policy": values["extract"]["policy"]}
    }
    composed = yaml.safe_load(compose(conf=conf))
    assert composed == values
    assert list(composed["extract"]["policy"]["labels"]) == names
    assert Path("params.yaml").read_text() == compose(conf=conf)
    changed = {name for name, text in texts(conf).items() if before.get(name) != text}
    assert changed == {"config.yaml", "experiment/winner.yaml", "policy/winner.yaml"}


def test_the_check_reports_labels_in_another_order(
    conf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_labels(conf, ["sexual", "horror", "gross"])
    monkeypatch.setattr("sys.argv", ["stages.config", "--check", "policy=ratings", "train.lr=0.5"])
    check_params()
    assert [record.message for record in caplog.records if "extract.policy.labels" in record.message] == []
    with_labels(conf, ["gross", "horror", "sexual"])
    assert check_params() == 1
    assert any("extract.policy.labels" in record.message for record in caplog.records)


def test_a_group_can_still_be_chosen_over_a_kept_experiment(conf: Path) -> None:
    Path("params.yaml").write_text(compose(["model=finetune"], conf))
    experiments.keep("winner")
    assert yaml.safe_load(compose(["model=probe"], conf))["train"]["model"]["name"] == "probe"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoke", r"conf/experiment/smoke\.yaml exists already"),
        ("../x", "is not a valid experiment name"),
        ("Best", "lower-case letters"),
    ],
)
def test_an_invalid_or_taken_name_is_refused(conf: Path, name: str, message: str) -> None:
    before = texts(conf)
    Path("params.yaml").write_text(compose(["train.lr=0.5"], conf))
    with pytest.raises(ParamsError, match=message):
        experiments.keep(name)
    assert texts(conf) == before


def test_a_policy_that_exists_is_not_overwritten(conf: Path) -> None:
    before = texts(conf)
    with_labels(conf, ["gross", "sexual"])
    with pytest.raises(ParamsError, match=r"conf/policy/people\.yaml exists already"):
        experiments.keep("people")
    assert texts(conf) == before


def test_a_missing_parameter_is_refused(conf: Path) -> None:
    before = texts(conf)
    values = yaml.safe_load(compose(conf=conf))
    del values["test"]["worst_count"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    check(values)
    with pytest.raises(ParamsError, match=r"params\.yaml lacks test\.worst_count, which conf/ sets"):
        experiments.keep("winner")
    assert texts(conf) == before


def test_nothing_is_written_if_the_result_would_differ(conf: Path) -> None:
    config = conf / "config.yaml"
    config.write_text(config.read_text().replace("  - experiment: null\n", "  - optional experiment: null\n"))
    before = texts(conf)
    params = compose(["train.lr=0.5"], conf)
    Path("params.yaml").write_text(params)
    with pytest.raises(ParamsError, match=r"composes train\.lr to 0\.001, not to 0\.5 as in params\.yaml"):
        experiments.keep("winner")
    assert texts(conf) == before
    assert Path("params.yaml").read_text() == params


@pytest.mark.parametrize("failing", ["winner.yaml", "params.yaml", "config.yaml"])
def test_a_failing_write_leaves_conf_as_it_was(conf: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before = texts(conf)
    values = with_labels(conf, ["gross", "sexual"])

    @contextlib.contextmanager
    def full_disk(target: Path) -> Iterator[Path]:
        with replacing(target) as aside:
            yield aside
            if target.name == failing:
                raise OSError("No space left on device")

    monkeypatch.setattr(experiments, "replacing", full_disk)
    with pytest.raises(OSError, match="No space left"):
        experiments.keep("winner")
    assert texts(conf) == before
    assert yaml.safe_load(Path("params.yaml").read_text()) == values


def test_only_finished_experiments_are_compared() -> None:
    states = {"workspace": None, "a": "Success", "b": None, "c": "Queued", "d": "Running", "e": "Failed"}
    rows = pd.DataFrame({"Experiment": [None, *"abcde"], "State": list(states.values())})
    assert list(rows["Experiment"][experiments.finished(rows)]) == ["a", "b"], "b ran directly, not from the queue"
