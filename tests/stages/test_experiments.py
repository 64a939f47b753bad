"""The tables that list and compare experiments."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import experiments
from stages.workspace.errors import MLpyError

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


def test_the_best_validation_score_is_chosen() -> None:
    """Whatever the test says, and of those with the most folds."""
    table = runs({"train.model.name": "probe"}, {"train.model.name": "finetune"}, {"train.model.name": "mini_xception"})
    best = {"probe": 0.8, "finetune": 0.9, "mini_xception": 0.95}
    table["val.auroc"] = table["train.model.name"].map(best)
    table = table[(table["train.model.name"] != "mini_xception") | (table["split.fold"] == 0)]
    head, _, *rows = experiments.table(table).splitlines()
    assert head.startswith("| policy | group by | setting | folds | validation AUROC | AUROC | difference |")
    assert [row.split(" | ")[2:5] for row in rows] == [
        ["finetune", "3", "0.900"],
        ["probe", "3", "0.800"],
        ["mini_xception", "1", "0.950"],
    ]
    assert rows[1].split(" | ")[6] == "+0.100", "the difference is of the test scores"


def test_scores_of_other_pictures_are_not_subtracted() -> None:
    table = runs({"train.model.name": "probe"}, {"train.model.name": "probe", "extract.limit": 60})
    table["data/split/test.parquet"] = table["extract.limit"].isna().map({True: "aa", False: "bb"})
    rows = experiments.table(table).splitlines()[2:]
    assert rows[1].split(" | ")[2:6] == ["probe limit=60", "3", "0.700 (0.452 to 0.948)", "other pictures"]
    # Of the folds, those with the same pictures count.
    table.loc[table["split.fold"] < 2, "data/split/test.parquet"] = "cc"
    rows = experiments.table(table).splitlines()[2:]
    assert rows[1].split(" | ")[5] == "-0.100"


def dvc_rows(*experiments: dict[str, object]) -> pd.DataFrame:
    """Rows as DVC's: the workspace, a commit and its experiments."""
    common: dict[str, object] = {
        "extract.policy.name": "house",
        "extract.policy.labels.flagged.any": ["flag"],
        "split.group_by": "content",
        "split.fold": 0.0,
        "train.seed": 0.0,
        "train.model.name": "probe",
        "data/split/test.parquet": "0123456789abcdef",
        **dict.fromkeys(("val.auroc", "val.average_precision", "auroc", "average_precision", "recall"), 0.5),
        "false_positive_rate": 0.0,
        "recall_drop.crop": 0.1,
    }
    first = {"Experiment": None, "rev": "workspace", "State": None}
    named = [{"Experiment": f"exp-{number}", "rev": f"{number}"} | one for number, one in enumerate(experiments)]
    return pd.DataFrame([common | row for row in [first, first | {"rev": "main"}, *(first | row for row in named)]])


def test_experiments_are_listed_by_validation_score_and_unfinished_ones_last() -> None:
    listed = experiments.listing(
        dvc_rows(
            {"val.auroc": 0.7, "auroc": 0.2, "train.lr": 0.1},
            {"val.auroc": 0.9, "auroc": 0.1, "data/split/test.parquet": "fedcba9876543210"},
            {"State": "Failed"},
        )
    )
    assert list(listed["experiment"]) == ["exp-1", "exp-0", "main", "exp-2"]
    assert list(listed["val.auroc"]) == [0.9, 0.7, 0.5, ""], "a failed one shows the scores of its commit in DVC"
    assert list(listed["state"]) == ["", "", "", "Failed"]
    assert list(listed["test_pictures"]) == ["fedcba98", *["01234567"] * 3]
    assert list(listed["train.lr"]) == ["none", "0.1", "none", "none"]


values = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=40) | st.lists(st.text(), max_size=9)


@given(st.lists(st.fixed_dictionaries({"train.x": values, "download.y": values, "test.z": values}), min_size=1))
def test_every_parameter_that_differs_is_listed(chosen: list[dict[str, object]]) -> None:
    rows = dvc_rows(*chosen)
    rows = rows[rows["Experiment"].notna()]
    listed = set(experiments.listing(rows))
    for name in chosen[0]:
        # As DVC does, pandas takes whole floats and integers, and None and NaN, for the same.
        assert (name in listed) == (len({str(one[name]) for one in chosen}) > 1)


