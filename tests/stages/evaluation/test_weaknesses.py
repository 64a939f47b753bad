"""Where a model fails: slices, changed pictures, likely wrong labels, and what a score hangs on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny import SIZE, animated, blue, red, redness

from stages.evaluation import label_issues, robustness, saliency, slices
from stages.evaluation.predictions import Predictions
from stages.inference.decoding import pixels
from stages.inference.predictor import Predictor
from stages.workspace import shards


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(redness(tmp_path_factory.mktemp("model") / "moderator.onnx"))


def board(folder: Path, pictures: list[bytes]) -> Path:
    facts = {"sha256": "", "width": 64, "height": 64, "format": "png"}
    shards.write(
        folder / shards.name(0), ({"image_id": place, "bytes": data, **facts} for place, data in enumerate(pictures))
    )
    return folder


def predictions(scores: list[float], truth: list[bool], **columns: list[object]) -> Predictions:
    count = len(scores)
    table = {
        "image_id": list(range(count)),
        "artist": ["ann"] * count,
        "url": [f"http://sample.localhost/{place}.png" for place in range(count)],
        "tags": [["safe"]] * count,
        "width": [64] * count,
        "height": [64] * count,
        "format": ["png"] * count,
        "group": list(range(count)),
        **columns,
    }
    both = np.stack([scores, 1 - np.array(scores)], 1).astype(np.float32)
    flags = np.stack([truth, ~np.array(truth)], 1)
    return Predictions(pa.table(table), flags, both, ["flagged" if each >= 0.6 else "clean" for each in scores])


def test_a_slice_tells_recall_and_false_alarms_of_its_part(tmp_path: Path, predictor: Predictor) -> None:
    scores = [0.9, 0.9, 0.1, 0.9] * 5
    truth = [True, True, True, False] * 5
    odd = [["safe", "odd"] if place % 2 else ["safe"] for place in range(20)]
    moving = animated([blue(1), red(2)])
    folder = board(tmp_path, [moving] * 10 + [blue()] * 10)
    found = slices.sliced(predictions(scores, truth, tags=odd), predictor.sidecar, folder)
    told = {(each.kind, each.value): (each.pictures, each.positives, each.recall, each.false_alarms) for each in found}
    assert told["all", "all"] == (20, 15, 0.6667, 1.0)
    assert told["tag", "odd"] == (10, 5, 1.0, 1.0)
    assert told["animated", "yes"][:2] == (10, 8)
    assert told["long side", "1 to 200"][0] == 20
    assert told["pictures of the artist", "11 to 30"][0] == 20


def test_a_part_of_few_pictures_is_not_told_of(tmp_path: Path, predictor: Predictor) -> None:
    rare = [["rare"] if place < 9 else ["safe"] for place in range(20)]
    found = slices.sliced(
        predictions([0.9] * 20, [True] * 20, tags=rare), predictor.sidecar, board(tmp_path, [blue()] * 20)
    )
    assert {each.value for each in found if each.kind == "tag"} == {"safe"}


def test_a_share_of_none_is_not_made_up(tmp_path: Path, predictor: Predictor) -> None:
    (whole, *_) = slices.sliced(predictions([0.9] * 10, [True] * 10), predictor.sidecar, board(tmp_path, [blue()] * 10))
    assert (whole.recall, whole.false_alarms) == (1.0, None)


def test_a_model_of_colour_loses_all_without_colour_and_nothing_mirrored(tmp_path: Path, predictor: Predictor) -> None:
    pictures = [red(seed) for seed in range(6)] + [blue(seed) for seed in range(6)]
    made = predictions([0.98] * 6 + [0.02] * 6, [True] * 6 + [False] * 6)
    found = robustness.tried(made, predictor, board(tmp_path, pictures), 6, 1)
    told = {each.change: (each.recall, each.drop, each.false_alarms) for each in found}
    assert list(told) == list(robustness.CHANGES)
    assert told["unchanged"] == (1.0, 0.0, 0.0)
    assert told["grey"] == (0.0, 1.0, 0.0)
    for change in ("mirrored", "half size", "crop", "jpeg 30", "text"):
        assert told[change] == (1.0, 0.0, 0.0)
    assert robustness.drops(found)["jpeg_30"] == 0.0


def test_changes_are_tried_on_as_many_pictures_of_each_side_as_asked(predictor: Predictor) -> None:
    made = predictions([0.5] * 50, [place < 8 for place in range(50)])
    chosen = robustness.sample(made, predictor.sidecar, 5)
    assert ((chosen < 8).sum(), (chosen >= 8).sum()) == (5, 5)
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_a_label_that_the_model_denies_as_surely_as_others_is_an_issue(predictor: Predictor) -> None:
    scores = [0.95, 0.9, 0.9, 0.02, 0.05, 0.1, 0.1, 0.97]
    found = label_issues.issues(predictions(scores, [True] * 4 + [False] * 4), predictor.sidecar)
    assert [(each.place, each.given) for each in found] == [(3, True), (7, False)]
    (first, second) = label_issues.rows(found, predictions(scores, [True] * 4 + [False] * 4))
    assert first[:4] == [3, "flagged", "flagged", "not flagged"]
    assert second[:4] == [7, "flagged", "not flagged", "flagged"]


def test_a_score_hangs_on_the_part_that_makes_it(predictor: Predictor) -> None:
    square = np.full((SIZE, SIZE, 3), 128, np.uint8)
    square[:8, :8] = (255, 128, 0)
    places = saliency.attributed(square, predictor, 0)
    assert places.shape == (SIZE, SIZE)
    assert places[:8, :8].min() > 0
    assert abs(places[16:, 16:]).max() < 1e-6
    against = saliency.attributed(square, predictor, 1)
    assert against[:8, :8].max() < 0
    overlay = saliency.overlaid(square, places)
    assert overlay.dtype == np.uint8
    assert overlay[2, 2, 0] > overlay[2, 2, 2], "red speaks for the label"
    assert overlay[20, 20].tolist() == [128, 128, 128]


def test_a_picture_is_the_same_before_each_change() -> None:
    clear = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    file = io.BytesIO()
    clear.save(file, "PNG")
    unchanged, *_ = robustness._changed(128, file.getvalue())
    assert np.array_equal(pixels(unchanged, SIZE), pixels(file.getvalue(), SIZE))
