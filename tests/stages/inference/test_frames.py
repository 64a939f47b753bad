"""Which frames of an animation are decoded, from intact files and from malicious ones."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from containers import BLACK, bomb, dot, drawing, encoded, gif, saying, webp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from stages.inference.containers import read as containers_read
from stages.inference.decoding import Caps, pixels
from stages.inference.frames import Seen, chosen, frames
from stages.inference.phash import inside
from stages.workspace.errors import PictureError

SIZE = 32
STILL = ("PNG", "JPEG", "GIF", "WEBP")
ANIMATED = ("GIF", "PNG", "WEBP")


def grey(level: int, side: int = 24) -> Image.Image:
    return Image.new("RGB", (side, side), (level,) * 3)


def greys(levels: list[int], kind: str, **options: object) -> bytes:
    return encoded([grey(level) for level in levels], kind, **options)


def middles(seen: Seen) -> list[int]:
    return [int(frame[SIZE // 2, SIZE // 2, 0]) for frame in seen.frames]


def same(seen: Seen, data: bytes) -> None:
    assert seen.missed == 0
    assert seen.frames.dtype == np.uint8
    assert (seen.frames == pixels(data, SIZE)[None]).all()


@pytest.mark.parametrize("kind", STILL)
def test_a_still_picture_is_decoded_as_in_training(kind: str) -> None:
    data = encoded([drawing()], kind)
    seen = frames(data, SIZE)
    same(seen, data)
    assert (seen.width, seen.height) == (300, 200)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_a_still_png_of_any_mode_is_decoded_as_in_training(mode: str) -> None:
    data = encoded([Image.new(mode, (40, 20))], "PNG")
    same(frames(data, SIZE), data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded([drawing()], kind, exif=exif)
    seen = frames(data, SIZE)
    same(seen, data)
    assert (seen.width, seen.height) == ((200, 300) if orientation > 4 else (300, 200))
    assert not (inside(seen.frames[0], seen.width, seen.height) == 128).all(axis=(1, 2)).any(), "no border is left"


@pytest.mark.parametrize("kind", ANIMATED)
@pytest.mark.parametrize("odd", [0, 1, 4, 7, 8])
def test_a_single_different_frame_is_decoded(kind: str, odd: int) -> None:
    levels = [0] * 9
    levels[odd] = 255
    seen = frames(greys([level + place % 2 for place, level in enumerate(levels)], kind), SIZE, count=9)
    assert [level > 200 for level in middles(seen)] == [level > 200 for level in levels]
    assert seen.missed == 0


@pytest.mark.parametrize("kind", ANIMATED)
@pytest.mark.parametrize(
    ("total", "count", "places"),
    [
        (2, 8, [0, 1]),
        (8, 8, list(range(8))),
        (41, 3, [0, 20, 40]),
        (50, 8, [0, 7, 14, 21, 28, 35, 42, 49]),
        (5, 1, [0]),
    ],
)
def test_frames_are_spread_from_the_first_to_the_last(kind: str, total: int, count: int, places: list[int]) -> None:
    seen = frames(greys([place * 5 for place in range(total)], kind), SIZE, count=count)
    assert middles(seen) == [place * 5 for place in places]
    assert (seen.width, seen.height, seen.missed) == (24, 24, 0)


@pytest.mark.parametrize("kind", ANIMATED)
def test_a_frame_is_painted_over_the_frames_before_it(kind: str) -> None:
    image, every = grey(255, side=40), []
    for place in range(6):
        image = image.copy()
        image.paste((0, place * 40, 0), (place * 6, place * 6, place * 6 + 8, place * 6 + 8))
        every.append(image)
    seen = frames(encoded(every, kind), SIZE)
    for found, whole in zip(seen.frames, every, strict=True):
        assert np.abs(found.astype(int) - pixels(encoded([whole], "PNG"), SIZE)).max() <= 1


def test_an_animated_pngs_default_image_counts_as_a_frame() -> None:
    data = greys([10, 20, 30], "PNG", default_image=True)
    assert middles(frames(data, SIZE)) == [10, 20, 30]


def test_a_second_picture_appended_to_a_jpeg_is_ignored() -> None:
    data = encoded([drawing(0), drawing(1, 2000, 2000)], "MPO")
    same(frames(data, SIZE, caps=Caps(max_pixels=60_000)), data)


@pytest.mark.parametrize("kind", ANIMATED)
def test_a_truncated_animation_gives_the_frames_that_are_there(kind: str) -> None:
    noise = [Image.effect_noise((24, 24), 90).convert("RGB") for _ in range(6)]
    data = encoded(noise, kind)
    whole = frames(data, SIZE).frames
    lengths = set()
    for end in range(10, len(data) - 20, len(data) // 50):
        try:
            seen = frames(data[:end], SIZE)
        except PictureError:
            assert not lengths or kind == "WEBP"
            continue
        lengths.add(len(seen.frames))
        if len(seen.frames) > 1:  # of the first, as much as there is; of others, all or nothing
            assert (seen.frames == whole[: len(seen.frames)]).all()
        assert seen.missed > 0 or kind != "PNG", "the others do not say how many there are"
    assert lengths >= {1, 2, 3, 4, 5}


def test_a_gif_truncated_within_a_frame_misses_one() -> None:
    data = encoded([Image.effect_noise((24, 24), 90).convert("RGB") for _ in range(3)], "GIF")
    assert frames(data[:-30], SIZE).missed == 1


def test_a_png_that_announces_too_many_frames_hides_no_frame() -> None:
    seen = frames(saying(greys([10, 20, 30], "PNG"), 1000), SIZE)
    assert (middles(seen), seen.missed) == ([10, 20, 30], 1)
    assert middles(frames(saying(greys([10, 20], "PNG"), 2**31), SIZE)) == [10, 20]


def test_a_broken_frame_hides_no_frame_before_it() -> None:
    data = gif(1, 1, dot(), dot(pixel=BLACK), dot(pixel=b"\x0d\x02\x44\x01\x00"), dot())
    assert (len(frames(data, SIZE).frames), frames(data, SIZE).missed) == (2, 2)


def test_frames_of_ten_thousand_are_spread_from_first_to_last() -> None:
    data = gif(1, 1, *[dot(pixel=BLACK)] * 9_999, dot())
    seen = frames(data, SIZE, seconds=20)
    assert middles(seen) == [0] * 7 + [255]
    assert seen.missed == 0


@pytest.mark.parametrize(
    "data",
    [gif(1, 1, *[dot()] * 40_000), webp(1500, 3000), greys(list(range(250)), "PNG")],
    ids=["gif", "webp", "png"],
)
def test_the_time_limit_stops_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # a second passes each time that somebody looks at it
    monkeypatch.setattr("stages.inference.frames.time", SimpleNamespace(thread_time=lambda: next(clock)))
    seen = frames(data, SIZE, count=3, seconds=20)
    assert next(clock) <= 25, "at most one frame is decoded per look"
    assert seen.missed >= 1
    assert len(seen.frames) < 3


def timed(durations: list[int], kind: str) -> bytes:
    """An animation whose frames are as bright as their number, shown for these times in ms."""
    return encoded([grey(place * 3) for place in range(len(durations))], kind, duration=durations)


@pytest.mark.parametrize("kind", ANIMATED)
@pytest.mark.parametrize("long", range(0, 64, 7))
def test_a_frame_shown_for_nearly_all_of_the_time_is_seen(kind: str, long: int) -> None:
    data = timed([60_000 if place == long else 20 for place in range(64)], kind)
    seen = frames(data, SIZE)
    assert long * 3 in middles(seen)
    assert {0, 63 * 3} <= set(middles(seen))
    assert (len(seen.frames), seen.missed) == (8, 0), "no place is wasted on a frame that is seen already"


@given(st.lists(st.integers(20, 5000), min_size=1, max_size=100), st.integers(1, 12))
def test_no_longer_part_of_the_time_is_left_out_than_between_two_looks(durations: list[int], count: int) -> None:
    selected = chosen(durations, count)
    assert len(selected) == min(count, len(durations))
    assert {0} <= selected <= set(range(len(durations)))
    if count > 1:
        assert len(durations) - 1 in selected
        longest = sum(durations) / (count - 1)
        assert all(place in selected for place, duration in enumerate(durations) if duration > longest)


def test_very_short_durations_count_as_browsers_show_them() -> None:
    assert [containers_read(timed([10, 0, 500], kind)).durations[:3] for kind in ("WEBP", "PNG")] == [
        (100, 100, 500)
    ] * 2


@pytest.mark.parametrize("kind", ANIMATED)
def test_the_first_frame_is_decoded_even_without_time(kind: str) -> None:
    seen = frames(greys(list(range(0, 200, 10)), kind), SIZE, seconds=0)
    assert middles(seen) == [0]
    assert seen.missed >= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "corrupt"),
        (b"\0", "corrupt"),
        (b"<html>", "corrupt"),
        (b"GIF89a", "corrupt"),
        (gif(1, 1), "corrupt"),
        (bomb(30_000, 30_000), "too_large"),
        (bomb(100, 100), "corrupt"),
        (encoded([grey(1)], "PPM"), "corrupt"),
        (gif(10, 10, dot(), dot((9_000, 9_000)), dot()), "too_large"),
        (gif(60_000, 10, dot(), dot((0, 9_000))), "too_large"),
        (gif(60_000, 60_000, dot()), "too_large"),
    ],
)
def test_a_picture_without_a_readable_frame_is_an_error(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size) or load(image))
    with pytest.raises(PictureError) as caught:
        frames(data, SIZE)
    assert caught.value.reason == reason
    assert all(width * height <= 10_000 for width, height in decoded), "refused before anything large is decoded"


def test_a_frame_may_extend_a_gif_up_to_the_cap() -> None:
    seen = frames(gif(10, 10, dot(), dot((99, 99))), SIZE, caps=Caps(max_pixels=10_000))
    assert (len(seen.frames), seen.width, seen.missed) == (2, 10, 0)
    with pytest.raises(PictureError, match="too_large: 101x100 pixels, over the cap of 10000"):
        frames(gif(10, 10, dot(), dot((100, 99))), SIZE, caps=Caps(max_pixels=10_000))


SEEDS = [
    *(encoded([drawing(0, 24, 16)], kind) for kind in STILL),
    *(greys([10, 200, 90], kind) for kind in ANIMATED),
    encoded([grey(10), grey(20)], "MPO"),
    gif(4, 4, b"!\xf9\x04\x09\x01\0\0\0", dot(), b"!\xfe\x03abc\0", dot((3, 3)), b"!\xf9\x04\x0c\x01\0\0\0", dot()),
]
CAPS = Caps(max_pixels=100_000)


@settings(max_examples=300)
@given(
    data=st.sampled_from(SEEDS), at=st.integers(0, 10_000), bits=st.binary(min_size=1, max_size=8), end=st.integers()
)
def test_damaged_bytes_are_decoded_or_raise_a_picture_error(data: bytes, at: int, bits: bytes, end: int) -> None:
    at %= len(data)
    check(data[:at] + bits + data[at + len(bits) : len(data) - max(0, end) % len(data)])


@given(magic=st.sampled_from([b"", *(seed[:length] for seed in SEEDS for length in (6, 13, 40))]), data=st.binary())
def test_random_bytes_are_decoded_or_raise_a_picture_error(magic: bytes, data: bytes) -> None:
    check(magic + data)


def check(data: bytes) -> None:
    try:
        seen = frames(data, SIZE, caps=CAPS)
    except PictureError:
        return
    assert 1 <= len(seen.frames) <= 8
    assert seen.frames.shape[1:] == (SIZE, SIZE, 3)
    assert seen.missed >= 0
    assert inside(seen.frames[0], seen.width, seen.height).size
