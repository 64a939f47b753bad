"""Pictures that must share a split are linked by rules; groups of linked pictures get their split by hash, for good.

**New images never move old ones.** Images take their turn in ascending `image_id`, and what becomes of one depends on
nothing but it and the smaller ids:

1. It is linked to the groups of all earlier images that a rule links it to.
2. Linked to none, it founds a group, whose key and number is its own id. The group's *bucket* (a fold of the
   cross-validation, and whether it is for validation when that fold is not the test split) is decided by a hash of
   seed and key, as `preferences` says.
3. Linked to groups of one bucket, it joins them; they become one group, numbered by the smallest id.
4. Linked to groups of different buckets, it is a **bridge**: to keep it would leak, or move a group. It is left out,
   counted, and links nothing.

So no link joins two splits, whatever the fold, and each fold tests the same groups. The price is the bridges.

Splits are stratified: a key has an order of preference among the buckets, and a bucket that already has more than its
share of the founder's label, by `SLACK` and one picture, is passed over for the next. That is consistent hashing with
bounded loads (Mirrokni, Thorup & Zadimoghaddam, 2018): most groups are where the hash alone would put them, for any
policy, so a picture that leaves the board, a mended tag or one between old ids moves few others; quotas in order of id
would move nearly all later ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from stages.dataset import neighbours
from stages.dataset.neighbours import Pairs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SLACK = 0.1
"""How far over its share of a label a bucket may be before a new group passes it over."""
NO_PAIRS: Pairs = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class Rule:
    """Links between pictures: those of one atom are linked each with each, and with those of each adjacent atom.

    An atom is a value that pictures share (a hash, a series, an artist), so a million equal pictures are a million
    entries here and not their pairs.
    """

    name: str
    pictures: Ints
    """[k] positions of pictures, none negative; with `atoms`, each picture's atoms."""
    atoms: Ints
    """[k] numbers of atoms, from 0, without gaps."""
    edges: Pairs = field(default_factory=lambda: NO_PAIRS)
    """[m, 2] adjacent atoms."""

    def sizes(self) -> Ints:
        """Pictures of each atom."""
        return np.bincount(self.atoms)

    def pairs(self) -> int:
        """How many pairs of pictures the rule links."""
        sizes = self.sizes()
        return int((sizes * (sizes - 1) // 2).sum() + (sizes[self.edges[:, 0]] * sizes[self.edges[:, 1]]).sum())

    def linked(self) -> int:
        """How many pictures the rule links to another one."""
        shared = self.sizes() > 1
        shared[self.edges.ravel()] = True
        return len(np.unique(self.pictures[shared[self.atoms]]))


def equal(name: str, values: pa.ChunkedArray) -> Rule:
    """Pictures of the same value [n] are linked; those of none (null) are not."""
    codes = values.combine_chunks().dictionary_encode().indices
    present = codes.is_valid().to_numpy(zero_copy_only=False)
    return Rule(name, np.flatnonzero(present), codes.drop_null().to_numpy().astype(np.int64))


def series(artists: pa.ChunkedArray, names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which series each picture is of: its artist and the picture's file name but for trailing digits; else null.

    `Flag-of_X (12).PNG` and `flag-of_x.png` are of one series. A name of digits alone is of none.
    """
    stems = pc.replace_substring_regex(names, r"\.[A-Za-z0-9]{1,5}$", "")
    stems = pc.replace_substring_regex(stems, r"[\d\s_.()\[\]-]+$", "")
    stems = pc.if_else(pc.equal(stems, ""), None, pc.utf8_lower(stems))
    return pc.binary_join_element_wise(artists, stems, "\n")  # null where either is


def merged(ids: Ints, lists: Iterable[Iterable[int] | None]) -> Rule:
    """Pictures are linked that took in the same image by a merge, or of which one took in the other."""
    known = {image: position for position, image in enumerate(ids.tolist())}
    taken = [(image, position) for position, images in enumerate(lists) for image in images or ()]
    taken += [(image, known[image]) for image in {image for image, _ in taken} & known.keys()]
    pairs = np.array(sorted(set(taken)), np.int64).reshape(-1, 2)
    return Rule("merged", pairs[:, 1], np.unique(pairs[:, 0], return_inverse=True)[1].astype(np.int64))


def perceptual(hashes: neighbours.Codes, most: int) -> Rule:
    """Pictures whose 64-bit perceptual hashes [n] differ in at most `most` bits are linked."""
    codes, atoms = np.unique(hashes, return_inverse=True)
    return Rule("perceptual_hash", np.arange(len(hashes)), atoms.astype(np.int64), neighbours.hamming(codes, most))


def intensities(corners: Floats, reach: Floats, hashes: neighbours.Codes, most: int) -> Rule:
    """The board's rule for near-duplicates: pictures differ by at most `reach` [5] in each of `corners` [n, 5].

    Those are the four corners' intensities and the aspect ratio; a picture without them (NaN) is linked to none.
    On a large board the rule links what merely is as bright in four places, and through it nearly all pictures. So
    their perceptual hashes [n] must agree, too, in all but `most` bits; with 64 the corners alone decide.
    """
    present = np.isfinite(corners).all(axis=1)
    chosen = corners[present]
    checked = most < 64
    codes = hashes[present].astype(np.uint64)
    columns = [*chosen.T, codes] if checked else [*chosen.T]
    order = np.lexsort(columns)
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    atoms = np.empty(len(order), np.int64)
    atoms[order] = np.cumsum(new) - 1
    first = order[new]
    code = codes[first]

    def accept(pairs: Pairs) -> Flags:
        if not checked:
            return np.ones(len(pairs), bool)
        differing: Flags = np.bitwise_count(code[pairs[:, 0]] ^ code[pairs[:, 1]]) <= most
        return differing

    return Rule("intensities", np.flatnonzero(present), atoms, neighbours.box(chosen[first], reach, accept))


def preferences(ids: Ints, seed: int, weights: Floats) -> NDArray[np.uint8]:
    """For each image, were it a group's key: the buckets [n, b] in order of preference, by weighted rendezvous hashing.

    The first one is each bucket with a probability in proportion to its weight.
    """
    orders = [np.empty((0, len(weights)), np.uint8)]
    for block in np.split(ids, range(100_000, len(ids), 100_000)):
        drawn = b"".join(hashlib.shake_128(f"{seed}:{key}".encode()).digest(8 * len(weights)) for key in block.tolist())
        uniform = (np.frombuffer(drawn, "<u8").reshape(len(block), len(weights)) >> np.uint64(11)) * 2.0**-53
        orders.append(np.argsort(-np.log1p(-uniform) / weights, axis=1).astype(np.uint8))
    return np.concatenate(orders)


def assign(rules: list[Rule], preferred: NDArray[np.uint8], weights: Floats, strata: Ints) -> tuple[Ints, Ints]:
    """Each picture's group [n], as the position of its first picture, and its bucket [n]; both -1 for a bridge.

    Pictures are in ascending order of id; `preferred` [n, b] is from `preferences`, `weights` [b] sum to 1, `strata`
    [n] are from 0. One pass, near-linear in pictures, atoms and edges: an atom with a kept picture stands for all its
    pictures, and for those of adjacent atoms that are kept, too, for they were joined when the later of both came.
    """
    offsets = np.cumsum([0] + [int(rule.atoms.max(initial=-1)) + 1 for rule in rules]).tolist()
    starts, atoms, firsts, adjacent = _indexed(rules, offsets, len(strata))
    parent = list(range(len(strata)))
    bucket = [-1] * len(strata)
    kept_of = [-1] * offsets[-1]  # a kept picture of each atom
    share = ((1 + SLACK) * weights).tolist()
    loads = [[0] * len(share) for _ in range(int(strata.max(initial=-1)) + 1)]
    totals = [0] * len(loads)

    def root(picture: int) -> int:
        while parent[picture] != picture:
            parent[picture] = picture = parent[parent[picture]]
        return picture

    for own, stratum in enumerate(tqdm(strata.tolist(), "groups", disable=None, leave=False)):
        load = loads[stratum]
        mine = atoms[starts[own] : starts[own + 1]]
        found = set()
        for atom in mine:
            if kept_of[atom] >= 0:
                found.add(root(kept_of[atom]))
            else:
                others = (kept_of[other] for other in adjacent[firsts[atom] : firsts[atom + 1]])
                found.update(root(other) for other in others if other >= 0)
        if not found:
            room = (at for at in preferred[own].tolist() if load[at] < share[at] * (totals[stratum] + 1) + 1)
            bucket[own] = next(room)  # there is one: all can not be above their share
        elif len({bucket[group] for group in found}) == 1:
            first = min(found)
            for group in found:
                parent[group] = first
            parent[own] = first
            bucket[own] = bucket[first]
        else:
            continue
        load[bucket[own]] += 1
        totals[stratum] += 1
        for atom in mine:
            if kept_of[atom] < 0:
                kept_of[atom] = own
    buckets = np.array(bucket, np.int64)
    return np.where(buckets < 0, -1, np.array([root(picture) for picture in range(len(parent))], np.int64)), buckets


def _indexed(rules: list[Rule], offsets: list[int], count: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Where each picture's atoms start, and they; where each atom's adjacent atoms start, and they.

    Atoms are numbered through all rules by `offsets`; those that link nothing are left out.
    """
    pictures = np.concatenate([np.empty(0, np.int64)] + [rule.pictures for rule in rules])
    atoms = np.concatenate(
        [np.empty(0, np.int64)] + [rule.atoms + start for rule, start in zip(rules, offsets, strict=False)]
    )
    edges = np.concatenate([NO_PAIRS] + [rule.edges + start for rule, start in zip(rules, offsets, strict=False)])
    shared = np.bincount(atoms, minlength=offsets[-1]) > 1
    shared[edges.ravel()] = True
    pictures, atoms = pictures[shared[atoms]], atoms[shared[atoms]]
    starts = np.cumsum(np.bincount(pictures + 1, minlength=count + 1))
    both = np.concatenate([edges, edges[:, ::-1]])
    firsts = np.cumsum(np.bincount(both[:, 0] + 1, minlength=offsets[-1] + 1))
    adjacent = both[np.argsort(both[:, 0], kind="stable"), 1]
    return starts.tolist(), atoms[np.argsort(pictures, kind="stable")].tolist(), firsts.tolist(), adjacent.tolist()


def leaks(rules: list[Rule], buckets: Ints) -> list[str]:
    """Names of the rules that link two buckets; `buckets` [n] is negative for a picture left out. To check by."""
    found = []
    for rule in rules:
        kept = buckets[rule.pictures] >= 0
        atoms, own = rule.atoms[kept], buckets[rule.pictures][kept]
        low = np.full(rule.atoms.max(initial=-1) + 1, np.iinfo(np.int64).max)
        high = np.full(len(low), -1)
        np.minimum.at(low, atoms, own)
        np.maximum.at(high, atoms, own)
        first, second = rule.edges.T
        both = (high[first] >= 0) & (high[second] >= 0)
        apart = (low[high >= 0] != high[high >= 0]).any() or (low[first] != low[second])[both].any()
        found += [rule.name] if apart else []
    return found
