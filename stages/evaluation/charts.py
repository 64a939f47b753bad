"""The report's charts as SVG: no fixed colours, which are the style sheet's, and no text in the letters of a font."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluation.curves import Band, Bin, Curve
from stages.evaluation.thresholds import FALSE_POSITIVE_RATE, Steps

WIDTH, HEIGHT = 400, 272
"""Of a chart, in units that are pixels on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 44, 388, 12, 230
"""Of the area in its axes."""
ZOOMS = (0.0, 0.5, 0.8, 0.9)
"""Where the axes of precision and recall may start."""
HISTOGRAM_BARS = 40
SERIES = ("a", "b", "c", "d")
"""Classes of lines."""


@dataclass(frozen=True)
class Axis:
    """A scale from values to coordinates."""

    title: str
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """A value's coordinate; one outside the axis is moved to its end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def described(self) -> str:
        """What the page's script needs to place a point, for an attribute."""
        return html.escape(json.dumps([self.log, self.low, self.high, self.start, self.end]))


def horizontal(title: str, low: float, high: float, ticks: Iterable[float], *, log: bool = False) -> Axis:
    return Axis(title, low, high, LEFT, RIGHT, tuple((tick, _number(tick)) for tick in ticks), log)


def vertical(title: str, low: float, high: float, ticks: Iterable[float]) -> Axis:
    return Axis(title, low, high, BOTTOM, TOP, tuple((tick, _number(tick)) for tick in ticks))


def _number(value: float) -> str:
    """`.05`, `0.5`, `1`, `200`: as short as it is exact."""
    return f"{value:g}"


def _linear(low: float, high: float, count: int = 5) -> list[float]:
    """Round ticks, some `count` of them, from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def roc(curve: Curve, band: Band, negatives: int, own: tuple[float, float]) -> str:
    """Recall by false positive rate, which is logarithmic: a model worth using is at its far left.

    Args:
        curve: of false positive rates and recalls.
        band: of the curve.
        negatives: the fewer, the shorter the axis.
        own: the model's false positive rate and recall at its threshold.
    """
    powers = min(5, max(2, math.ceil(math.log10(max(negatives, 1)))))
    low = 10.0**-powers
    x = horizontal("false positive rate (log scale)", low, 1, [10.0**power for power in range(-powers, 1)], log=True)
    # Where the axis starts, the curve has risen already.
    risen = float(curve[curve[:, 0] <= low, 1].max(initial=0))
    bottom = max(zoom for zoom in ZOOMS if zoom == 0 or zoom <= min(risen, own[1]) - 0.05)
    y = vertical("recall", bottom, 1, _linear(bottom, 1))
    guide = x(FALSE_POSITIVE_RATE)
    marks = [
        _band(band, x, y),
        f'<path class="guide" d="M{guide} {TOP}V{BOTTOM}"/>',
        f'<text class="note" x="{guide + 4}" y="{BOTTOM - 6}">1 %</text>',
        _line(curve, x, y, "a"),
        _dot(own, x, y),
    ]
    return _chart("ROC: recall by false positive rate", x, y, marks)


def precision_recall(curve: Curve, band: Band, own: tuple[float, float]) -> str:
    """Precision by recall, on axes that start where the curve begins to fall.

    Args:
        curve: of recalls and precisions.
        band: of the curve.
        own: the model's recall and precision at its threshold.
    """
    recall, precision = curve[:, 0], curve[:, 1]
    # Nothing happens in what is cut off: up to there, precision is near 1, and the threshold is not there either.
    left = max(
        zoom
        for zoom in ZOOMS
        if zoom == 0 or (zoom <= own[0] - 0.05 and (precision[(recall > 0) & (recall <= zoom)] > 0.95).all())
    )
    bottom = max(zoom for zoom in ZOOMS if zoom == 0 or zoom <= min(own[1], precision[recall <= own[0]].min()) - 0.05)
    x, y = horizontal("recall", left, 1, _linear(left, 1)), vertical("precision", bottom, 1, _linear(bottom, 1))
    ascending = curve[np.lexsort((-precision, recall))]
    ascending = ascending[ascending[:, 0] >= left]
    # The line leaves the axes where precision first falls below them, and comes back no more.
    below = np.flatnonzero(ascending[:, 1] < bottom)
    seen = ascending[: below[0] + 1] if len(below) else ascending
    return _chart("Precision by recall", x, y, [_band(band, x, y), _line(seen, x, y, "a"), _dot(own, x, y)])


def reliability(parts: list[Bin]) -> str:
    """The fraction of positives by mean score, a dot a bin with its interval; the larger, the more pictures."""
    x, y = (make(title, 0, 1, _linear(0, 1)) for make, title in ((horizontal, "mean score"), (vertical, "positives")))
    most = max(part.pictures for part in parts)
    marks = [f'<path class="guide" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>']
    for part in parts:
        radius = 3 + 5 * math.sqrt(part.pictures / most)
        at = x(part.mean_score)
        marks.append(f'<path class="whisker" d="M{at} {y(part.fraction_low)}V{y(part.fraction_high)}"/>')
        marks.append(
            f'<circle class="bin" cx="{at}" cy="{y(part.fraction)}" r="{radius:.1f}"><title>{part.pictures} pictures '
            f"with scores from {part.low:g} to {part.high:g}: {part.fraction:.2f} positives</title></circle>"
        )
    return _chart("Reliability: fraction of positives by mean score", x, y, marks)


def histogram(label: str, counts: Steps) -> str:
    """Back-to-back histograms of one label's scores: positives above the line, negatives below it."""
    x = horizontal("score", 0, 1, _linear(0, 1))
    sides = []
    places = np.minimum((np.array(counts.thresholds) * HISTOGRAM_BARS + 1e-9).astype(int), HISTOGRAM_BARS - 1)
    for pictures in (counts.positives, counts.negatives):
        sides.append(np.bincount(places, weights=pictures, minlength=HISTOGRAM_BARS))
    most = max(1.0, float(max(side.max() for side in sides)))
    middle, reach = (TOP + BOTTOM) / 2, (BOTTOM - TOP) / 2
    marks = []
    width = round((RIGHT - LEFT) / HISTOGRAM_BARS - 1, 2)
    for kind, side, sign in (("positive", sides[0], -1), ("negative", sides[1], 1)):
        for place, count in enumerate(side.tolist()):
            if count:
                height = round(max(1.5, math.log1p(count) / math.log1p(most) * (reach - 4)), 1)
                top = middle - height - 0.5 if sign < 0 else middle + 0.5
                marks.append(
                    f'<rect class="{kind}" x="{x(place / HISTOGRAM_BARS) + 0.5:.1f}" y="{top:.1f}" width="{width}" '
                    f'height="{height}" rx="1"><title>{count:.0f} pictures</title></rect>'
                )
    own, name = x(counts.thresholds[counts.own]), html.escape(_shortened(label))
    marks += [
        f'<path class="axis" d="M{LEFT} {middle}H{RIGHT}"/>',
        f'<text class="note" x="{LEFT + 6}" y="{TOP + 10}">{name}</text>',
        f'<text class="note" x="{RIGHT - 4}" y="{BOTTOM - 6}" text-anchor="end">not {name}</text>',
        f'<path class="own" data-line="" d="M0 {TOP}V{BOTTOM}" transform="translate({own} 0)"/>',
    ]
    ticks = tuple(
        (sign * math.log1p(10.0**power), _number(10.0**power))
        for sign in (-1, 1)
        for power in range(1, 7)
        if 10.0**power <= most
    )
    edge = math.log1p(most) * reach / (reach - 4)
    y = Axis("pictures (log scale)", -edge, edge, BOTTOM, TOP, ticks)
    return _chart(f"Scores of {label}", x, y, marks)


