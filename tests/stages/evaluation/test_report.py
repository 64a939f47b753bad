"""What the report says in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stages.evaluation import folds, report
from stages.evaluation.folds import Row
from tests.stages.evaluation import samples


@pytest.fixture(scope="module")
def data() -> report.ReportData:
    return samples.three_classes()


def run(
    data: report.ReportData, group_by: str, *scores: float, pictures: int = 30, model: str = "mini_xception"
) -> list[Row]:
    checksum = folds.checksum(data.sidecar.policy)
    return [
        Row(
            "sample.localhost", "three", checksum, group_by, str(fold), 0, model, "none", pictures, 40, score, 0.5, 0.25
        )
        for fold, score in enumerate(scores)
    ]


def findings(data: report.ReportData, *runs: list[Row]) -> list[str]:
    known = report.other_folds(data.predictions, data.sidecar, data.split, [row for rows in runs for row in rows])
    return report.verdict(replace(data, folds=known)).findings


def test_without_other_runs_it_says_that_nothing_was_measured(data: report.ReportData) -> None:
    verdict = report.verdict(data)
    # Of nude, and of gore, eight of ten score .8, and so do two others of 20: at most 1 % of 20 is none.
    assert verdict.headline == "Misses nearly all of what its 2 labels name: 0\u00a0% at 1\u00a0% false alarms"
    assert verdict.findings[0].startswith(
        "The figures are means over the labels. The weakest is nude, with a recall of 0 %"
    )
    assert "On new artists it has not been measured: expect less than here." in verdict.findings
    assert verdict.findings[-1].startswith("The test split has few positives (10 nude, 10 gore & <b>)")


def test_folds_are_said_to_be_easy_or_hard_and_new_origins_to_be_what_they_are(data: report.ReportData) -> None:
    content, origin = run(data, "content", 0.99, 0.9, 0.91, 0.92, 0.9), run(data, "origin", 0.8, 0.6)
    said = findings(data, content, origin)
    assert said[1] == (
        "On new pictures, mean and range of 5 folds: AUROC 0.924 (0.900 to 0.990), average precision 0.500 (0.500 to "
        "0.500), recall at 1 % false alarms 0.250 (0.250 to 0.250). This fold is one of the easy ones: expect less "
        "elsewhere."
    )
    assert any(
        one.startswith("On new origins, mean and range of 2 folds: AUROC 0.700 (0.600 to 0.800)") for one in said
    )
    hard = replace(data, split=data.split | {"fold": 1})
    assert "one of the hard ones" in findings(hard, run(data, "content", 0.99, 0.8, 0.99))[1]


def test_runs_on_another_data_set_are_said_to_be_and_another_models_are_not_this_ones(data: report.ReportData) -> None:
    older = findings(data, run(data, "content", 0.99, 0.9, 0.8, pictures=1200))
    assert older[1].endswith("That was measured on 1,200 pictures; this data set has 30.")
    assert "easy" not in older[1]
    assert findings(data, run(data, "content", 0.99, 0.9, model="probe")) == report.verdict(data).findings


def test_the_model_comes_first_and_the_baseline_next(data: report.ReportData) -> None:
    runs = [row for model in ("probe", "aaa", "mini_xception") for row in run(data, "content", 0.9, model=model)]
    other = replace(data.sidecar, params={"model": {"name": "probe", "backbone": "none"}})
    known = report.other_folds(data.predictions, other, data.split, runs)
    assert [one.model for one in known] == ["probe", "mini_xception", "aaa"]
