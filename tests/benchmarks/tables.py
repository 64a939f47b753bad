"""A Philomena board's two dozen tables: their sizes and their rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from making import Columns, Keys, chosen, hexadecimal, where

from stages.philomena.board import slug
from stages.philomena.tags import RATINGS

FAVES, COMMENTS, TOPICS, POSTS, GALLERIES = 75, 12_000_000, 60_000, 5_000_000, 100_000
TAG_CHANGES, SOURCE_CHANGES = 25_000_000, 2_000_000
"""Assumptions: mean number of favourites per image; rows at full scale."""
TAGS_P50, TAGS_SIGMA = 16, 0.565
"""Log-normal: p50 16, p90 33, p99 58, mean 18.8; 60 million taggings of 3.2 million images."""
FIRST_FREE = len(RATINGS) + 1
HIDDEN, MERGED = 0.05, 0.02
"""Shares of the images; merged ones are hidden, too."""
MIME = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml", "webm": "video/webm"}


@dataclass(frozen=True)
class Size:
    """What a board's size, and all its rows, depend on."""

    scale: float = 0.1
    """1.0 is 3.2 million images."""
    seed: int = 0
    bare: bool = False
    """Leave out every key, index and constraint."""

    def count(self, at_full_scale: float) -> int:
        """The number of rows of a table that has so many at full scale."""
        return max(10, round(at_full_scale * self.scale))

    @functools.cached_property
    def images(self) -> int:
        return self.count(3_200_000)

    @functools.cached_property
    def tags(self) -> int:
        return max(300, self.count(500_000))

    @functools.cached_property
    def artists(self) -> int:
        """The id of the first artist's tag."""
        return self.tags * 2 // 3

    @functools.cached_property
    def users(self) -> int:
        return self.count(600_000)


def images(size: Size, keys: Keys) -> Columns:
    created = keys.moment(keys.keys / size.images)
    ending = chosen(
        keys.whole(1, 64), ["PNG", "svg", "JPEG", *["jpeg"] * 4, *["jpg"] * 18, "gif", "gif", "webm"], "png"
    )
    width, height = keys.whole(2, 2400) + 80, keys.whole(3, 2400) + 80
    served = np.char.lower(ending)
    mime = np.array([MIME.get(name, "image/png") for name in served.tolist()])
    names = [f"{word}.{end}" for word, end in zip(keys.text(7, 8, 40), ending.tolist(), strict=True)]
    paths_ = [
        f"{at.year}/{at.month}/{at.day}/{id}/" for at, id in zip(created.tolist(), keys.keys.tolist(), strict=True)
    ]
    return [
        keys.keys, created, keys.later(created, 4, 400), width, height, keys.whole(5, 3_000_000),
        keys.whole(8, 9) - 1, keys.whole(9, 300), keys.whole(10, 200), keys.whole(11, 320), keys.whole(12, 8) - 1,
        keys.whole(13, 4) - 1, width / height, keys.whole(14, size.users), hidden(keys), mime, ending, names, paths_,
        hexadecimal(keys, 100), hexadecimal(keys, 200), where(keys.chance(16) < 0.6, keys.text(17, 3, 250), ""),
    ]  # fmt: skip


def hidden(keys: Keys) -> np.ndarray:
    return keys.chance(15) < HIDDEN


def merged(keys: Keys) -> np.ndarray:
    return (keys.chance(15) < MERGED) & (keys.keys > 1)


def image_taggings(size: Size, keys: Keys) -> Columns:
    count = np.clip(np.round(TAGS_P50 * np.exp(TAGS_SIGMA * keys.normal(20))), 1, 250).astype(np.int64)
    safe, chance = keys.chance(22) < 0.7, keys.chance(23)
    fixed = [  # pairs of mask and tag: ratings first (`safe` excludes the others), then an artist
        (np.full(len(safe), True), np.where(safe, 1, 1 + keys.whole(24, 3))),
        (~safe & (chance < 0.1), 4 + keys.whole(25, 2)),
        (~safe & (chance > 0.95), np.full(len(safe), 7)),
        (keys.chance(26) < 0.85, keys.zipf(27, size.artists, size.tags)),
    ]
    owner, draws = keys.repeat(count * 2 + 8)  # more than needed: common tags are drawn twice
    drawn = draws.zipf(28, FIRST_FREE, size.artists - 1)
    drawn -= is_alias(size, drawn)
    rows = np.arange(len(count))
    owners = np.concatenate([*(rows[which] for which, _ in fixed), owner])
    tags = np.concatenate([*(tag[which] for which, tag in fixed), drawn])
    order = np.argsort(owners, kind="stable")
    owners, tags = owners[order], tags[order]
    _, first = np.unique(owners << 32 | tags, return_index=True)
    first.sort()
    owners, tags = owners[first], tags[first]
    place = np.arange(len(owners)) - np.searchsorted(owners, rows)[owners]
    kept = place < count[owners]
    both = np.sort(owners[kept] << 32 | tags[kept])
    return [keys.keys[both >> 32], both & 0xFFFFFFFF]


