"""A picture -> what recognises its copies: local features that propose, and a map of its edges that confirms.

A perceptual hash of the whole picture knows it scaled and compressed, and little else: a crop, a frame or a banner
moves every part of it. So a picture is described by parts: SIFT features (Lowe, 2004), each as a visual word and 64
signs (Jégou, Douze & Schmid, "Hamming Embedding and Weak Geometric Consistency", 2008). Two pictures that share some of
them in the same arrangement may be copies, and the arrangement says where the one lies in the other. Pictures with few
features are proposed by their PDQ hashes instead, whole and without what may be a frame. Then a coarse map of edges of
the one is compared with the other in that place. It knows where edges run, but neither colours nor contrast.

Features are upright, as copies mostly are; those of a mirrored picture are the same in another order. Nothing here
depends on the model: a moderator's decision outlives it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pdqhash
from numpy.typing import NDArray

from stages.inference.decoding import Pixels

SIDE = 256
"""Longer side to which a picture is scaled, px. All positions are in pixels of this."""
PAD = 12
"""Width of the grey frame that is put around it: the corners where stripes meet an edge become features, too."""
KEPT, ASKED = 48, 224
"""Features of a remembered picture, and of one that is looked up, at most."""
PROBES = 4
"""Visual words of each feature that are looked up; of a remembered one, the first is kept."""
CELL = 8
"""Side of a cell of the map of edges, px."""
RING = 1
"""Cells at the picture's edge that are left out: a frame around the copy, blurred, reaches into them."""
SIGMA = 1.6
"""Blur before edges are looked for, in pixels of half of `SIDE`."""
FLOOR = 3.0
"""Grey levels between a cell's neighbours from which on there is an edge."""
CAP = 60
"""Percentile of the strengths of edges at which they are capped: contrast says little."""
BLOCK = 4
"""Side in cells of the blocks that may be left out, as a line of text is local."""
LEFT_OUT = 0.1
"""Share of a picture's edges in these blocks."""
UNLIKE = 14
"""Grey levels within which a pixel has the colour of a frame."""
MIN_PART = 12
"""Shorter side of what may be a framed picture, px."""
FLIPPED = 5
"""Place of the mirrored picture's hash among those that `pdqhash.compute_dihedral` gives."""
HEADER = struct.Struct("<BHHH32s")
FORMAT = 1
MAX_FINGERPRINT = HEADER.size + KEPT * 16 + (SIDE // CELL) ** 2
"""Bytes of the largest fingerprint."""

Words = NDArray[np.uint16]
Signs = NDArray[np.uint64]
Points = NDArray[np.float32]
Edges = NDArray[np.complex64]
Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Turn and scale [2, 2], and shift [2], from the pixels of a remembered picture to those of one that is looked up."""
Box = tuple[int, int, int, int]
"""Left, top, width and height, px."""


class FingerprintError(ValueError):
    """Bytes that are no fingerprint."""


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of a picture: hashes of its parts, and where edges run in 32 x 32 cells."""

    width: int
    """Of the picture, scaled to `SIDE`, px."""
    height: int
    words: Words
    """[n] visual word of each feature."""
    signs: Signs
    """[n] 64 signs of each."""
    points: Points
    """[n, 3] its x, y and size, px."""
    edges: NDArray[np.uint8]
    """[rows, columns] of cells: five bits for the direction of the edge, three for its strength; 0 without one."""
    pdq: bytes
    """Meta's PDQ hash of the whole picture: 256 bits, which other tools know."""

    def to_bytes(self) -> bytes:
        """A layout of fixed order, at most `MAX_FINGERPRINT` bytes."""
        points = np.round(self.points * 4).clip(-(2**15), 2**15 - 1).astype("<i2")
        header = HEADER.pack(FORMAT, self.width, self.height, len(self.words), self.pdq)
        parts = (self.words.astype("<u2"), self.signs.astype("<u8"), points, self.edges)
        return header + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """The reverse of `to_bytes`, for bytes of any origin.

        Raises:
            FingerprintError: if they are none.
        """
        if not HEADER.size <= len(data) <= MAX_FINGERPRINT:
            raise FingerprintError("not a fingerprint: wrong length")
        version, width, height, count, pdq = HEADER.unpack_from(data)
        if version != FORMAT or not (8 <= width <= SIDE and 8 <= height <= SIDE) or count > KEPT:
            raise FingerprintError("not a fingerprint of this version")
        rows, columns = _grid(width, height)
        sizes = (count * 2, count * 8, count * 6, rows * columns)
        if len(data) != HEADER.size + sum(sizes):
            raise FingerprintError("not a fingerprint: wrong length")
        start, parts = HEADER.size, []
        for size in sizes:
            parts.append(data[start : start + size])
            start += size
        points: Points = (np.frombuffer(parts[2], "<i2").reshape(count, 3) / 4).astype(np.float32)
        if (points[:, 2] < 0.25).any() or (np.abs(points[:, :2]) > 2 * SIDE).any():
            raise FingerprintError("not a fingerprint: features outside of the picture")
        words, signs = np.frombuffer(parts[0], "<u2"), np.frombuffer(parts[1], "<u8")
        return cls(width, height, words, signs, points, np.frombuffer(parts[3], np.uint8).reshape(rows, columns), pdq)


@dataclass(frozen=True)
class Sighting:
    """A picture that is looked up."""

    fingerprint: Fingerprint
    words: Words
    """[2, n, PROBES] the nearest visual words of each feature, as it is and mirrored."""
    signs: Signs
    """[2, n]"""
    points: Points
    """[n, 3]"""
    luma: NDArray[np.uint8]
    """[height, width] grey, half as large as the scaled picture."""
    boxes: list[tuple[Box, bytes, bytes]] = field(default_factory=list)
    """The picture, and parts of it that something may frame, with their PDQ hashes, as they are and mirrored."""


@dataclass(frozen=True)
class _Codebook:
    """Learnt from features of 1,500 pictures of the sample board: their principal axes, and k-means in two halves."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    """[128, 32] principal axes, in two halves of equal weight."""
    centres: NDArray[np.float32]
    """[2, 256, 16] of clusters in each half: a pair of them is a visual word."""
    planes: NDArray[np.float32]
    """[64, 128] random directions."""
    medians: NDArray[np.float32]
    """[64] of features along these."""


@cache
def _codebook() -> _Codebook:
    with np.load(Path(__file__).with_name("codebook.npz")) as arrays:
        return _Codebook(**{name: arrays[name] for name in _Codebook.__dataclass_fields__})


@cache
def _sift() -> Any:
    cv2.setNumThreads(1)  # the processes that decode are as many as there are cores
    return cv2.SIFT.create(nfeatures=0, contrastThreshold=0.02, edgeThreshold=15)


def _mirrored_order() -> NDArray[np.int64]:
    order = np.arange(128).reshape(4, 4, 8)
    return order[:, ::-1][:, :, [(4 - place) % 8 for place in range(8)]].reshape(-1)


MIRRORED = _mirrored_order()
"""The values of a feature in the order that they have in the mirrored picture."""


def sight(picture: Pixels) -> Sighting:
    """Describe a picture, uint8 [height, width, 3]. Takes about 25 ms, so call it where pictures are decoded."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=method), np.uint8)
    grey = np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY), np.uint8)
    features, points = _features(grey, ASKED)
    words, signs = zip(*(_coded(each) for each in (features, features[:, MIRRORED])), strict=True)
    half = (max(4, size[0] // 2), max(4, size[1] // 2))
    luma = np.asarray(cv2.resize(grey, half, interpolation=cv2.INTER_AREA), np.uint8)
    edges, _ = edge_map(Luma(luma), (np.eye(2), np.zeros(2)), size)
    boxes = [(box, *_pdq(scaled, box)) for box in [(0, 0, *size), *framed(scaled)]]
    kept = Fingerprint(*size, words[0][:KEPT, 0], signs[0][:KEPT], points[:KEPT], _quantised(edges), boxes[0][1])
    return Sighting(kept, np.stack(words), np.stack(signs), points, luma, boxes)


def _features(grey: NDArray[np.uint8], count: int) -> tuple[NDArray[np.float32], Points]:
    """The strongest features, [n, 128], and their places, [n, 3], strongest first."""
    padded = cv2.copyMakeBorder(grey, PAD, PAD, PAD, PAD, cv2.BORDER_CONSTANT, value=(128,))
    best: dict[tuple[int, int, int], Any] = {}
    for point in _sift().detect(padded, None):
        key = (round(2 * point.pt[0]), round(2 * point.pt[1]), round(point.size))
        if key not in best or best[key].response < point.response:  # one of several directions
            best[key] = point
    # Large features survive a smaller copy.
    kept = sorted(best.values(), key=lambda point: -point.response * point.size**0.5)[:count]
    if not kept:
        return np.zeros((0, 128), np.float32), np.zeros((0, 3), np.float32)
    for point in kept:
        point.angle = 0.0
    kept, values = _sift().compute(padded, kept)
    points = np.array([(point.pt[0] - PAD, point.pt[1] - PAD, point.size) for point in kept], np.float32)
    return np.sqrt(values / np.maximum(1e-6, values.sum(1, keepdims=True))).astype(np.float32), points


def _coded(features: NDArray[np.float32]) -> tuple[Words, Signs]:
    """Visual words [n, PROBES], nearest first, and signs [n]."""
    count = len(features)
    if not count:
        return np.zeros((0, PROBES), np.uint16), np.zeros(0, np.uint64)
    book = _codebook()
    projected = (features - book.mean) @ book.axes
    near, distances = [], []
    for half, centres in zip((projected[:, :16], projected[:, 16:]), book.centres, strict=True):
        squared = (centres**2).sum(1) - 2 * half @ centres.T
        near.append(np.argpartition(squared, PROBES, 1)[:, :PROBES])
        distances.append(np.take_along_axis(squared, near[-1], 1))
    sums = (distances[0][:, :, None] + distances[1][:, None]).reshape(count, -1)
    pairs = (near[0][:, :, None] << 8 | near[1][:, None]).reshape(count, -1)
    nearest = np.argsort(sums, 1)[:, :PROBES]
    signs = np.packbits(features @ book.planes.T > book.medians, axis=1).view(np.uint64)[:, 0]
    return np.take_along_axis(pairs, nearest, 1).astype(np.uint16), signs


def _pdq(picture: Pixels, box: Box) -> tuple[bytes, bytes]:
    """The PDQ hash of a part of a picture, and the mirrored one's."""
    left, top, width, height = box
    hashes = pdqhash.compute_dihedral(np.ascontiguousarray(picture[top : top + height, left : left + width]))[0]
    plain, flipped = (np.packbits(hashes[place].astype(bool)).tobytes() for place in (0, FLIPPED))
    return plain, flipped


def framed(picture: Pixels) -> list[Box]:
    """Up to three parts of a picture that a frame, a screenshot or a banner may surround."""
    height, width = picture.shape[:2]
    boxes: list[Box] = []
    for corner in (picture[1, 1], picture[-2, -2], picture[-2, 1]):
        plain = np.abs(picture.astype(np.int16) - corner.astype(np.int16)).max(2) <= UNLIKE
        for share in (0.5, 0.95):  # of a row: with words on it, and without
            top, bottom = _longest_run(plain.mean(1) < share)
            columns = np.flatnonzero(plain[top:bottom].mean(0) < max(share, 0.9)) if bottom > top else np.zeros(0)
            if len(columns) < MIN_PART:
                continue
            left, right = int(columns[0]), int(columns[-1]) + 1
            rows = top + np.flatnonzero(plain[top:bottom, left:right].mean(1) < 0.97)
            if len(rows) < MIN_PART:
                continue
            box = (left, int(rows[0]), right - left, int(rows[-1] - rows[0]) + 1)
            known = any(max(abs(a - b) for a, b in zip(box, other, strict=True)) <= 3 for other in boxes)
            if 0.1 < box[2] * box[3] / (width * height) < 0.97 and not known:
                boxes.append(box)
    return boxes[:3]


def _longest_run(rows: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and end of the longest run of true values."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], rows.astype(np.int8), [0]])))
    if not len(steps):
        return 0, 0
    longest = int(np.argmax(steps[1::2] - steps[::2]))
    return int(steps[2 * longest]), int(steps[2 * longest + 1])


# Edges


class Luma:
    """A grey picture, blurred as much as the scale asks for at which it is compared."""

    def __init__(self, luma: NDArray[np.uint8]) -> None:
        self._luma = luma.astype(np.float32)
        self._blurred: dict[int, NDArray[np.float32]] = {}
        self.shape: tuple[int, int] = (luma.shape[0], luma.shape[1])

    def at(self, scale: float) -> NDArray[np.float32]:
        """The picture for a copy that is so much larger than what is remembered."""
        step = int(np.clip(np.round(4 * np.log2(max(scale, 0.01))), -8, 12))
        if step not in self._blurred:
            height, width = self.shape
            blurred = _blur(height, step) @ self._luma @ _blur(width, step).T
            self._blurred[step] = blurred.astype(np.float32, copy=False)
        return self._blurred[step]


@lru_cache(maxsize=1024)
def _blur(side: int, step: int) -> NDArray[np.float32]:
    """A matrix that blurs along one side, by a quarter of an octave more a step."""
    distances = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distances / (SIGMA * 2 ** (step / 4))) ** 2)
    normalised: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normalised


def _grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of a picture's map of edges."""
    return max(3, round(height / CELL)), max(3, round(width / CELL))


def edge_map(luma: Luma, place: Affine, size: tuple[int, int]) -> tuple[Edges, NDArray[np.bool_]]:
    """The edges in `luma` where a remembered picture of `size` lies.

    Returns:
        Complex [rows, columns]: the gradient in each cell, its length capped to 0 to 1; and which cells lie inside.
    """
    (rows, columns), (turn, shift) = _grid(*size), place
    x = (np.arange(columns, dtype=np.float32) + 0.5) * (size[0] / columns)
    y = (np.arange(rows, dtype=np.float32) + 0.5)[:, None] * (size[1] / rows)
    there_x = turn[0, 0] * x + turn[0, 1] * y + shift[0]
    there_y = turn[1, 0] * x + turn[1, 1] * y + shift[1]
    full_height, full_width = luma.shape
    inside = (there_x > 1) & (there_y > 1) & (there_x < 2 * full_width - 2) & (there_y < 2 * full_height - 2)
    cells = _bilinear(luma.at(_area(turn) ** 0.5), there_x / 2 - 0.5, there_y / 2 - 0.5)
    gradient = np.zeros(cells.shape, np.complex64)
    gradient[:, 1:-1] = cells[:, 2:] - cells[:, :-2]
    gradient[1:-1] += 1j * (cells[2:] - cells[:-2])
    whole = inside.copy()
    whole[:, 1:-1] &= inside[:, 2:] & inside[:, :-2]
    whole[1:-1] &= inside[2:] & inside[:-2]
    whole[:RING] = whole[-RING:] = False
    whole[:, :RING] = whole[:, -RING:] = False
    strength = np.abs(gradient)
    strong = whole & (strength > FLOOR)
    strengths = strength[strong]
    if not len(strengths):
        return np.zeros_like(gradient), whole
    place_of_cap = len(strengths) * CAP // 100
    cap = np.partition(strengths, place_of_cap)[place_of_cap]
    return gradient * (np.minimum(strength, cap) / cap / np.maximum(strength, 1e-6) * strong), whole


def _area(turn: NDArray[np.float64]) -> float:
    return float(abs(turn[0, 0] * turn[1, 1] - turn[0, 1] * turn[1, 0]))


def _bilinear(values: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    height, width = values.shape
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    right, down = x - column, y - row
    flat, at = values.ravel(), row * width + column
    above = flat[at] * (1 - right) + flat[at + 1] * right
    below = flat[at + width] * (1 - right) + flat[at + width + 1] * right
    blended: NDArray[np.float32] = (above * (1 - down) + below * down).astype(np.float32)
    return blended


def _quantised(edges: Edges) -> NDArray[np.uint8]:
    level = np.ceil(np.abs(edges) * 7 - 1e-3).clip(0, 7).astype(np.uint8)
    direction = (np.round(np.angle(edges) / (2 * np.pi) * 32).astype(np.int64) % 32).astype(np.uint8)
    return np.where(level > 0, direction << 3 | level, 0).astype(np.uint8)


LEVELS: Edges = ((np.arange(256) & 7) / 7 * np.exp(2j * np.pi * (np.arange(256) >> 3) / 32)).astype(np.complex64)
"""The reverse of `_quantised`."""


@dataclass(frozen=True)
class Agreement:
    """How far a picture is a copy of a remembered one, if it lies in a certain place."""

    similarity: float
    """Of their edges, 0 to 1, regardless of contrast; without `LEFT_OUT` of them, where it is lowest."""
    overlap: float
    """Share of the remembered picture that is seen."""
    coverage: float
    """Share of the other one that it covers."""
    edges: float
    """How many cells have an edge, by their strengths."""


def agreement(kept: Fingerprint, luma: Luma, place: Affine) -> Agreement:
    """Compare a remembered picture with one that is looked up, where it may lie."""
    theirs, inside = edge_map(luma, place, (kept.width, kept.height))
    ours = LEVELS[kept.edges] * inside
    cross = ours * theirs.conj()
    strengths = np.abs(ours), np.abs(theirs)
    # With twice the angle, so that an edge from dark to bright is one from bright to dark: colours may be others.
    twice = 2 * cross.real**2 / np.maximum(strengths[0] * strengths[1], 1e-6) - strengths[0] * strengths[1]
    rows, columns = (-(-side // BLOCK) * BLOCK for side in inside.shape)
    cells = np.zeros((3, rows, columns), np.float32)
    cells[:, : inside.shape[0], : inside.shape[1]] = twice, strengths[0] ** 2, strengths[1] ** 2
    common, our, their = cells.reshape(3, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).sum((2, 4)).reshape(3, -1)
    total = float(our.sum())
    similarity = 0.0
    if total > 0:
        worst = np.argsort(common - (our + their) / 2)
        used = worst[np.cumsum(our[worst]) > LEFT_OUT * total]
        similarity = float(common[used].sum() / (our[used].sum() * their[used].sum() + 1e-6) ** 0.5)
    coverage = _area(place[0]) * kept.width * kept.height / (4 * luma.shape[0] * luma.shape[1])
    possible = (inside.shape[0] - 2 * RING) * (inside.shape[1] - 2 * RING)
    return Agreement(max(0.0, min(similarity, 1.0)), float(inside.sum()) / max(1, possible), coverage, total)
