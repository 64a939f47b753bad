"""Files around their pixels: whatever metadata says, and however a file ends, a picture is what a browser shows."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from containers import chunk, drawing, encoded, riff
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.inference import containers
from stages.inference.decoding import CAPS, check, first_frame, pixels
from stages.inference.frames import frames
from stages.inference.phash import hash_picture
from stages.workspace.errors import PictureError

CASES = Path(__file__).with_name("cases")
SIZE = 64
KINDS = ("PNG", "JPEG", "GIF", "WEBP")
PICTURES = {kind: encoded([drawing(1, 90, 60)], kind) for kind in KINDS} | {
    "RGBA": encoded([drawing(1, 90, 60).convert("RGBA")], "PNG"),
    "palette": encoded([drawing(1, 90, 60).quantize(16)], "PNG"),
    "progressive": encoded([drawing(1, 90, 60)], "JPEG", progressive=True),
    "CMYK": encoded([drawing(1, 90, 60).convert("CMYK")], "JPEG"),
    "lossy WebP": encoded([drawing(1, 90, 60)], "WEBP", lossless=False),
}
ORIENTED = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)


def png_chunks(data: bytes) -> list[bytes]:
    ends = [8, *(end for _, _, end in containers._png_chunks(data))]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def everyone(data: bytes) -> None:
    """All who decode pictures agree on one."""
    seen = frames(data, SIZE)
    assert (seen.frames[0] == pixels(data, SIZE)).all()
    assert first_frame(data, SIZE).size
    assert hash_picture(data) >= 0


# What the cases show: the same drawing without what is odd about it


@pytest.mark.parametrize("name", ["exif-garbage.png", "ztxt-big.png", "badcrc-ancillary.png"])
def test_odd_metadata_of_a_png_changes_nothing(name: str) -> None:
    data = (CASES / name).read_bytes()
    clean = data[:8] + b"".join(each for each in png_chunks(data) if each[4:8] in (b"IHDR", b"IDAT", b"IEND"))
    assert len(clean) < len(data)
    assert (pixels(data, SIZE) == pixels(clean, SIZE)).all()
    assert check(data, CAPS) == ("png", 200, 120)
    everyone(data)


def test_malformed_exif_of_a_jpeg_changes_nothing() -> None:
    data = (CASES / "exif-doubled.jpg").read_bytes()
    assert data[20:22] == b"\xff\xe1"
    assert (pixels(data, SIZE) == pixels(data[:20] + data[52:], SIZE)).all()
    assert check(data, CAPS) == ("jpeg", 200, 120)
    everyone(data)


def test_a_jpeg_without_its_last_bytes_is_shown() -> None:
    data = (CASES / "last-bytes-missing.jpg").read_bytes()
    whole = (CASES / "exif-doubled.jpg").read_bytes()
    assert not data.endswith(b"\xff\xd9")
    assert np.abs(pixels(data, SIZE).astype(int) - pixels(whole, SIZE)).mean() < 1
    assert check(data, CAPS) == ("jpeg", 200, 120)
    everyone(data)


def test_the_transparent_half_of_a_grey_png_shows_the_background() -> None:
    seen = pixels((CASES / "grey4-trns.png").read_bytes(), 200)[40:160]
    assert (seen[:, :98] == 128).all()
    assert not (seen[:, 102:] == 128).all(axis=2).any()


# Metadata of any kind


def inserted(data: bytes, at: int, extra: bytes) -> bytes:
    return data[:at] + extra + data[at:]


NAMES = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sPLT",
                         b"tIME", b"bKGD", b"hIST", b"sBIT", b"mDCv", b"cICP", b"caBX", b"zzZz"])  # fmt: skip
PACKED = st.builds(
    lambda head, size: head + zlib.compress(bytes(size)), st.binary(max_size=9), st.integers(0, 3_000_000)
)
BODIES = st.binary(max_size=60) | PACKED | st.binary(max_size=20).map(lambda tail: b"key\0\0" + tail)


@given(
    kind=st.sampled_from(["PNG", "RGBA", "palette"]),
    place=st.integers(1, 3),
    name=NAMES,
    body=BODIES,
    checksum=st.none() | st.integers(0, 2**32 - 1),
)
def test_ancillary_chunks_change_nothing(kind: str, place: int, name: bytes, body: bytes, checksum: int | None) -> None:
    assume(name != b"eXIf" or containers.orientation(body) == 1)
    data = PICTURES[kind]
    at = 8 + sum(map(len, png_chunks(data)[:place]))
    extra = chunk(name, body)
    changed = inserted(data, at, extra if checksum is None else extra[:-4] + checksum.to_bytes(4, "big"))
    assert (pixels(changed, SIZE) == pixels(data, SIZE)).all()
    assert check(changed, CAPS) == check(data, CAPS)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


JPEG_BODIES = st.builds(
    lambda start, rest: start + rest,
    st.sampled_from(
        [
            b"",
            b"Exif\0\0",
            b"Exif\0\0II*\0\x08\0\0\0",
            b"MPF\0MM\0*",
            b"ICC_PROFILE\0\1\1",
            b"JFXX\0",
            b"Adob",
            b"http://ns.adobe.com/xap/1.0/\0",
            b"Photoshop 3.0\0" + b"8BIM\3\xed",
            b"JFIF",
        ]
    ),
    st.binary(max_size=40),
)


@given(
    kind=st.sampled_from(["JPEG", "progressive", "CMYK"]),
    place=st.integers(0, 5),
    marker=st.integers(0xE0, 0xEF) | st.just(0xFE),
    body=JPEG_BODIES,
    junk=st.binary(max_size=3).filter(lambda junk: b"\xff" not in junk),
)
@example(kind="JPEG", place=1, marker=0xE1, body=b"Exif\0\0MM\0*\xff\xff\xff\xff", junk=b"")
def test_application_segments_change_nothing(kind: str, place: int, marker: int, body: bytes, junk: bytes) -> None:
    assume(containers.orientation(body) == 1 and not body.startswith((b"JFIF\0", b"Adobe")))
    data = PICTURES[kind]
    ends = [2, *(end for _, _, end in containers._jpeg_segments(data))]
    changed = inserted(data, ends[place], segment(marker, body) + junk)
    assert (pixels(changed, SIZE) == pixels(data, SIZE)).all()
    assert check(changed, CAPS) == check(data, CAPS)


@given(
    name=st.sampled_from([b"ICCP", b"EXIF", b"XMP ", b"abcd"]),
    body=BODIES,
    flags=st.integers(0, 255),
    last=st.booleans(),
)
def test_chunks_of_a_webp_change_nothing(name: bytes, body: bytes, flags: int, last: bool) -> None:
    assume(containers.orientation(body) == 1)
    still = PICTURES["lossy WebP"][12:]
    head = riff(b"VP8X", bytes((flags & ~0x12, 0, 0, 0)) + (89).to_bytes(3, "little") + (59).to_bytes(3, "little"))
    parts = [still, riff(name, body)] if last else [riff(name, body), still]
    changed = riff(b"RIFF", b"WEBP" + head + b"".join(parts))
    assert (pixels(changed, SIZE) == pixels(PICTURES["lossy WebP"], SIZE)).all()
    assert check(changed, CAPS) == ("webp", 90, 60)


@given(label=st.sampled_from([0xFE, 0xFF, 0x01, 0xF9, 0x00]), body=st.binary(max_size=255), count=st.integers(1, 50))
def test_extensions_of_a_gif_change_nothing(label: int, body: bytes, count: int) -> None:
    assume(label != 0xF9 or len(body) != 4)
    data = PICTURES["GIF"]
    at = 13 + containers._palette_bytes(data[10])
    extra = bytes((0x21, label)) + (bytes((len(body),)) + body if body else b"") + b"\0"
    changed = inserted(data, at, extra * count)
    assert (pixels(changed, SIZE) == pixels(data, SIZE)).all()
    assert check(changed, CAPS) == check(data, CAPS)


@pytest.mark.parametrize("kind", ["PNG", "RGBA", "palette", "JPEG", "progressive", "lossy WebP", "WEBP"])
def test_a_valid_orientation_among_garbage_is_applied(kind: str) -> None:
    data = PICTURES[kind]
    if kind.endswith("WebP") or kind == "WEBP":
        head = riff(b"VP8X", bytes((0x2C, 0, 0, 0)) + (89).to_bytes(3, "little") + (59).to_bytes(3, "little"))
        changed = riff(b"RIFF", b"WEBP" + head + data[12:] + riff(b"EXIF", ORIENTED) + riff(b"XMP ", b"<"))
    elif data.startswith(b"\xff\xd8"):
        changed = inserted(data, 2, segment(0xE1, b"XMP") + segment(0xE1, b"Exif\0\0" + ORIENTED) + segment(0xFE, b""))
    else:
        changed = inserted(data, 33, chunk(b"eXIf", ORIENTED) + chunk(b"zTXt", b"\0\0\0"))
    turned = frames(changed, SIZE)
    assert (turned.width, turned.height) == (60, 90)
    assert (turned.frames[0] != pixels(data, SIZE)).any()
    everyone(changed)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: ORIENTED[:10] + rest))
def test_any_exif_has_an_orientation(exif: bytes) -> None:
    assert 1 <= containers.orientation(exif) <= 8


# How files end


# The decoder of lossless WebP takes whole files only: one of the few things that a browser shows and this does not.
ENDINGS = [(kind, missing) for kind in PICTURES if kind not in ("WEBP", "GIF") for missing in range(1, 13)]


@pytest.mark.parametrize(("kind", "missing"), [*ENDINGS, ("GIF", 1), ("GIF", 2)])
def test_the_last_bytes_may_be_missing(kind: str, missing: int) -> None:
    data = PICTURES[kind]
    assert np.abs(pixels(data[:-missing], SIZE).astype(int) - pixels(data, SIZE)).mean() < 8
    assert check(data[:-missing], CAPS) == check(data, CAPS)


@pytest.mark.parametrize("kind", ["PNG", "RGBA", "JPEG"])
def test_of_half_a_picture_half_is_shown_and_the_rest_is_background(kind: str) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGBA" if kind == "RGBA" else "RGB")
    data = encoded([noise], "PNG" if kind == "RGBA" else kind)
    cut, whole = pixels(data[: len(data) // 2], SIZE), pixels(data, SIZE)
    assert (cut[:8] == whole[:8]).all()
    assert (cut[-8:] == 128).all()
    with pytest.raises(PictureError, match=r"corrupt: [3-6]"):
        check(data[: len(data) // 2], CAPS)


# Transparent colours


def png(depth: int, colour: int, rows: list[bytes], transparency: bytes, palette: bytes = b"") -> bytes:
    width = len(rows[0]) * 8 // depth // (3 if colour == 2 else 1)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparency), chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def wide(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


TRANSPARENT = {
    "grey 1": (png(1, 0, [b"\xff\x00"] * 16, wide(1)), 0),
    "grey 1, black": (png(1, 0, [b"\x00\xff"] * 16, wide(0)), 255),
    "grey 2": (png(2, 0, [b"\xaa\xaa\x55\x55"] * 16, wide(2)), 85),
    "grey 4": (png(4, 0, [b"\x77\x77\x77\x77\xee\xee\xee\xee"] * 16, wide(7)), 238),
    "grey 8": (png(8, 0, [b"\x21" * 8 + b"\x22" * 8] * 16, wide(0x21)), 0x22),
    "grey 16": (png(16, 0, [wide(*[0x2101] * 8, *[0x2102] * 8)] * 16, wide(0x2101)), 0x21),
    "RGB 8": (png(8, 2, [b"\1\2\3" * 8 + b"\4\4\4" * 8] * 16, wide(1, 2, 3)), 4),
    "RGB 16": (png(16, 2, [wide(*[0x1020] * 24, *[0x1021] * 24)] * 16, wide(0x1020, 0x1020, 0x1020)), 0x10),
    "palette": (png(8, 3, [b"\0" * 8 + b"\1" * 8] * 16, b"\0\xff", b"\xff\0\0\x09\x09\x09"), 9),
    "palette 1": (png(1, 3, [b"\x00\xff"] * 16, b"\0", b"\xff\0\0\x09\x09\x09"), 9),
    "grey 4, higher bits": (png(4, 0, [b"\x77\x77\x77\x77\xee\xee\xee\xee"] * 16, wide(0xFF7)), 238),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_transparent_colour_of_any_depth_shows_the_background(kind: str) -> None:
    data, opaque = TRANSPARENT[kind]
    for seen in (pixels(data, 16), frames(data, 16).frames[0]):
        assert (seen[:, :8] == 128).all()
        assert np.abs(seen[:, 8:].astype(int) - opaque).max() <= 1
    everyone(data)


# One gate


SEEDS = [*PICTURES.values(), *(data for data, _ in TRANSPARENT.values()),
         *(encoded([drawing(seed, 30, 20) for seed in range(3)], kind) for kind in ("PNG", "GIF", "WEBP")),
         *(encoded([drawing(1, 30, 20)], kind) for kind in ("AVIF", "BMP", "TIFF"))]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.sampled_from(SEEDS), at=st.integers(0, 10**6), bits=st.binary(max_size=8), cut=st.integers(0, 10**6))
def test_what_passes_the_download_passes_every_later_stage(data: bytes, at: int, bits: bytes, cut: int) -> None:
    at %= len(data)
    data = data[:at] + bits + data[at + len(bits) :]
    data = data[: len(data) - (cut % len(data) if cut % 3 == 0 else 0)]
    try:
        check(data, CAPS)
    except PictureError:
        return
    everyone(data)
    for size in (1, 17, 300):
        assert pixels(data, size).shape == (size, size, 3)


def test_a_scan_bomb_is_refused_before_it_is_decoded() -> None:
    data = PICTURES["progressive"]
    last = data.rfind(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 3000 + data[-2:]
    with pytest.raises(PictureError, match=r"timed_out: 30\d\d scans, over the cap of 100"):
        pixels(bomb, SIZE)


@pytest.mark.parametrize("kind", ["PNG", "palette", "RGBA"])
@pytest.mark.parametrize("shape", [(1700, 1300), (3, 2000), (2000, 3), (701, 903), (64, 32), (64, 900)])
def test_a_large_picture_is_scaled_as_if_it_were_converted_whole(kind: str, shape: tuple[int, int]) -> None:
    image = drawing(3, *shape)
    image = image.quantize(32) if kind == "palette" else image.convert("RGBA" if kind == "RGBA" else "RGB")
    if kind == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(shape))
    data, mode = encoded([image], "PNG"), "RGBA" if kind == "RGBA" else "RGB"
    scale = SIZE / max(shape)
    box = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    whole = Image.open(io.BytesIO(data)).convert(mode).resize(box, Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = Image.new("RGB", (SIZE, SIZE), (128,) * 3)
    corner = ((SIZE - box[0]) // 2, (SIZE - box[1]) // 2)
    square.paste(whole.convert("RGB"), corner, whole.getchannel("A") if mode == "RGBA" else None)
    assert (pixels(data, SIZE) == np.asarray(square)).all()
