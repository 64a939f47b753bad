"""Curves, bins and charts of any scores."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation import charts, curves, thresholds

ROWS = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=80).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)


@given(ROWS, st.floats(0.01, 0.99), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_charts_of_any_scores_are_drawn_inside_their_axes(
    rows: list[tuple[float, bool]], own: float, size: int
) -> None:
    scores, truth = np.array([score for score, _ in rows], np.float32), np.array([flag for _, flag in rows])
    groups = np.arange(len(rows)) // size
    steps = thresholds.steps(scores, truth, own)
    found, alarms, missed, negatives = steps.counts(steps.own)
    recall, rate = found / (found + missed), alarms / (alarms + negatives)
    precision = found / (found + alarms) if found + alarms else 1.0
    of_roc, of_precision = curves.bands(scores, truth, groups, 0.9, 0)
    bins = curves.bins(scores, truth, groups, 0.9)
    for svg in (
        charts.roc(curves.roc(scores, truth), of_roc, int((~truth).sum()), (rate, recall)),
        charts.precision_recall(curves.precision_recall(scores, truth), of_precision, (recall, precision)),
        charts.reliability(bins),
        charts.histogram("<b>&", steps),
    ):
        root = ET.fromstring(svg)
        assert "nan" not in svg
        for path in root.iter("path"):
            points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
            assert all(0 <= float(x) <= charts.WIDTH and 0 <= float(y) <= charts.HEIGHT for x, y in points)


@given(ROWS)
def test_reliability_bins_hold_each_picture_once_and_none_is_small(rows: list[tuple[float, bool]]) -> None:
    scores, truth = np.array([score for score, _ in rows], np.float32), np.array([flag for _, flag in rows])
    bins = curves.bins(scores, truth, np.arange(len(rows)), 0.9)
    assert sum(part.pictures for part in bins) == len(rows)
    assert [part.low for part in bins] == [0, *(part.high for part in bins[:-1])]
    assert bins[-1].high == 1
    if len(rows) >= curves.MIN_PICTURES:
        assert min(part.pictures for part in bins) >= curves.MIN_PICTURES
    assert all(part.fraction_low <= part.fraction <= part.fraction_high for part in bins)


def test_a_band_holds_its_curve() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(size=400) < 0.3
    scores = np.clip(generator.normal(0.35 + 0.3 * truth, 0.15), 0, 1).astype(np.float32)
    band, _ = curves.bands(scores, truth, np.arange(400), 0.95, 0)
    recalls = [thresholds.recall_at(scores, truth, rate) for rate in band.x]
    held = (band.low <= np.array(recalls) + 1e-9) & (np.array(recalls) <= band.high + 1e-9)
    assert held.mean() > 0.9
    assert (band.high - band.low).max() > 0.05


def test_a_line_of_one_value_and_ticks_of_any_range_are_drawn() -> None:
    flat = charts.lines("Loss", {"train": np.array([[0.0, 0.5], [10.0, 0.5]]), "<b>": np.array([[5.0, 0.5]])}, "step")
    assert "&lt;b&gt;" in flat
    ET.fromstring(flat)
    assert charts._linear(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert charts._linear(0.8, 1) == [0.8, 0.85, 0.9, 0.95, 1.0]
