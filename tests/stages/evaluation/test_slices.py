"""Slices of the test split."""

from __future__ import annotations

from pathlib import Path

from tiny import animated, blue, red

from stages.evaluation import slices
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions, write_shards


def test_a_slice_has_the_recall_and_false_positive_rate_of_its_pictures(tmp_path: Path, predictor: Predictor) -> None:
    scores = [0.9, 0.9, 0.1, 0.9] * 10
    truth = [True, True, True, False] * 10
    odd = [["safe", "odd"] if image_id % 2 else ["safe"] for image_id in range(40)]
    moving = animated([blue(1), red(2)])
    folder = write_shards(tmp_path, [moving] * 10 + [blue()] * 30)
    results = {
        (part.kind, part.value): (part.pictures, part.positives, part.recall, part.false_positive_rate)
        for part in slices.measure(predictions(scores, truth, tags=odd), predictor.sidecar, folder, 0.95)
    }
    assert results["all", "all"] == (40, 30, 0.6667, 1.0)
    assert results["tag", "odd"] == (20, 10, 1.0, 1.0)
    assert results["animated", "yes"] == (10, 8, None, None), "rates over eight and two pictures would be noise"
    assert results["long side", "1 to 200"][0] == 40
    assert results["pictures of the artist", "over 30"][0] == 40


def test_origins_are_slices_of_their_own_and_no_tags(tmp_path: Path, predictor: Predictor) -> None:
    tags = [["artist:ann", "licence:gpl", f"origin:{'tango' if n < 12 else 'xfce'}", "safe"] for n in range(20)]
    split = predictions([0.9] * 20, [True] * 20, tags=tags)
    results = slices.measure(split, predictor.sidecar, write_shards(tmp_path, [blue()] * 20), 0.95)
    assert [(part.value, part.pictures) for part in results if part.kind == "origin"] == [("tango", 12)]
    assert [part.value for part in results if part.kind == "tag"] == ["safe"]


def test_slices_of_few_pictures_are_left_out(tmp_path: Path, predictor: Predictor) -> None:
    rare = [["rare"] if image_id < 9 else ["safe"] for image_id in range(20)]
    results = slices.measure(
        predictions([0.9] * 20, [True] * 20, tags=rare), predictor.sidecar, write_shards(tmp_path, [blue()] * 20), 0.95
    )
    assert {part.value for part in results if part.kind == "tag"} == {"safe"}


def test_of_equally_frequent_tags_the_first_by_name_are_slices(tmp_path: Path, predictor: Predictor) -> None:
    names = [f"tag {number}" for number in range(100, 140)]
    split = predictions([0.9] * 20, [True] * 20, tags=[[*reversed(names), "safe"]] * 20)
    results = slices.measure(split, predictor.sidecar, write_shards(tmp_path, [blue()] * 20), 0.95)
    assert [part.value for part in results if part.kind == "tag"] == sorted(["safe", *names])[: slices.TAGS]


def test_a_rate_over_no_pictures_is_none(tmp_path: Path, predictor: Predictor) -> None:
    folder = write_shards(tmp_path, [blue()] * 10)
    (whole, *_) = slices.measure(predictions([0.9] * 10, [True] * 10), predictor.sidecar, folder, 0.95)
    assert (whole.recall, whole.false_positive_rate) == (1.0, None)


def test_a_rate_has_an_interval(tmp_path: Path, predictor: Predictor) -> None:
    scores, truth = [0.9, 0.1] * 15, [True] * 30
    (whole, *_) = slices.measure(
        predictions(scores, truth), predictor.sidecar, write_shards(tmp_path, [blue()] * 30), 0.95
    )
    assert whole.recall == 0.5
    assert (whole.recall_low, whole.recall_high) == (0.3315, 0.6685), "Wilson's, of 15 of 30"
