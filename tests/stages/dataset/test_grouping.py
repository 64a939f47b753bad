"""Which pictures are linked, and how groups and buckets change when new pictures come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dataset import grouping
from stages.dataset.grouping import LinkRule

WEIGHTS = np.tile([0.85, 0.15], 5) / 5


def together(rule: LinkRule) -> set[frozenset[int]]:
    """The sets of pictures that share a key."""
    of_key = {key: frozenset(rule.pictures[rule.keys == key].tolist()) for key in rule.keys.tolist()}
    return {pictures for pictures in of_key.values() if len(pictures) > 1}


def assigned(rules: list[LinkRule], count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    preferred = grouping.bucket_preferences(np.arange(count) * 7 + 3, seed, WEIGHTS)
    return grouping.assign(rules, preferred, WEIGHTS, np.arange(count) % 3)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("fc10.png", "fc"),
        ("Flag-of_X (12).PNG", "flag-of_x"),
        ("flag-of_x.svg", "flag-of_x"),
        ("comic_3_04.jpeg", "comic"),
        ("no extension 7", "no extension"),
        ("route66 map.gif", "route66 map"),
        ("émeraude-2.png", "émeraude"),
        ("2463559.png", None),
        (None, None),
    ],
)
def test_a_series_is_named_by_artist_and_name_without_trailing_digits(name: str | None, stem: str | None) -> None:
    names = pa.chunked_array([pa.array([name], pa.string())])
    found = grouping.series(pa.chunked_array([pa.array(["ann"])]), names).to_pylist()
    assert found == [stem and f"ann\n{stem}"]
    assert grouping.series(pa.chunked_array([pa.array([None], pa.string())]), names).to_pylist() == [None]


def test_equal_values_are_linked_and_nulls_are_not() -> None:
    assert together(grouping.by_value("x", pa.chunked_array([["a", None, "b"], ["a", None]]))) == {frozenset({0, 3})}


def test_merged_pictures_are_linked() -> None:
    rule = grouping.by_merge(np.array([5, 6, 7, 9, 11]), [[1], None, [1, 2], [6], []])
    assert together(rule) == {frozenset({0, 2}), frozenset({1, 3})}


def test_the_intensity_rule_links_up_to_its_limits() -> None:
    corners = np.array(
        [
            [10, 20, 30, 40, 1.0],
            [10.75, 19.25, 30, 40, 1.05],
            [10, 20, 30, 40.76, 1.0],
            [10, 20, 30, 40, 1.06],
            [np.nan, 20, 30, 40, 1.0],
            [np.nan, 20, 30, 40, 1.0],
        ]
    )
    reach = np.array([0.75] * 4 + [0.0500001])
    hashes = np.array([0, 2**17 - 1, 0, 0, 0, 0], np.uint64)
    rule = grouping.by_intensities(corners, reach, hashes, 64)
    assert (rule.pairs(), rule.linked()) == (2, 3)  # 0-1 and 1-3
    assert grouping.by_intensities(corners, reach, hashes, 17).pairs() == 2
    assert grouping.by_intensities(corners, reach, hashes, 16).pairs() == 0


def test_a_hundred_thousand_equal_pictures_need_no_quadratic_memory() -> None:
    count = 100_000
    hashes = np.zeros(count, np.uint64)
    white = np.tile([255.0, 255, 255, 255, 1], (count, 1))
    rules = [
        grouping.by_perceptual_hash(hashes, 4),
        grouping.by_intensities(white, np.array([0.75] * 4 + [0.05]), hashes, 64),
    ]
    assert [rule.pairs() for rule in rules] == [count * (count - 1) // 2] * 2
    assert (assigned(rules, count)[0] == 0).all()


@st.composite
def links(draw: st.DrawFn) -> tuple[int, list[list[int]], list[list[tuple[int, int]]]]:
    """The number of pictures, each rule's key of each picture (-1 for none), and each rule's edges between keys."""
    count = draw(st.integers(1, 40))
    keys, edges = [], []
    for _ in range(draw(st.integers(1, 3))):
        distinct = draw(st.integers(1, 30))
        keys.append(draw(st.lists(st.integers(-1, distinct - 1), min_size=count, max_size=count)))
        pairs = draw(st.lists(st.tuples(st.integers(0, distinct - 1), st.integers(0, distinct - 1)), max_size=15))
        edges.append([(first, second) for first, second in pairs if first != second])
    return count, keys, edges


def rules_of(count: int, keys: list[list[int]], edges: list[list[tuple[int, int]]]) -> list[LinkRule]:
    """The rules when only the first `count` pictures are known: keys without pictures do not exist."""
    rules = []
    for own, pairs in zip(keys, edges, strict=True):
        numbers = np.array(own[:count])
        pictures = np.flatnonzero(numbers >= 0)
        known_keys, renumbered = np.unique(numbers[pictures], return_inverse=True)
        new = {key: number for number, key in enumerate(known_keys.tolist())}
        known = [(new[first], new[second]) for first, second in pairs if first in new and second in new]
        rules.append(LinkRule("rule", pictures, renumbered, np.array(known, np.int64).reshape(-1, 2)))
    return rules


def linked_pairs(rules: list[LinkRule]) -> set[tuple[int, int]]:
    """Every linked pair, by comparing all pictures."""
    pairs = set()
    for rule in rules:
        touching = {(key, key) for key in rule.keys.tolist()} | {tuple(edge) for edge in rule.edges.tolist()}
        for first, second in touching:
            for left in rule.pictures[rule.keys == first].tolist():
                pairs |= {(left, right) for right in rule.pictures[rule.keys == second].tolist() if left != right}
    return pairs | {(right, left) for left, right in pairs}


@settings(max_examples=200)
@given(links(), st.data(), st.integers(0, 5))
def test_new_images_never_move_old_ones(
    graph: tuple[int, list[list[int]], list[list[tuple[int, int]]]], data: st.DataObject, seed: int
) -> None:
    count, keys, edges = graph
    known = data.draw(st.integers(0, count))
    _, before = assigned(rules_of(known, keys, edges), known, seed)
    _, after = assigned(rules_of(count, keys, edges), count, seed)
    assert after[:known].tolist() == before.tolist()


@settings(max_examples=200)
@given(links(), st.integers(0, 5))
def test_no_link_joins_two_buckets_and_only_cross_split_links_are_left_out(
    graph: tuple[int, list[list[int]], list[list[tuple[int, int]]]], seed: int
) -> None:
    rules = rules_of(*graph)
    group, bucket = assigned(rules, graph[0], seed)
    pairs = linked_pairs(rules)
    assert [(a, b) for a, b in pairs if bucket[a] >= 0 <= bucket[b] and group[a] != group[b]] == []
    assert grouping.leaking_rules(rules, bucket) == []
    assert ((group < 0) == (bucket < 0)).all()
    for picture in np.flatnonzero(bucket < 0).tolist():
        earlier = {int(bucket[other]) for other in range(picture) if (other, picture) in pairs} - {-1}
        assert len(earlier) > 1, "left out without a cross-split link"
    kept = np.flatnonzero(bucket >= 0)
    assert (group[group[kept]] == group[kept]).all()
    assert (group[kept] <= kept).all(), "a group is numbered by its first picture"
    assert (bucket[group[kept]] == bucket[kept]).all()


def test_a_leak_is_found() -> None:
    same = LinkRule("same", np.array([0, 1, 2]), np.array([0, 0, 1]))
    near = LinkRule("near", np.array([0, 2]), np.array([0, 1]), np.array([[0, 1]]))
    assert grouping.leaking_rules([same, near], np.array([1, 1, 2])) == ["near"]
    assert grouping.leaking_rules([same, near], np.array([1, 2, 1])) == ["same"]
    assert grouping.leaking_rules([same, near], np.array([1, -1, 1])) == []


def test_buckets_get_their_shares_of_each_label_and_the_hash_decides_most() -> None:
    ids = np.arange(1, 5001)
    preferred = grouping.bucket_preferences(ids, 0, WEIGHTS)
    strata = (ids % 7 == 0).astype(int)
    _, bucket = grouping.assign([], preferred, WEIGHTS, strata)
    for stratum in (0, 1):
        counts = np.bincount(bucket[strata == stratum], minlength=10)
        assert (counts <= (1 + grouping.SLACK) * WEIGHTS * counts.sum() + 2).all()
    assert (bucket == preferred[:, 0]).mean() > 0.95


def test_one_picture_that_leaves_the_board_moves_few_others() -> None:
    preferred = grouping.bucket_preferences(np.arange(5000), 0, WEIGHTS)
    strata = np.arange(5000) % 2
    _, whole = grouping.assign([], preferred, WEIGHTS, strata)
    _, rest = grouping.assign([], preferred[1:], WEIGHTS, strata[1:])
    assert (whole[1:] != rest).mean() < 0.01


def test_preferences_repeat_and_differ_by_seed() -> None:
    golden = grouping.bucket_preferences(np.array([1, 2463559]), 0, WEIGHTS)
    assert golden.tolist() == [[8, 6, 4, 7, 0, 1, 2, 9, 5, 3], [6, 4, 2, 0, 8, 5, 1, 3, 7, 9]]
    assert golden.tolist() != grouping.bucket_preferences(np.array([1, 2463559]), 1, WEIGHTS).tolist()