def test_the_rules_of_a_policy_are_listed_if_its_name_does_not_tell() -> None:
    rules = "extract.policy.labels.flagged.any"
    people: dict[str, object] = {"extract.policy.name": "people", rules: ["person"]}
    assert rules not in experiments.listing(dvc_rows(people))
    many = [f"tag {number}" for number in range(40)]
    listed = experiments.listing(dvc_rows(people, {rules: many}, {rules: [*many, "one more"]}))
    assert listed[rules].nunique() == 4
    assert listed[rules].str.len().max() <= experiments.LONGEST
    names = experiments.setting_names(experiments.collect(dvc_rows({rules: many}, {rules: ["flag"]})))
    assert all(name.startswith("probe any=[") for name in names)


def test_a_parameter_is_named_by_as_much_as_tells_it_from_others() -> None:
    table = runs({"train.model.name": "probe", "split.seed": 1}, {"train.model.name": "probe", "split.seed": 2})
    assert set(experiments.setting_names(table)) == {"probe seed=1", "probe seed=2"}
    table = table.assign(**{"train.seed": 0, "extract.seed": 0})
    assert set(experiments.setting_names(table)) == {"probe split.seed=1", "probe split.seed=2"}


def test_without_experiments_there_is_nothing_to_list_or_compare() -> None:
    with pytest.raises(MLpyError, match="this commit has no experiments; run some"):
        experiments.listing(dvc_rows())
    with pytest.raises(MLpyError, match="this commit has no finished experiments; run some"):
        experiments.collect(dvc_rows({"State": "Failed"}))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1e-3, 2e-3]), st.booleans()), min_size=1, unique=True)
)
def test_no_two_settings_share_a_name(chosen: list[tuple[str, float, bool]]) -> None:
    keys = ("train.model.name", "train.lr", "train.balance")
    table = runs(*(dict(zip(keys, each, strict=True)) for each in chosen))
    assert experiments.setting_names(table).nunique() == len(chosen)


def test_only_finished_experiments_are_compared() -> None:
    states = {"workspace": None, "a": "Success", "b": None, "c": "Queued", "d": "Running", "e": "Failed"}
    rows = pd.DataFrame({"Experiment": [None, *"abcde"], "State": list(states.values())})
    assert list(rows["Experiment"][experiments.finished(rows)]) == ["a", "b"], "b ran directly, not from the queue"


def finished(*scores: tuple[str, float, float]) -> pd.DataFrame:
    """DVC's rows of experiments with the parameters of this commit: name, fold, AUROC."""
    common = {"rev": "HEAD", "State": None, "train.seed": 0.0, "train.model.name": "probe"}
    common |= {"train.model.backbone": None, "split.group_by": "origin", "positives": 25.0, "labels.a.positives": None}
    common |= {experiments.ALL_PICTURES: 500.0, "average_precision": 0.5, "recall_at_1_percent_fpr": 0.25}
    return pd.DataFrame(
        [common | {"Experiment": name, "split.fold": fold, "auroc": auroc} for name, fold, auroc in scores]
    )


def test_a_finished_run_is_a_line_of_the_reports_file() -> None:
    row, other = experiments.results(finished(("exp-a", 0.0, 0.75), ("exp-b", 3.0, 0.7)))
    assert (row.group_by, row.fold, row.model, row.backbone, row.pictures) == ("origin", "0", "probe", "none", 500)
    assert (row.positives, row.auroc, row.average_precision, row.recall_at_1_percent_fpr) == (25, 0.75, 0.5, 0.25)
    assert (other.fold, other.auroc) == ("3", 0.7)
    assert len(row.rules) == 8


def test_runs_that_the_reports_file_cannot_tell_apart_are_refused() -> None:
    equal = experiments.results(finished(("exp-a", 0.0, 0.75), ("exp-b", 0.0, 0.75)))
    assert len(equal) == 1
    with pytest.raises(MLpyError, match="the experiments exp-a and exp-b are of one model, fold and seed, but differ"):
        experiments.results(finished(("exp-a", 0.0, 0.75), ("exp-b", 0.0, 0.7)))
    with pytest.raises(MLpyError, match="no finished experiments"):
        experiments.results(finished(("exp-a", 0.0, float("nan"))))