def is_alias(size: Size, tags: np.ndarray) -> np.ndarray:
    return (tags > 1000) & (tags % 12 == 0) & (tags < size.artists)


def tags(size: Size, keys: Keys) -> Columns:
    ids, artist = keys.keys, keys.keys >= size.artists
    words = zip(ids.tolist(), artist.tolist(), keys.text(30, 4, 18), strict=True)
    names = [f"artist:{word.replace(' ', '-')}{id}" if is_artist else f"{word} {id}" for id, is_artist, word in words]
    names = [RATINGS[id - 1] if id < FIRST_FREE else name for id, name in zip(ids.tolist(), names, strict=True)]
    kinds = chosen(keys.whole(31, 12), ["character", "oc", "species", "content-official"], "")
    category = np.where(ids < FIRST_FREE, "rating", np.where(artist, "origin", kinds))
    return [
        ids, (size.images / ids).astype(np.int64), names, [slug(name) for name in names],
        where(category != "", category, None), where(keys.chance(32) < 0.1, keys.text(33, 20, 200), None),
        where(keys.chance(34) < 0.2, keys.text(35, 10, 60), None),
    ]  # fmt: skip


def image_duplicates(size: Size, keys: Keys) -> Columns:
    keys = keys.select(merged(keys))
    return [keys.keys, 1 + (keys.chance(40) * (keys.keys - 1)).astype(np.int64)]


def image_hides(size: Size, keys: Keys) -> Columns:
    keys = keys.select(hidden(keys) & ~merged(keys))
    return [keys.keys, [f"Rule {number}" for number in keys.whole(41, 9).tolist()]]


def tag_aliases(size: Size, keys: Keys) -> Columns:
    keys = keys.select(is_alias(size, keys.keys))
    return [keys.keys, keys.keys - 1]


def tag_implications(size: Size, keys: Keys) -> Columns:
    keys = keys.select(keys.keys % 9 == 0)
    return [keys.keys, keys.zipf(42, 1, size.tags)]


def users(size: Size, keys: Keys) -> Columns:
    names = [f"{word}{id}" for word, id in zip(keys.text(43, 4, 16), keys.keys.tolist(), strict=True)]
    return [keys.keys, names, names, keys.moment(keys.keys / size.users)]


def image_sources(size: Size, keys: Keys) -> Columns:
    keys = keys.select(keys.chance(44) < 0.9)
    return [keys.keys, addresses(keys)]


def addresses(keys: Keys) -> list[str]:
    words = zip(keys.text(45, 6, 16), keys.whole(46, 10**9).tolist(), strict=True)
    return [f"https://www.example.org/{word.replace(' ', '')}/art/{number}" for word, number in words]


def of_images(size: Size, keys: Keys, mean: float, salt: int) -> tuple[np.ndarray, Keys, np.ndarray]:
    """Rows that belong to images, an exponentially distributed number each: image, key, and time after the image's."""
    owner, draws = keys.repeat((-mean * np.log1p(-keys.chance(salt)) + 0.5).astype(np.int64))
    ids = keys.keys[owner]
    return ids, draws, draws.later(keys.moment(ids / size.images), salt + 1, 30)


def image_faves(size: Size, keys: Keys) -> Columns:
    ids, draws, at = of_images(size, keys, FAVES, 50)
    both, first = np.unique(ids << 32 | draws.zipf(52, 1, size.users) * 7919 % size.users + 1, return_index=True)
    return [both >> 32, both & 0xFFFFFFFF, at[first]]


def of_users(size: Size, keys: Keys, count: int) -> Columns:
    """The columns id, user_id and created_at."""
    return [keys.keys, keys.zipf(60, 1, size.users), keys.moment(keys.keys / count)]


def comments(size: Size, keys: Keys) -> Columns:
    id, user, at = of_users(size, keys, size.count(COMMENTS))
    return [id, keys.whole(61, size.images), user, at, keys.text(62, 10, 300)]


