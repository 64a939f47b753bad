"""The library as a board's images: ids, dates, tags, artists; what was merged and what was removed."""

from __future__ import annotations

import dataclasses
import itertools
import random
from datetime import datetime

import pytest

from stages.sample.image_statistics import ImageStatistics
from stages.sample.openclipart import Contents, Duplicate, Library, Picture
from stages.sample.uploads import ALIASES, IMPLICATIONS, NO_LICENCE, Upload, draw, uploads
from stages.sample.works import Work

PUBLIC = ("http://web.resource.org/cc/PublicDomain",)
PROVENANCE = ("licence:public domain", "origin:openclipart")
STATISTICS = ImageStatistics(64, 48, 1234, "0" * 128, (1.0, 2.0, 3.0, 4.0))


def picture(name: str, *tags: str, creators: tuple[str, ...] = (), licences: tuple[str, ...] = PUBLIC) -> Picture:
    return Picture(name, Work("A title", "", tags, creators, licences), STATISTICS)


def only(*tags: str, **other: tuple[str, ...]) -> Upload:
    """The image of a library of one picture."""
    (image,) = uploads(Contents((picture("a/b.png", *tags, **other),), ()))
    return image


@pytest.fixture(scope="module")
def many() -> list[Upload]:
    """A board of 600 images, a sixth of them merged."""
    pictures = tuple(picture(f"many/{number:03}.png", f"tag {number % 7}") for number in range(500))
    duplicates = tuple(Duplicate(f"more/{n:03}.png", pictures[n * 3].name, pictures[n].work) for n in range(100))
    return uploads(Contents(pictures, duplicates))


def test_a_withdrawn_picture_leaves_the_others_as_they_were() -> None:
    pictures = tuple(picture(f"many/{number:03}.png", "a tag") for number in range(50))
    whole = uploads(Contents(pictures, ()))
    fewer = uploads(Contents(pictures[10:], (), tuple(each.name for each in pictures[:10])))
    names = {each.name for each in pictures[10:]}
    assert fewer == [image for image in whole if image.picture.name in names]


def test_ids_ascend_with_gaps(many: list[Upload]) -> None:
    ids = [image.id for image in many]
    assert ids[0] >= 1
    steps = {after - before for before, after in itertools.pairwise(ids)}
    assert steps == {1, 2}
    assert 1.1 < ids[-1] / len(ids) < 1.3


def test_dates_ascend_and_are_of_some_years(many: list[Upload]) -> None:
    dates = [image.created_at for image in many]
    assert dates == sorted(dates)
    assert dates[0] >= datetime(2005, 1, 1)  # noqa: DTZ001 (a board's times have no zone)
    assert {date.tzinfo for date in dates} == {None}
    assert {date.month for date in dates} == set(range(1, 13))
    assert len(dates) == len(set(dates))


def test_the_order_says_nothing_of_the_names(many: list[Upload]) -> None:
    names = [image.name for image in many]
    assert names != sorted(names)
    firsts = sum(image.picture.name < "many/250.png" for image in many[:300])
    assert 120 < firsts < 180


def test_some_formats_are_upper_case(many: list[Upload]) -> None:
    upper = sum(image.format == "PNG" for image in many)
    assert 10 < upper < 60
    assert {image.format for image in many} == {"png", "PNG"}


def test_the_same_contents_give_the_same_uploads(library: Library, uploaded: list[Upload]) -> None:
    assert uploads(library.contents) == uploaded
    shuffled = list(library.contents.pictures)
    random.Random(1).shuffle(shuffled)
    again = dataclasses.replace(library.contents, pictures=tuple(shuffled))
    assert uploads(again) == uploaded, "whatever the order that they are listed in"


OTHERS = {"crossfire": 10_000, "tango": 11_000}
"""Origin -> its first id."""


def other(origin: str, number: int) -> Picture:
    work = Work(tags=("card",), creators=("Some One",), licences=("GPL-2+",), origin=origin, first_id=OTHERS[origin])
    return Picture(f"{origin}/{number}.png", work, STATISTICS)


def board_with(*origins: str) -> dict[str, Upload]:
    """Name -> image, of a board with 40 drawings and 40 pictures of each origin."""
    pictures = [picture(f"cats/{number}.png", "cat") for number in range(40)]
    pictures += [other(origin, number) for origin in origins for number in range(40)]
    return {image.picture.name: image for image in uploads(Contents(tuple(pictures), ()))}


def test_an_origin_moves_no_image_of_another() -> None:
    whole = board_with("crossfire", "tango")
    assert [image.id for image in whole.values()] == sorted(image.id for image in whole.values())
    dates = [image.created_at for image in whole.values()]
    assert dates == sorted(dates)
    for some in (board_with(), board_with("crossfire"), board_with("tango")):
        assert some.items() <= whole.items()


