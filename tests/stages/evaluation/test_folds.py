"""Results of many runs: what is read, matched with a run, and said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.config.compose import compose
from stages.config.extract import Extract
from stages.evaluation import folds
from stages.evaluation.folds import Row
from stages.workspace.errors import ModelError
from stages.workspace.parameters import validated

RULE = {"any": ["gun"], "all": [], "none": [], "rest": False}
POLICY: dict[str, Any] = {"name": "house", "kind": "binary", "labels": ["flagged", "clean"], "rules": {"flagged": RULE}}
FIRST = Row(
    *("board.example", "house", folds.checksum(POLICY), "content", "0", 0, "probe", "lite0"),
    *(100, 30, 0.9, 0.8, 0.5),
)


def runs(*scores: float, **values: Any) -> list[Row]:
    return [replace(FIRST, fold=str(fold), auroc=score, **values) for fold, score in enumerate(scores)]


def summarised(rows: list[Row], policy: dict[str, Any] = POLICY, pictures: int = 100) -> list[folds.Summary]:
    return folds.summaries(rows, "board.example", policy, pictures)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [*runs(0.9, 0.8), replace(FIRST, fold="tango", positives=None, recall_at_1_percent_fpr=None)]
    folds.write(reversed(rows), tmp_path / "folds.csv")
    assert folds.read(tmp_path / "folds.csv") == rows


def test_the_committed_results_are_of_the_policies_of_conf() -> None:
    for name in {row.policy for row in folds.read()}:
        policy = validated(Extract, yaml.safe_load(compose([f"policy={name}"]))["extract"]).policy
        rules = {label: vars(rule) for label, rule in policy.labels.items()}
        checksum = folds.checksum({"kind": policy.kind, "labels": list(rules), "rules": rules})
        assert {row.rules for row in folds.read() if row.policy == name} == {checksum}


def test_a_newer_run_replaces_the_same_one() -> None:
    newer = replace(FIRST, auroc=0.95, pictures=120)
    assert folds.merged(runs(0.9, 0.8), [newer]) == [newer, *runs(0.9, 0.8)[1:]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,b", "line 2 of {} is no result: it needs 13 cells"),
        ("h,p,r,content,0,0,m,b,1,,1.5,0.5,", "line 2 of {} is no result: scores are from 0 to 1"),
        ("h,p,r,content,0,0,m,b,1,,nan,0.5,", "line 2 of {} is no result: scores are from 0 to 1"),
        ("h,p,r,colour,0,0,m,b,1,,0.5,0.5,", "line 2 of {} is no result: group_by is one of content, artist, origin"),
        ("h,p,r,content,0,x,m,b,1,,0.5,0.5,", "line 2 of {} is no result: invalid literal for int"),
    ],
)
def test_a_line_that_is_no_result_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(f"{','.join(folds.COLUMNS)}\n{line}\n")
    with pytest.raises(ModelError) as caught:
        folds.read(path)
    assert str(caught.value).startswith(said.format(path))


def test_a_file_with_other_columns_or_of_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("a,b\n")
    with pytest.raises(ModelError, match="must have the columns source,policy,"):
        folds.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"cannot be read .* restore the file with git"):
        folds.read(path)


def test_results_of_another_source_policy_or_rule_are_not_this_runs() -> None:
    others = [replace(FIRST, source="other.example"), replace(FIRST, rules="00000000", fold="1")]
    assert summarised(others) == []
    edited = POLICY | {"rules": {"flagged": RULE | {"any": ["gun", "bow"]}}}
    assert summarised([FIRST], edited) == []
    assert len(summarised([FIRST])) == 1


def test_folds_are_summarised_and_seeds_of_a_fold_count_once() -> None:
    rows = [*runs(0.9, 0.8, 0.7), *runs(0.5, seed=1)]
    (summary,) = summarised(rows)
    spread = summary.scores["auroc"]
    assert spread.folds == (("0", pytest.approx(0.7)), ("1", 0.8), ("2", 0.7))
    assert (spread.mean, spread.low, spread.high) == pytest.approx((2.2 / 3, 0.7, 0.8))


def test_a_score_that_a_fold_lacks_is_left_out_and_so_is_a_fold_of_few_positives() -> None:
    rows = [
        *runs(0.9, 0.8),
        replace(FIRST, fold="2", recall_at_1_percent_fpr=None),
        replace(FIRST, fold="3", positives=19),
    ]
    (summary,) = summarised(rows)
    assert set(summary.scores) == {"auroc", "average_precision"}
    assert (len(summary.scores["auroc"].folds), summary.too_few) == (3, ("3",))


def test_of_several_data_sets_this_runs_counts_or_else_the_largest() -> None:
    rows = [*runs(0.9, 0.8, pictures=100), *runs(0.5, 0.6, pictures=300, seed=1), *runs(0.1, pictures=200, seed=2)]
    assert [summary.pictures for summary in summarised(rows)] == [100]
    (summary,) = summarised(rows, pictures=77)
    assert (summary.pictures, summary.scores["auroc"].mean) == (300, pytest.approx(0.55))


def test_a_fold_is_easy_hard_or_typical() -> None:
    (summary,) = summarised(runs(0.99, 0.9, 0.905, 0.8))
    assert [folds.difficulty(summary, fold) for fold in ("0", "1", "3", "9")] == ["easy", "typical", "hard", ""]
    (two,) = summarised(runs(0.99, 0.9))
    assert folds.difficulty(two, "0") == "", "two folds say nothing"
    (equal,) = summarised(runs(0.9, 0.9, 0.9))
    assert folds.difficulty(equal, "0") == ""
