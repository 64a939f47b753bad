"""Picture addresses, compared with those on the board's own pages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.philomena.addresses import VERSIONS, picture_path, served_format, served_version

NEW_YEAR = datetime(2012, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("image_format", "width", "height", "version", "address"),
    [
        ("png", 801, 10, "medium", "2012/1/2/7/medium.png"),
        ("png", 10, 601, "medium", "2012/1/2/7/medium.png"),
        ("png", 800, 600, "medium", "2012/1/2/7/full.png"),
        ("PNG", 900, 900, "medium", "2012/1/2/7/medium.png"),
        ("JPEG", 900, 900, "thumb", "2012/1/2/7/thumb.jpeg"),
        ("jpg", 100, 100, "thumb", "2012/1/2/7/full.jpg"),
        ("gif", 251, 1, "thumb", "2012/1/2/7/thumb.gif"),
        ("png", 9000, 9000, "full", "2012/1/2/7/full.png"),
        ("svg", 900, 900, "medium", "2012/1/2/7/medium.png"),
        ("svg", 90, 90, "medium", "2012/1/2/7/rendered.png"),
        ("webm", 1920, 1080, "medium", "2012/1/2/7/rendered.png"),
    ],
)
def test_addresses(image_format: str, width: int, height: int, version: str, address: str) -> None:
    assert picture_path(NEW_YEAR, 7, image_format, width, height, version) == address


def test_dates_are_not_padded_and_months_can_have_two_digits() -> None:
    assert picture_path(datetime(2021, 11, 30, tzinfo=UTC), 7, "png", 1, 1) == "2021/11/30/7/full.png"


@given(st.sampled_from(sorted(VERSIONS)), st.integers(1, 5000), st.integers(1, 5000))
def test_a_version_exists_only_if_the_image_does_not_fit_its_box(version: str, width: int, height: int) -> None:
    box = VERSIONS[version]
    fits = width <= box[0] and height <= box[1]
    assert served_version(width, height, version) == ("full" if fits else version)


@pytest.mark.parametrize(
    ("image_format", "served"), [("JPG", "jpeg"), ("jpeg", "jpeg"), ("svg", "png"), ("webm", "png"), ("GIF", "gif")]
)
def test_served_formats(image_format: str, served: str) -> None:
    assert served_format(image_format) == served