def test_an_image_tells_its_origin_and_licence_and_is_shown() -> None:
    image = board_with("tango")["tango/3.png"]
    assert image.tags == ("artist:some one", "card", "licence:gpl-2+", "origin:tango", "safe")
    assert not image.hidden


def test_what_is_drawn_is_the_same_on_every_machine() -> None:
    assert draw("a", 1) == draw("a", "1") == 408074298725870688
    assert draw("a1") != draw("a", 1)


@pytest.mark.parametrize(
    ("library_tags", "tags"),
    [
        (["Cat"], ["cat"]),
        (["  two \t words "], ["two words"]),
        (["one, Two,three"], ["one", "three", "two"]),
        (["a", "A ", "a"], ["a"]),
        (["card &amp; dice"], ["card & dice"]),
        (["Étoile"], ["étoile"]),
        (["hash(0x8a3b2c)", "HASH", "hashish"], ["hashish"]),
        (["hash(0x8a3b2c)"], ["tagme"]),
        ([], ["tagme"]),
        ([",", "  "], ["tagme"]),
    ],
)
def test_tags_are_written_as_a_board_writes_them(library_tags: list[str], tags: list[str]) -> None:
    assert list(only(*library_tags).tags) == sorted([*tags, *PROVENANCE, "safe"])


@pytest.mark.parametrize(
    ("creators", "artists"),
    [
        (["Zoe"], ["zoe"]),
        (["Zoe <zoe@example.org>"], ["zoe"]),
        (["Zoe (zoe@example.org)"], ["zoe"]),
        (["mailto:zoe@example.org"], ["zoe"]),
        (["Ann, Bob", "Ann"], ["ann", "bob"]),
        (["Bob &amp; Co"], ["bob & co"]),
        (["unknown", "None", "Anonymous", "", "hash(0x1)"], []),
    ],
)
def test_creators_are_artists(creators: list[str], artists: list[str]) -> None:
    artist_tags = [tag for tag in only("cat", creators=tuple(creators)).tags if tag.startswith("artist:")]
    assert artist_tags == [f"artist:{name}" for name in artists]


@pytest.mark.parametrize(
    ("licences", "removed"),
    [
        (PUBLIC, None),
        (("http://creativecommons.org/licenses/publicdomain/",), None),
        (("Public Domain",), None),
        (("http://creativecommons.org/licenses/by-sa/2.0/",), NO_LICENCE),
        ((*PUBLIC, "http://creativecommons.org/licenses/by-sa/2.0/"), NO_LICENCE),
        ((), NO_LICENCE),
    ],
)
def test_what_is_not_stated_to_be_public_domain_is_removed(licences: tuple[str, ...], removed: str | None) -> None:
    image = only("cat", licences=licences)
    assert image.removed == removed
    assert image.hidden == (removed is not None)
    assert {"cat", "origin:openclipart", "safe"} <= set(image.tags), "and keeps its tags"


def test_the_tiny_library_hides_what_it_should(uploaded: list[Upload]) -> None:
    hidden = {image.name: image for image in uploaded if image.hidden}
    assert {name: image.removed for name, image in hidden.items() if image.removed} == {
        "clip.png": NO_LICENCE,
        "mute.png": NO_LICENCE,
    }
    merged = {name for name, image in hidden.items() if image.merged_into}
    assert merged == {"kitty.png", "kitten.png", "lady.png", "katana.png"}
    assert len(uploaded) == 17


def test_a_merged_image_points_to_a_shown_one_with_the_same_pixels(uploaded: list[Upload]) -> None:
    images = {image.id: image for image in uploaded}
    for image in uploaded:
        if image.merged_into:
            into = images[image.merged_into]
            assert not into.hidden
            assert into.picture == image.picture


def test_a_merged_image_keeps_its_tags_and_artist_and_its_target_takes_the_tags(uploaded: list[Upload]) -> None:
    tags = {image.name: set(image.tags) for image in uploaded}
    assert tags["katana.png"] == {"katana", "artist:eve", *PROVENANCE, "safe"}
    assert tags["sword.png"] == {"swords", "gun", "katana", "artist:bob", *PROVENANCE, "safe"}


def test_an_image_has_one_rating_and_sorted_tags(uploaded: list[Upload]) -> None:
    for image in uploaded:
        assert "safe" in image.tags
        assert len(image.tags) >= 2
        assert list(image.tags) == sorted(set(image.tags))


def test_no_alias_leads_to_an_alias_and_no_tag_implies_an_alias() -> None:
    assert not ALIASES.keys() & ALIASES.values()
    assert not ALIASES.keys() & (IMPLICATIONS.keys() | IMPLICATIONS.values())