def lines(title: str, series: dict[str, Curve], x_title: str) -> str:
    """Lines with a legend below them: `lines("Loss", {"train": points}, "step")`."""
    points = np.concatenate(list(series.values()))
    (left, bottom), (right, top) = points.min(0).tolist(), points.max(0).tolist()
    gap = (top - bottom) * 0.05 or abs(top) * 0.05 or 1.0
    x = horizontal(x_title, min(0.0, left), right or 1.0, _linear(min(0.0, left), right or 1.0, 4))
    y = vertical("", bottom - gap, top + gap, _linear(bottom - gap, top + gap))
    marks = [_line(curve, x, y, kind) for kind, curve in zip(SERIES, series.values(), strict=False)]
    return _chart(title, x, y, marks, legend=list(series))


def _chart(title: str, x: Axis, y: Axis, marks: Sequence[str], legend: Sequence[str] = ()) -> str:
    """Draw marks in their axes."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        f'data-x="{x.described()}" data-y="{y.described()}">'
    ]
    for value, text in y.ticks:
        at = y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{text}</text>')
    for value, text in x.ticks:
        at = x(value)
        anchor = "end" if at > RIGHT - 8 else "middle"
        parts.append(f'<path class="grid" d="M{at} {TOP}V{BOTTOM}"/>')
        parts.append(f'<text x="{min(at, WIDTH - 2)}" y="{BOTTOM + 15}" text-anchor="{anchor}">{text}</text>')
    parts += marks
    parts.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    at, anchor = (RIGHT, "end") if legend else ((LEFT + RIGHT) / 2, "middle")
    parts.append(f'<text class="title" x="{at}" y="{HEIGHT - 8}" text-anchor="{anchor}">{html.escape(x.title)}</text>')
    if y.title:
        centre = (TOP + BOTTOM) / 2
        parts.append(
            f'<text class="title" transform="translate(10 {centre}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(y.title)}</text>"
        )
    at = LEFT
    for name, kind in zip(legend, SERIES, strict=False):
        parts.append(f'<path class="line {kind}" d="M{at} {HEIGHT - 12}h14"/>')
        parts.append(f'<text x="{at + 19}" y="{HEIGHT - 8}">{html.escape(name)}</text>')
        at += 36 + 6 * len(name)
    return "".join([*parts, "</svg>"])


def _line(curve: Curve, x: Axis, y: Axis, kind: str) -> str:
    points = "L".join(f"{x(left)} {y(up)}" for left, up in curve.tolist())
    return f'<path class="line {kind}" d="M{points}"/>'


def _band(band: Band, x: Axis, y: Axis) -> str:
    there = [f"{x(left)} {y(up)}" for left, up in zip(band.x.tolist(), band.high.tolist(), strict=True)]
    back = [f"{x(left)} {y(up)}" for left, up in zip(band.x.tolist(), band.low.tolist(), strict=True)]
    return f'<path class="band" d="M{"L".join([*there, *reversed(back)])}Z"/>'


def _dot(own: tuple[float, float], x: Axis, y: Axis) -> str:
    return f'<circle class="own" data-dot="" cx="{x(own[0])}" cy="{y(own[1])}" r="5"/>'


def _shortened(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
