"""Groups near-duplicate pictures and assigns each group to a split, so that no split leaks into another.

Pictures are linked by rules (same bytes, same series, similar hash, ...). Linked pictures must be in the same split, or
the model would be tested on copies of its training pictures. A hash of the group's first id decides the split.

**New images never move old ones.** Images are processed in ascending `image_id`, and the outcome for one depends only
on it and on smaller ids:

1. Find the groups of all earlier images that a rule links it to.
2. No group: it starts one, numbered by its id. A hash of seed and id gives the group its *bucket*:
   a fold of the cross-validation, and whether the group is for validation when that fold is not the test split.
3. Groups of one bucket: it joins them. They become one group, numbered by its smallest id.
4. Groups of different buckets: a **cross-split link**. Keeping the image would leak, and moving a group would change
   old splits. So it is left out and counted, and it links nothing.

So no link joins two splits, whatever fold is the test split, and every fold tests the same groups.

Splits are stratified by label. Each id has an order of preference among the buckets. A bucket that already holds more
than its share of the label (by `SLACK` and one picture) is skipped. This is consistent hashing with bounded loads
(Mirrokni, Thorup & Zadimoghaddam, 2018): most groups are where the hash alone would put them. So an image that leaves
the board, or a changed tag, moves few others. Quotas in order of id would move nearly all later ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.dataset import neighbours
from stages.dataset.neighbours import Pairs
from stages.workspace.progress import track

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Preferences = NDArray[np.uint8]

SLACK = 0.1
"""How far a bucket may exceed its share of a label, as a share of that share, before new groups skip it."""
HASH_BLOCK = 100_000
"""Ids that are hashed at once."""
NO_PAIRS: Pairs = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class LinkRule:
    """Links between pictures. Pictures with the same key are linked, and so are pictures with adjacent keys.

    A key is a value that pictures share: a hash, a series, an artist. So a million equal pictures are a million entries
    here, and not their 5 * 10^11 pairs.
    """

    name: str
    pictures: Ints
    """[k] positions of pictures (not ids). With `keys`: each picture's keys; a picture may have none or several."""
    keys: Ints
    """[k] numbers of keys, from 0, without gaps."""
    edges: Pairs = field(default_factory=lambda: NO_PAIRS)
    """[m, 2] adjacent keys, such as two hashes that differ in few bits."""

    def sizes(self) -> Ints:
        """Number of pictures with each key."""
        return np.bincount(self.keys)

    def pairs(self) -> int:
        """Number of picture pairs that the rule links."""
        sizes = self.sizes()
        return int((sizes * (sizes - 1) // 2).sum() + (sizes[self.edges[:, 0]] * sizes[self.edges[:, 1]]).sum())

    def linked(self) -> int:
        """Number of pictures that the rule links to at least one other."""
        shared = self.sizes() > 1
        shared[self.edges.ravel()] = True
        return len(np.unique(self.pictures[shared[self.keys]]))


def by_value(name: str, values: pa.ChunkedArray) -> LinkRule:
    """Link pictures with the same value [n]; null links nothing."""
    codes = values.combine_chunks().dictionary_encode().indices
    present = codes.is_valid().to_numpy(zero_copy_only=False)
    return LinkRule(name, np.flatnonzero(present), codes.drop_null().to_numpy().astype(np.int64))


def series(artists: pa.ChunkedArray, names: pa.ChunkedArray) -> pa.ChunkedArray:
    """The series that each picture belongs to: its artist, and its file name without trailing digits; else null.

    `Flag-of_X (12).PNG` and `flag-of_x.png` are of one series. A name of digits alone gives no series.
    """
    stems = pc.replace_substring_regex(names, r"\.[A-Za-z0-9]{1,5}$", "")
    stems = pc.replace_substring_regex(stems, r"[\d\s_.()\[\]-]+$", "")
    stems = pc.if_else(pc.equal(stems, ""), None, pc.utf8_lower(stems))
    return pc.binary_join_element_wise(artists, stems, "\n")  # null if either is null


def by_merge(ids: Ints, merged: Iterable[Iterable[int] | None]) -> LinkRule:
    """Link pictures that the board's moderators merged as duplicates.

    Two pictures are linked if the same image was merged into both, or if one was merged into the other.

    Args:
        ids: [n] image ids.
        merged: [n] for each picture the ids that were merged into it.
    """
    position_of = {image_id: position for position, image_id in enumerate(ids.tolist())}
    # The key is the merged image's id: the pictures that it was merged into have it ...
    entries = [(image_id, position) for position, images in enumerate(merged) for image_id in images or ()]
    # ... and so has the merged image itself, where it is still among the pictures.
    entries += [(image_id, position_of[image_id]) for image_id in {key for key, _ in entries} & position_of.keys()]
    pairs = np.array(sorted(set(entries)), np.int64).reshape(-1, 2)
    return LinkRule("merged", pairs[:, 1], np.unique(pairs[:, 0], return_inverse=True)[1].astype(np.int64))


def by_perceptual_hash(hashes: neighbours.Codes, max_distance: int) -> LinkRule:
    """Link pictures whose 64-bit perceptual hashes [n] differ in at most `max_distance` bits."""
    codes, keys = np.unique(hashes, return_inverse=True)
    edges = neighbours.hamming(codes, max_distance)
    return LinkRule("perceptual_hash", np.arange(len(hashes)), keys.astype(np.int64), edges)


def by_intensities(corners: Floats, reach: Floats, hashes: neighbours.Codes, max_distance: int) -> LinkRule:
    """Link near-duplicates by the board's own rule, confirmed by perceptual hashes.

    The board (Philomena) compares the mean brightness of a picture's four corners, and its aspect ratio. On a large
    board that also links pictures that merely have similar corners, and through them nearly all pictures. So the
    perceptual hashes must be similar, too.

    Args:
        corners: [n, 5] four intensities and the aspect ratio; a picture with a NaN is not linked.
        reach: [5] how far two pictures may differ in each.
        hashes: [n] 64-bit perceptual hashes.
        max_distance: bits in which the hashes may differ; with 64 the corners alone decide.
    """
    present = np.isfinite(corners).all(axis=1)
    points = corners[present]
    confirmed = max_distance < 64
    codes = hashes[present].astype(np.uint64)
    # Equal pictures share a key: sort them next to each other, and number the runs of equal ones.
    columns = [*points.T, codes] if confirmed else [*points.T]
    order = np.lexsort(columns)
    is_first = np.ones(len(order), bool)
    if len(order):
        is_first[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    keys = np.empty(len(order), np.int64)
    keys[order] = np.cumsum(is_first) - 1
    first = order[is_first]  # a picture of each key
    code = codes[first]

    def accept(pairs: Pairs) -> Flags:
        if not confirmed:
            return np.ones(len(pairs), bool)
        close: Flags = np.bitwise_count(code[pairs[:, 0]] ^ code[pairs[:, 1]]) <= max_distance
        return close

    return LinkRule("intensities", np.flatnonzero(present), keys, neighbours.box(points[first], reach, accept))


def bucket_preferences(ids: Ints, seed: int, weights: Floats) -> Preferences:
    """The order in which each image would prefer the buckets, if it started a group: weighted rendezvous hashing.

    A bucket is an image's first choice with a probability proportional to the bucket's weight.

    Args:
        ids: [n] image ids.
        seed: part of what is hashed.
        weights: [b] of the buckets.

    Returns:
        [n, b] numbers of buckets, the preferred one first.
    """
    orders = [np.empty((0, len(weights)), np.uint8)]
    for block in np.split(ids, range(HASH_BLOCK, len(ids), HASH_BLOCK)):
        digests = b"".join(
            hashlib.shake_128(f"{seed}:{image_id}".encode()).digest(8 * len(weights)) for image_id in block.tolist()
        )
        # The upper 53 bits of each 8 bytes are a uniform number in [0, 1): a double has 53 bits of precision.
        uniform = (np.frombuffer(digests, "<u8").reshape(len(block), len(weights)) >> np.uint64(11)) * 2.0**-53
        # -log(1 - u) / weight is exponentially distributed with the weight as its rate: the smallest one wins.
        orders.append(np.argsort(-np.log1p(-uniform) / weights, axis=1).astype(np.uint8))
    return np.concatenate(orders)


def assign(rules: list[LinkRule], preferred: Preferences, weights: Floats, strata: Ints) -> tuple[Ints, Ints]:
    """Group the pictures and give each group a bucket, as described at the top of this module.

    Args:
        rules: the links between pictures.
        preferred: [n, b] from `bucket_preferences`; pictures are in ascending order of id.
        weights: [b] share of each bucket; they sum to 1.
        strata: [n] label of each picture, as a number from 0.

    Returns:
        Each picture's group [n], as the position of the group's first picture, and its bucket [n]. Both are -1 for a
        picture with a cross-split link.
    """
    offsets = np.cumsum([0] + [int(rule.keys.max(initial=-1)) + 1 for rule in rules]).tolist()
    key_starts, keys, adjacent_starts, adjacent = _index(rules, offsets, len(strata))
    parent = list(range(len(strata)))  # a union-find forest: a group's root is its first picture
    bucket = [-1] * len(strata)
    # One kept picture per key is enough to find the group of all kept pictures with that key, and of those with
    # adjacent keys that came before: the later one of two linked pictures has joined their groups. So a picture costs a
    # look-up per key or edge, and the whole pass is nearly linear in pictures, keys and edges.
    kept_of_key = [-1] * offsets[-1]
    share = ((1 + SLACK) * weights).tolist()
    # How many pictures of each stratum are in each bucket.
    loads = [[0] * len(share) for _ in range(int(strata.max(initial=-1)) + 1)]
    totals = [0] * len(loads)

    def root(picture: int) -> int:
        while parent[picture] != picture:
            parent[picture] = picture = parent[parent[picture]]  # path halving
        return picture

    for picture, stratum in enumerate(track(strata.tolist(), "groups", len(strata))):
        load = loads[stratum]
        own_keys = keys[key_starts[picture] : key_starts[picture + 1]]
        groups = set()
        for key in own_keys:
            if kept_of_key[key] >= 0:
                groups.add(root(kept_of_key[key]))
            else:
                others = (kept_of_key[other] for other in adjacent[adjacent_starts[key] : adjacent_starts[key + 1]])
                groups.update(root(other) for other in others if other >= 0)
        if not groups:
            # Not all buckets can be over their shares at once, so there is always one with room.
            room = (at for at in preferred[picture].tolist() if load[at] < share[at] * (totals[stratum] + 1) + 1)
            bucket[picture] = next(room)
        elif len({bucket[group] for group in groups}) == 1:
            first = min(groups)
            for group in groups:
                parent[group] = first
            parent[picture] = first
            bucket[picture] = bucket[first]
        else:
            continue  # a cross-split link
        load[bucket[picture]] += 1
        totals[stratum] += 1
        for key in own_keys:
            if kept_of_key[key] < 0:
                kept_of_key[key] = picture
    buckets = np.array(bucket, np.int64)
    roots = np.array([root(picture) for picture in range(len(parent))], np.int64)
    return np.where(buckets < 0, -1, roots), buckets


def _index(rules: list[LinkRule], offsets: list[int], count: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Look-up tables from picture to keys and from key to adjacent keys, in compressed sparse row format.

    Keys of all rules are numbered through by adding the rule's offset. Keys that link nothing are left out.

    Returns:
        `key_starts`, `keys`, `adjacent_starts`, `adjacent`: the keys of picture p are
        `keys[key_starts[p]:key_starts[p + 1]]`, and those adjacent to key k likewise.
    """
    pictures = np.concatenate([np.empty(0, np.int64)] + [rule.pictures for rule in rules])
    keys = np.concatenate(
        [np.empty(0, np.int64)] + [rule.keys + start for rule, start in zip(rules, offsets, strict=False)]
    )
    edges = np.concatenate([NO_PAIRS] + [rule.edges + start for rule, start in zip(rules, offsets, strict=False)])
    shared = np.bincount(keys, minlength=offsets[-1]) > 1
    shared[edges.ravel()] = True
    pictures, keys = pictures[shared[keys]], keys[shared[keys]]
    key_starts = np.cumsum(np.bincount(pictures + 1, minlength=count + 1))
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacent_starts = np.cumsum(np.bincount(both[:, 0] + 1, minlength=offsets[-1] + 1))
    adjacent = both[np.argsort(both[:, 0], kind="stable"), 1]
    keys = keys[np.argsort(pictures, kind="stable")]
    return key_starts.tolist(), keys.tolist(), adjacent_starts.tolist(), adjacent.tolist()


def leaking_rules(rules: list[LinkRule], buckets: Ints) -> list[str]:
    """Names of the rules that link kept pictures of different buckets: an independent check of `assign`.

    `buckets` [n] is negative for a picture that is left out.
    """
    leaking = []
    for rule in rules:
        kept = buckets[rule.pictures] >= 0
        keys, own = rule.keys[kept], buckets[rule.pictures][kept]
        # A rule does not leak if the lowest and highest bucket are equal for each key and for each edge.
        low = np.full(rule.keys.max(initial=-1) + 1, np.iinfo(np.int64).max)
        high = np.full(len(low), -1)
        np.minimum.at(low, keys, own)
        np.maximum.at(high, keys, own)
        first, second = rule.edges.T
        both = (high[first] >= 0) & (high[second] >= 0)
        if (low[high >= 0] != high[high >= 0]).any() or (low[first] != low[second])[both].any():
            leaking.append(rule.name)
    return leaking
