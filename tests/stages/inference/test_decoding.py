"""Decoding a picture: its pixels, and the errors of files that cannot be decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.inference.decoding import FORMATS, Caps, check, open_picture, pixels
from stages.workspace.errors import PictureError

RED, GREY = [255, 0, 0], [128, 128, 128]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_wide_picture_is_centred_between_grey_borders() -> None:
    seen = pixels(encoded(Image.new("RGB", (200, 100), "red")), 64, background=128)
    assert seen.shape == (64, 64, 3)
    assert seen.dtype == np.uint8
    assert (seen[16:48] == RED).all()
    assert (seen[:16] == GREY).all()
    assert (seen[48:] == GREY).all()


def test_a_tall_picture_keeps_at_least_a_pixel_of_width() -> None:
    seen = pixels(encoded(Image.new("RGB", (1, 900), "red")), 64)
    assert (seen[:, 31:33] == RED).any()


def test_transparent_parts_show_the_background_without_dark_edges() -> None:
    image = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 0, 64, 128))
    seen = pixels(encoded(image), 64, background=255)
    assert seen.min() >= 254, "the transparent half is black, and no black may show"


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255] * 3),
        ("L", 100, [100] * 3),
        ("LA", (100, 255), [100] * 3),
        ("P", 0, [0] * 3),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("I;16", 65535, [255] * 3),
        ("I;16", 25700, [100] * 3),
    ],
)
def test_every_mode_of_a_png_is_read(mode: str, colour: object, expected: list[int]) -> None:
    seen = pixels(encoded(Image.new(mode, (8, 8), colour)), 32)
    assert seen[16, 16].tolist() == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_mode_of_a_jpeg_is_read(mode: str) -> None:
    assert pixels(encoded(Image.new(mode, (640, 480)), "JPEG"), 32).shape == (32, 32, 3)


def test_the_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste((0, 0, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    seen = pixels(encoded(image, "JPEG", exif=exif, quality=95), 64)
    assert seen[8, 32, 0] > 200
    assert seen[56, 32, 2] > 200


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data, 32)[16, 16].tolist() == RED


def bomb(width: int, height: int) -> bytes:
    """A PNG of 60 bytes whose header claims a size that it does not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "corrupt"),
        (b"<html><body>please wait</body></html>", "corrupt"),
        (encoded(Image.new("RGB", (64, 64)))[:40], "corrupt"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:300], "corrupt"),
        (bomb(30_000, 30_000), "too_large"),
        (bomb(2_000_000_000, 2_000_000_000), "too_large"),
        (bomb(100, 100), "corrupt"),
        (encoded(Image.new("RGB", (8, 8)), "PPM"), "corrupt"),
    ],
    ids=["empty", "html", "head of a png", "head of a jpeg", "pixel bomb", "absurd bomb", "no pixels", "other format"],
)
def test_a_file_that_cannot_be_decoded_is_an_error_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        pixels(data, 32)
    assert caught.value.reason == reason


def test_caps_apply_before_anything_is_decoded() -> None:
    data = encoded(Image.new("RGB", (100, 100)))
    assert open_picture(data, Caps(len(data), max_pixels=10_000, max_memory=40_000))[1].size == (100, 100)
    for caps in (Caps(max_bytes=len(data) - 1), Caps(max_pixels=9_999), Caps(max_memory=39_999)):
        with pytest.raises(PictureError, match="too_large"):
            open_picture(data, caps)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_content(kind: str) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    seen = pixels(encoded(image, kind, lossless=True), 32)
    assert np.abs(seen.astype(int) - pixels(encoded(image), 32)).max() <= 4
    assert check(encoded(image, kind), Caps()) == (kind.lower(), 256, 256)


def test_memory_is_counted_by_the_frames_held() -> None:
    frames = [Image.new("RGB", (1000, 1000), colour) for colour in ("red", "blue")]
    for kind, bytes_a_pixel in {"PNG": 12, "GIF": 14, "WEBP": 17}.items():
        container, _ = open_picture(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), Caps())
        assert container.memory == bytes_a_pixel * 10**6
        assert len(container.durations) == container.announced == 2
    progressive = open_picture(encoded(frames[0], "JPEG", progressive=True), Caps())[0]
    assert progressive.memory == 6 * 10**6


SEEDS = [encoded(Image.linear_gradient("L").convert("RGB").resize((24, 24)), kind) for kind in FORMATS]


@given(data=st.sampled_from(SEEDS), at=st.integers(0, 10_000), bits=st.binary(min_size=1, max_size=8))
def test_damaged_bytes_are_decoded_or_raise_a_picture_error(data: bytes, at: int, bits: bytes) -> None:
    at %= len(data)
    with contextlib.suppress(PictureError):
        assert pixels(data[:at] + bits + data[at + len(bits) :], 32).shape == (32, 32, 3)
