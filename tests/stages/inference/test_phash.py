"""What is inside a letterboxed picture, and its hash: the same for a picture that was saved anew."""

from __future__ import annotations

from typing import Any

import imagehash
import numpy as np
import pytest
from containers import drawing, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.inference.decoding import pixels
from stages.inference.frames import frames
from stages.inference.phash import inside, phash


@settings(deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([32, 33, 224]))
def test_inside_takes_away_what_letterboxing_added(width: int, height: int, size: int) -> None:
    square = pixels(encoded([Image.new("RGB", (width, height), "red")], "PNG"), size)
    assert (inside(square, width, height) == [255, 0, 0]).all()
    assert inside(square, width, height).size == (square == [255, 0, 0]).all(axis=2).sum() * 3


@settings(max_examples=25, deadline=None)
@given(width=st.integers(200, 3000), height=st.integers(200, 3000))
def test_inside_is_right_to_a_pixel_for_jpegs_that_are_decoded_small(width: int, height: int) -> None:
    square = pixels(encoded([Image.new("RGB", (width, height), "red")], "JPEG"), 224)
    across, down = ((square[..., 0] > 200) & (square[..., 1] < 60)).any(axis=0), (square[..., 1] < 60).any(axis=1)
    found = inside(square, width, height)
    assert abs(found.shape[1] - across.sum()) <= 1
    assert abs(found.shape[0] - down.sum()) <= 1


def hashed(data: bytes, size: int = 224) -> int:
    seen = frames(data, size)
    return phash(inside(seen.frames[0], seen.width, seen.height))


def differing(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_the_hash_is_imagehashs() -> None:
    image = drawing(3).resize((224, 224))
    assert phash(np.asarray(image)) == int(str(imagehash.phash(image)), 16)


def test_the_hash_is_of_64_bits_and_has_no_sign() -> None:
    found = [hashed(encoded([drawing(seed)], "PNG")) for seed in range(8)]
    assert len(set(found)) == 8
    assert all(0 <= each < 2**64 for each in found)
    assert any(each >= 2**63 for each in found)


@pytest.mark.parametrize("shape", [(300, 200), (120, 700), (700, 120), (224, 224), (1600, 1200)])
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 90}), ("WEBP", {}), ("PNG", {}), ("GIF", {})])
def test_a_picture_saved_anew_has_the_same_hash(shape: tuple[int, int], kind: str, options: dict[str, Any]) -> None:
    image = drawing(5, *shape)
    original = hashed(encoded([image], "PNG"))
    assert differing(original, hashed(encoded([image], kind, **options))) <= 2
    assert differing(original, hashed(encoded([image.resize((shape[0] // 2, shape[1] // 2))], kind, **options))) <= 4
    assert differing(original, hashed(encoded([drawing(6, *shape)], kind, **options))) > 12
