"""Perceptual hashes: they ignore borders, sizes and formats, and tell different pictures apart."""

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
from stages.inference.phash import hash_picture, inside, phash


@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([32, 33, 224]))
def test_inside_removes_what_letterboxing_added(width: int, height: int, size: int) -> None:
    square = pixels(encoded([Image.new("RGB", (width, height), "red")], "PNG"), size)
    assert (inside(square, width, height) == [255, 0, 0]).all()
    assert inside(square, width, height).size == (square == [255, 0, 0]).all(axis=2).sum() * 3


@settings(max_examples=25)
@given(width=st.integers(200, 3000), height=st.integers(200, 3000))
def test_inside_is_off_by_at_most_a_pixel_for_jpegs_in_draft_mode(width: int, height: int) -> None:
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


def test_the_hash_is_an_unsigned_64_bit_integer() -> None:
    found = [hashed(encoded([drawing(seed)], "PNG")) for seed in range(8)]
    assert len(set(found)) == 8
    assert all(0 <= each < 2**64 for each in found)
    assert any(each >= 2**63 for each in found)


@pytest.mark.parametrize("shape", [(300, 200), (120, 700), (700, 120), (224, 224), (1600, 1200)])
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 90}), ("WEBP", {}), ("PNG", {}), ("GIF", {})])
def test_a_picture_in_another_format_or_size_has_a_similar_hash(
    shape: tuple[int, int], kind: str, options: dict[str, Any]
) -> None:
    image = drawing(5, *shape)
    original = hashed(encoded([image], "PNG"))
    assert differing(original, hashed(encoded([image], kind, **options))) <= 2
    assert differing(original, hashed(encoded([image.resize((shape[0] // 2, shape[1] // 2))], kind, **options))) <= 4
    assert differing(original, hashed(encoded([drawing(6, *shape)], kind, **options))) > 12


def blobs(seed: int, side: int = 96) -> Image.Image:
    """A picture of smooth blobs, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    return encoded([image], kind, **options)


def test_the_hash_sees_content_and_neither_border_nor_what_transparency_hides() -> None:
    picture = blobs(3).convert("RGBA")
    picture.putalpha(Image.fromarray(np.tri(96, dtype=np.uint8) * 255))
    other = Image.fromarray(
        np.where(np.asarray(picture)[..., 3:] > 0, np.asarray(picture), [255, 0, 0, 0]).astype("u1")
    )
    assert hash_picture(encode(picture)) == hash_picture(encode(other))
    wide, tall = blobs(5).resize((400, 100)), blobs(5).resize((100, 400))
    assert (hash_picture(encode(wide)) ^ hash_picture(encode(tall))).bit_count() <= 4
    assert (hash_picture(encode(blobs(5))) ^ hash_picture(encode(blobs(6)))).bit_count() > 8


def test_the_hash_of_a_known_picture_stays_in_another_encoding() -> None:
    assert hash_picture(encode(blobs(1))) == 0xA1D6A939EC0C15F3
    assert hash_picture(encode(blobs(1), "JPEG", quality=60)) == 0xA1D6A939EC0C15F3


def test_a_picture_of_any_size_that_the_download_accepts_is_hashed() -> None:
    # 144 megapixels: split once had a cap of its own, 2^27 pixels, below what download.max_pixels may allow.
    small = encode(Image.linear_gradient("L"), "JPEG")
    large = encode(Image.linear_gradient("L").resize((12_000, 12_000)), "JPEG")
    assert hash_picture(large) == hash_picture(small)
