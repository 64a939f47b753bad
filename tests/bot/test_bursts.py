"""The burst rule: whatever the order, and however often messages arrive, the same ones are a wave."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.rules import bursts
from bot.rules.bursts import BurstLimits, BurstTracker, PictureMarks, Posting, find_wave

GUILD, AUTHOR = 1, 2
SECOND = 1000 << 22
PHASH = 0x0F0F_3C3C_A5A5_6666
LIMITS = BurstLimits(3, 120)

names = st.sampled_from("abcd")
"""Files; equal names are equal pictures."""
marks = st.builds(
    PictureMarks,
    st.frozensets(names, max_size=2),
    st.none() | st.sampled_from([PHASH, PHASH ^ 0b1111, PHASH ^ 0xFF00_0000_0000, 0]),
)
postings = st.lists(
    st.builds(
        Posting,
        st.integers(0, 40).map(lambda second: 10**6 * SECOND + second * SECOND),
        st.integers(1, 5),
        st.dictionaries(st.sampled_from(["1", "2"]), marks, max_size=2),
    ),
    max_size=12,
    unique_by=lambda posting: posting.message_id,
)
limits = st.builds(BurstLimits, st.integers(2, 4), st.integers(0, 40), st.booleans())


def posting(second: float, channel: int, *files: str, phash: int | None = None) -> Posting:
    pictures = {name: PictureMarks(frozenset({name}), phash) for name in files}
    return Posting(10**6 * SECOND + (round(second * 1000) << 22), channel, pictures)


def same(one: PictureMarks, other: PictureMarks) -> bool:
    near = bursts.is_distinctive(one.phash) and bursts.is_distinctive(other.phash)
    return bool(one.exact & other.exact) or (
        near and ((one.phash or 0) ^ (other.phash or 0)).bit_count() <= bursts.MAX_DISTANCE
    )


def plainly(every: list[Posting], limits: BurstLimits) -> set[int]:
    """What is a wave by its definition, tried out window by window."""
    pictures = [(each, marks) for each in every for marks in each.pictures.values()]
    groups = [{place} for place in range(len(pictures))]
    for (one, (_, mine)), (other, (_, others)) in combinations(enumerate(pictures), 2):
        if limits.any_picture or same(mine, others):
            joined = next(group for group in groups if one in group) | next(g for g in groups if other in g)
            groups = [group for group in groups if not group & joined] + [joined]
    found = set()
    for group in groups:
        members = [pictures[place][0] for place in group]
        for start in members:
            window = [m for m in members if 0 <= m.milliseconds - start.milliseconds <= 1000 * limits.seconds]
            if len({each.channel_id for each in window}) >= limits.channels:
                found |= {each.message_id for each in window}
    return found


@given(postings, limits)
def test_a_wave_is_what_its_definition_says(every: list[Posting], limits: BurstLimits) -> None:
    assert find_wave(every, limits) == plainly(every, limits)


@given(st.data(), postings, limits, st.lists(st.floats(0, 1e9), min_size=40, max_size=40))
def test_neither_order_nor_repetition_nor_this_machines_clock_matter(
    data: st.DataObject, every: list[Posting], limits: BurstLimits, clock: list[float]
) -> None:
    """A message comes first as it arrives, and again with what is known of each picture once that is decoded."""
    parts = [
        Posting(each.message_id, each.channel_id, {key: known})
        for each in every
        for key, known in each.pictures.items()
    ]
    tracker = BurstTracker()
    for each, now in zip(data.draw(st.permutations([*parts, *parts])), clock, strict=False):
        tracker.add(GUILD, AUTHOR, each, now)
    if len(parts) * 2 <= len(clock):
        assert {each.message_id for each in tracker.wave(GUILD, AUTHOR, limits)} == find_wave(every, limits)


@given(postings, limits)
def test_what_is_a_wave_with_each_message_is_the_whole_wave(every: list[Posting], limits: BurstLimits) -> None:
    by_message = {each.message_id: find_wave(every, limits, each.message_id) for each in every}
    assert frozenset().union(*by_message.values()) == find_wave(every, limits)
    assert all(not found or message in found for message, found in by_message.items())


@given(postings, limits)
def test_stricter_limits_find_at_least_as_much(every: list[Posting], limits: BurstLimits) -> None:
    found = find_wave(every, limits)
    assert found <= find_wave(every, BurstLimits(limits.channels - 1, limits.seconds, limits.any_picture))
    assert found <= find_wave(every, BurstLimits(limits.channels, limits.seconds + 5, limits.any_picture))
    assert found <= find_wave(every, BurstLimits(limits.channels, limits.seconds, any_picture=True))


@pytest.mark.parametrize(
    ("every", "size"),
    [
        ([posting(0, 1, "a"), posting(60, 2, "a"), posting(120, 3, "a")], 3),
        ([posting(0, 1, "a"), posting(60, 2, "a"), posting(120.001, 3, "a")], 0),
        ([posting(0, 1, "a"), posting(1, 1, "a"), posting(2, 1, "a"), posting(3, 2, "a")], 0),  # two channels
        ([posting(0, 1, "a"), posting(1, 2, "b"), posting(2, 3, "c")], 0),  # different pictures
        ([posting(0, 1, "a", "x"), posting(1, 2, "x", "b"), posting(2, 3, "b", "c")], 0),  # no picture in three
        ([posting(0, 1, "a", "x"), posting(1, 2, "x", "b"), posting(2, 3, "b", "x"), posting(3, 4, "c")], 3),
        ([posting(0, 1, "a"), posting(1, 1, "a"), posting(2, 2, "a"), posting(3, 3, "a")], 4),  # every copy
        ([posting(number, number) for number in range(9)], 0),  # no pictures
    ],
)
def test_the_default_rule(every: list[Posting], size: int) -> None:
    assert len(find_wave(every, LIMITS)) == size


def test_different_pictures_count_only_if_that_is_asked_for() -> None:
    every = [posting(0, 1, "a"), posting(1, 2, "b"), posting(2, 3, "c")]
    assert len(find_wave(every, BurstLimits(3, 120, any_picture=True))) == 3


def test_nearly_the_same_pictures_are_the_same() -> None:
    every = [posting(0, 1, "a", phash=PHASH), posting(1, 2, "b", phash=PHASH ^ 1), posting(2, 3, "c", phash=PHASH ^ 6)]
    assert len(find_wave(every, LIMITS)) == 3
    plain = [posting(0, 1, "a", phash=0), posting(1, 2, "b", phash=0), posting(2, 3, "c", phash=0)]
    assert not find_wave(plain, LIMITS), "plain surfaces have the same hash"


def test_what_an_author_deleted_does_not_count() -> None:
    tracker = BurstTracker()
    every = [posting(0, 1, "a"), posting(1, 2, "a"), posting(2, 3, "a")]
    for each in every[:2]:
        tracker.add(GUILD, AUTHOR, each, 0)
    tracker.remove([every[0].message_id, 999])
    tracker.add(GUILD, AUTHOR, every[2], 0)
    assert tracker.wave(GUILD, AUTHOR, LIMITS) == []


def test_a_flood_of_authors_costs_its_own_server_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bursts, "MAX_TOTAL", 100)
    tracker = BurstTracker()
    quiet = [posting(0, 1, "a"), posting(1, 2, "a"), posting(2, 3, "a")]
    for each in quiet:
        tracker.add(7, AUTHOR, each, 0)
    for number in range(1000):
        tracker.add(GUILD, 100 + number, posting(10 + number, 1, "a"), number)
    assert len(tracker) == 100
    assert tracker.wave(7, AUTHOR, LIMITS) == quiet
    assert tracker.knows(GUILD, 1099)


def test_one_author_costs_a_bounded_number_of_messages() -> None:
    tracker = BurstTracker()
    for number in range(300):
        tracker.add(GUILD, AUTHOR, posting(number, 1, *map(str, range(30))), 0)
    assert len(tracker) == bursts.MAX_POSTINGS


def test_authors_are_forgotten_after_a_while() -> None:
    tracker = BurstTracker()
    tracker.add(GUILD, AUTHOR, posting(0, 1, "a"), 0)
    tracker.add(GUILD, 3, posting(1, 1, "a"), 100)
    tracker.expire(bursts.KEEP_SECONDS + 1)
    assert (tracker.knows(GUILD, AUTHOR), tracker.knows(GUILD, 3), len(tracker)) == (False, True, 1)
    tracker.forget(GUILD, 3)
    assert len(tracker) == 0
