"""Slices of the test split."""

from __future__ import annotations

from pathlib import Path

from tiny import animated, blue, red

from stages.evaluation import slices
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions, write_shards


def test_a_slice_has_the_recall_and_false_positive_rate_of_its_pictures(tmp_path: Path, predictor: Predictor) -> None:
    scores = [0.9, 0.9, 0.1, 0.9] * 5
    truth = [True, True, True, False] * 5
    odd = [["safe", "odd"] if image_id % 2 else ["safe"] for image_id in range(20)]
    moving = animated([blue(1), red(2)])
    folder = write_shards(tmp_path, [moving] * 10 + [blue()] * 10)
    results = {
        (part.kind, part.value): (part.pictures, part.positives, part.recall, part.false_positive_rate)
        for part in slices.measure(predictions(scores, truth, tags=odd), predictor.sidecar, folder)
    }
    assert results["all", "all"] == (20, 15, 0.6667, 1.0)
    assert results["tag", "odd"] == (10, 5, 1.0, 1.0)
    assert results["animated", "yes"][:2] == (10, 8)
    assert results["long side", "1 to 200"][0] == 20
    assert results["pictures of the artist", "11 to 30"][0] == 20


def test_origins_are_slices_of_their_own_and_no_tags(tmp_path: Path, predictor: Predictor) -> None:
    tags = [["artist:ann", "licence:gpl", f"origin:{'tango' if n < 12 else 'xfce'}", "safe"] for n in range(20)]
    split = predictions([0.9] * 20, [True] * 20, tags=tags)
    results = slices.measure(split, predictor.sidecar, write_shards(tmp_path, [blue()] * 20))
    assert [(part.value, part.pictures) for part in results if part.kind == "origin"] == [("tango", 12)]
    assert [part.value for part in results if part.kind == "tag"] == ["safe"]


def test_slices_of_few_pictures_are_left_out(tmp_path: Path, predictor: Predictor) -> None:
    rare = [["rare"] if image_id < 9 else ["safe"] for image_id in range(20)]
    results = slices.measure(
        predictions([0.9] * 20, [True] * 20, tags=rare), predictor.sidecar, write_shards(tmp_path, [blue()] * 20)
    )
    assert {part.value for part in results if part.kind == "tag"} == {"safe"}


def test_of_equally_frequent_tags_the_first_by_name_are_slices(tmp_path: Path, predictor: Predictor) -> None:
    names = [f"tag {number}" for number in range(100, 140)]
    split = predictions([0.9] * 20, [True] * 20, tags=[[*reversed(names), "safe"]] * 20)
    results = slices.measure(split, predictor.sidecar, write_shards(tmp_path, [blue()] * 20))
    assert [part.value for part in results if part.kind == "tag"] == sorted(["safe", *names])[: slices.TAGS]


def test_a_rate_over_no_pictures_is_none(tmp_path: Path, predictor: Predictor) -> None:
    folder = write_shards(tmp_path, [blue()] * 10)
    (whole, *_) = slices.measure(predictions([0.9] * 10, [True] * 10), predictor.sidecar, folder)
    assert (whole.recall, whole.false_positive_rate) == (1.0, None)