def topics(size: Size, keys: Keys) -> Columns:
    id, user, at = of_users(size, keys, size.count(TOPICS))
    return [id, keys.whole(63, 10), user, at, keys.text(64, 10, 80)]


def posts(size: Size, keys: Keys) -> Columns:
    id, user, at = of_users(size, keys, size.count(POSTS))
    return [id, keys.zipf(65, 1, size.count(TOPICS)), user, at, keys.text(66, 10, 700)]


def galleries(size: Size, keys: Keys) -> Columns:
    return [*of_users(size, keys, size.count(GALLERIES)), keys.text(67, 5, 40), keys.text(68, 0, 200)]


def gallery_interactions(size: Size, keys: Keys) -> Columns:
    owner, draws = keys.repeat((-60 * np.log1p(-keys.chance(69))).astype(np.int64))
    both = np.unique(owner << 32 | draws.whole(70, size.images))
    return [keys.keys[both >> 32], both & 0xFFFFFFFF, np.arange(len(both))]


def tag_changes(size: Size, keys: Keys) -> Columns:
    id, user, at = of_users(size, keys, size.count(TAG_CHANGES))
    return [id, keys.whole(71, size.images), user, at]


def tag_change_tags(size: Size, keys: Keys) -> Columns:
    owner, draws = keys.repeat(keys.zipf(72, 1, 12))
    both = np.unique(owner << 32 | draws.zipf(73, 1, size.tags))
    return [keys.keys[both >> 32], both & 0xFFFFFFFF, both % 5 > 0]


def source_changes(size: Size, keys: Keys) -> Columns:
    id, user, at = of_users(size, keys, size.count(SOURCE_CHANGES))
    return [id, keys.whole(74, size.images), user, at, keys.chance(75) < 0.7, addresses(keys)]


def artist_links(size: Size, keys: Keys) -> Columns:
    return [keys.zipf(76, 1, size.users), keys.keys - 1 + size.artists, addresses(keys)]


def badge_awards(size: Size, keys: Keys) -> Columns:
    return [keys.whole(77, size.users), keys.whole(78, 10), keys.moment(keys.chance(79))]


def image_features(size: Size, keys: Keys) -> Columns:
    return [keys.whole(80, size.images), keys.moment(keys.chance(81))]


def dnp_entries(size: Size, keys: Keys) -> Columns:
    return [keys.keys, keys.keys - 1 + size.artists, keys.text(82, 20, 300)]


def image_intensities(size: Size, keys: Keys) -> Columns:
    return [keys.keys, *(255 * keys.chance(salt) for salt in (83, 84, 85, 86))]


def named(size: Size, keys: Keys) -> Columns:
    return [keys.keys, keys.text(87, 5, 20)]


TABLES: dict[str, tuple[Callable[[Size, Keys], Columns], Callable[[Size], int]]] = {
    "users": (users, lambda size: size.users),
    "images": (images, lambda size: size.images),
    "tags": (tags, lambda size: size.tags),
    "image_taggings": (image_taggings, lambda size: size.images),
    "image_intensities": (image_intensities, lambda size: size.images),
    "image_duplicates": (image_duplicates, lambda size: size.images),
    "image_hides": (image_hides, lambda size: size.images),
    "image_sources": (image_sources, lambda size: size.images),
    "image_faves": (image_faves, lambda size: size.images),
    "tag_aliases": (tag_aliases, lambda size: size.tags),
    "tag_implications": (tag_implications, lambda size: size.tags),
    "comments": (comments, lambda size: size.count(COMMENTS)),
    "forums": (named, lambda size: 10),
    "topics": (topics, lambda size: size.count(TOPICS)),
    "posts": (posts, lambda size: size.count(POSTS)),
    "galleries": (galleries, lambda size: size.count(GALLERIES)),
    "gallery_interactions": (gallery_interactions, lambda size: size.count(GALLERIES)),
    "tag_changes": (tag_changes, lambda size: size.count(TAG_CHANGES)),
    "tag_change_tags": (tag_change_tags, lambda size: size.count(TAG_CHANGES)),
    "source_changes": (source_changes, lambda size: size.count(SOURCE_CHANGES)),
    "artist_links": (artist_links, lambda size: size.count(20_000)),
    "badges": (named, lambda size: 10),
    "badge_awards": (badge_awards, lambda size: size.count(100_000)),
    "image_features": (image_features, lambda size: size.count(3_000)),
    "dnp_entries": (dnp_entries, lambda size: size.count(3_000)),
}
"""Table -> the function that generates its rows from keys, and the number of keys."""
