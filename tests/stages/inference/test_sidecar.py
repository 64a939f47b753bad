"""The side-car: written, read, refused if it does not fit; and how it turns scores into verdicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.inference.sidecar import Sidecar, deciding_label, verdict
from stages.workspace.errors import ModelError

Make = Callable[..., Sidecar]


@pytest.fixture
def several(sidecar: Make) -> Sidecar:
    return sidecar("multiclass", ("gore", "nude", "clean"), {"gore": 0.3, "nude": 0.5})


@pytest.fixture
def axes(sidecar: Make) -> Sidecar:
    return sidecar("multilabel", ("gross", "dark", "sad"), {"gross": 0.3, "dark": 0.5, "sad": 0.9})


def test_a_sidecar_that_is_read_and_written_again_has_equal_bytes(axes: Sidecar, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    axes.write(first)
    found = Sidecar.read(first)
    found.write(second)
    assert found == axes
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 2}, "the side-car has format 2 and resize rule letterbox, this code reads format 1"),
        ({"resize": "crop"}, "resize rule crop"),
        ({"thresholds": {"flagged": 0.5, "clean": 0.5}}, r"thresholds are for \['clean', 'flagged'\]"),
        ({"thresholds": {}}, r"its labels are \['flagged', 'clean'\]; train again"),
        ({"labels": None}, "no side-car of this code's format 1"),
        ({"surprise": 1}, "no side-car of this code's format 1"),
    ],
    ids=["format", "resize", "a threshold too many", "no threshold", "no labels", "unknown key"],
)
def test_a_sidecar_that_does_not_fit_is_refused(
    sidecar: Make, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "moderator.json"
    file.write_text(json.dumps(dataclasses.asdict(sidecar()) | changed))
    with pytest.raises(ModelError, match=said):
        Sidecar.read(file)


def test_a_sidecar_without_a_precision_is_of_fp32(sidecar: Make, tmp_path: Path) -> None:
    file = tmp_path / "moderator.json"
    values = dataclasses.asdict(sidecar())
    del values["precision"], values["auroc"]
    file.write_text(json.dumps(values))
    assert (Sidecar.read(file).precision, Sidecar.read(file).auroc) == ("fp32", {})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b'"text"', b"{}"])
def test_a_file_that_is_no_sidecar_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "moderator.json"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"moderator\.json"):
        Sidecar.read(file)


def test_a_missing_sidecar_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="make one with `dvc repro train`, or get it with `dvc pull`"):
        Sidecar.read(tmp_path / "moderator.json")


@pytest.mark.parametrize(("score", "expected"), [(0.4, "flagged"), (0.9, "flagged"), (0.399, "clean")])
def test_a_binary_verdict_depends_on_the_threshold(sidecar: Make, score: float, expected: str) -> None:
    house = sidecar("binary", ("flagged", "clean"), {"flagged": 0.4})
    assert verdict({"flagged": score, "clean": 1 - score}, house) == expected
    assert deciding_label({"flagged": score, "clean": 1 - score}, house) == "flagged", (
        "the harmless label never decides"
    )


@pytest.mark.parametrize(
    ("scores", "label", "expected"),
    [
        ((0.31, 0.45, 0.24), "gore", "gore"),  # nude scores higher, but under its threshold
        ((0.32, 0.60, 0.08), "nude", "nude"),
        ((0.20, 0.10, 0.70), "gore", "clean"),
        ((0.05, 0.25, 0.70), "nude", "clean"),
        ((0.30, 0.10, 0.60), "gore", "gore"),  # a label counts at its threshold, whatever the harmless one scores
    ],
)
def test_a_multiclass_verdict_is_the_highest_over_its_threshold(
    several: Sidecar, scores: tuple[float, ...], label: str, expected: str
) -> None:
    named = dict(zip(several.labels, scores, strict=True))
    assert (deciding_label(named, several), verdict(named, several)) == (label, expected)


@pytest.mark.parametrize(
    ("scores", "label", "expected"),
    [
        ((0.3, 0.49, 0.95), "sad", "gross+sad"),
        ((0.3, 0.5, 0.9), "sad", "gross+dark+sad"),
        ((0.1, 0.2, 0.8), "sad", "none"),
        ((0.4, 0.2, 0.8), "gross", "gross"),
    ],
)
def test_a_multilabel_verdict_joins_all_labels_over_their_thresholds(
    axes: Sidecar, scores: tuple[float, ...], label: str, expected: str
) -> None:
    named = dict(zip(axes.labels, scores, strict=True))
    assert (deciding_label(named, axes), verdict(named, axes)) == (label, expected)
