"""The report's pictures: each once, with links that open."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import blue, red

from stages.evaluation import gallery, label_issues
from stages.evaluation.predictions import right_examples
from stages.inference.predictor import Predictor
from tests.stages.evaluation.samples import predictions, write_shards


@pytest.mark.parametrize(
    ("url", "opens"),
    [
        ("https://derpibooru.org/images/1", True),
        ("http://93.184.216.34/1.png", True),
        ("http://sample.localhost/img/1.png", False),
        ("http://LOCALHOST:8080/1.png", False),
        ("http://localhost./1.png", False),
        ("http://127.0.0.1/1.png", False),
        ("http://[::1]/1.png", False),
        ("http://192.168.1.2/1.png", False),
        ("javascript:alert(1)", False),
        ("file:///etc/passwd", False),
        ("//board.example/1.png", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_a_link_opens_elsewhere_or_is_none(url: str, opens: bool) -> None:
    assert gallery.opens(url) == opens


def test_a_likely_label_error_is_no_mistake_and_each_picture_is_in_one_gallery(
    tmp_path: Path, predictor: Predictor
) -> None:
    threshold = predictor.sidecar.thresholds["flagged"]
    scores = [0.95] * 9 + [0.01, threshold - 0.05] + [0.02] * 9 + [0.99]
    truth = [True] * 11 + [False] * 10
    split = predictions(scores, truth)
    issues = label_issues.find(split, predictor.sidecar)
    assert {issue.row for issue in issues} == {9, 20}
    folder = write_shards(tmp_path, [red()] * 10 + [blue()] * 11)
    galleries = gallery.build(split, [*issues, *issues], folder, predictor, 12, 2)
    assert [(picture.image_id, picture.caption) for picture in galleries.mistakes] == [(10, "missed")]
    assert {picture.image_id for picture in galleries.issues} == {9, 20}
    assert len(galleries.issues) == 2
    right = {picture.image_id: picture.caption for picture in galleries.right}
    assert sorted(right.values()) == ["found", "found", "left alone", "left alone"]
    assert not right.keys() & {9, 10, 20}
    assert [bool(picture.overlay) for picture in (*galleries.mistakes, *galleries.issues)] == [True, True, False]


def test_examples_that_were_right_reach_from_the_surest_to_the_threshold(predictor: Predictor) -> None:
    scores = [0.99, 0.97, 0.95, 0.93, 0.91, 0.01, 0.02, 0.03, 0.04, 0.05]
    examples = right_examples(predictions(scores, [True] * 5 + [False] * 5), predictor.sidecar, 4)
    assert [(row, positive) for row, _, _, positive in examples] == [(0, True), (4, True), (5, False), (9, False)]
