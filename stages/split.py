"""data/extract/images.parquet, data/download/shards -> data/split/{train,val,test}.parquet, summary.json."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.config.split import Split
from stages.dataset import grouping, hashes, splits
from stages.dataset.grouping import Floats, Ints, LinkRule, Preferences
from stages.dataset.splits import Names
from stages.workspace import shards
from stages.workspace.errors import MLpyError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.paths import IMAGES, SHARDS, SPLIT_SUMMARY, SPLITS

log = logging.getLogger(__name__)

LEFT_OUT = ""
"""In place of a split's name, for a picture with a cross-split link."""
CORNERS = ("nw", "ne", "sw", "se")
COLUMNS = ("image_id", "width", "height", "sha512", "artist", "origin", *CORNERS, "merged", "name")
"""Columns of the catalogue that the link rules read."""
LARGE = 0.05
"""Share of all pictures from which a group is suspiciously large."""


def main() -> None:
    params = load(Split)
    catalogue, undecodable, pictures = read()
    rules = link_rules(pictures, params)
    groups, names = assign(pictures, rules, params)
    summary = fold(params) | summarise(pictures, catalogue, undecodable, rules, groups, names)
    splits.write(IMAGES, SPLITS, pictures["image_id"].to_numpy(), groups, names)
    with replacing(SPLIT_SUMMARY) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")


def read() -> tuple[int, int, pa.Table]:
    """Read the catalogue, and hash the downloaded pictures.

    Returns:
        The catalogue's number of rows. How many of its pictures were downloaded but cannot be decoded. The others by
        ascending id: `COLUMNS`, `label` (strings or lists), `sha256`, `phash`.
    """
    if not IMAGES.exists():
        raise MLpyError(f"there is no {IMAGES}; run `dvc repro extract`")
    schema = pq.read_schema(IMAGES)
    label = "labels" if "labels" in schema.names else "label"
    catalogue = pq.read_table(IMAGES, columns=[*COLUMNS, label]).rename_columns({label: "label"})
    hashed = hashes.of_shards(shards.files(SHARDS))
    # The pictures that are in both, by ascending id, and where.
    _, listed, stored = np.intersect1d(catalogue["image_id"], hashed["image_id"], return_indices=True)
    pictures = catalogue.take(listed).replace_schema_metadata(schema.metadata)
    for column in ("sha256", "phash"):
        pictures = pictures.append_column(column, hashed[column].take(stored))
    undecodable = pictures["phash"].null_count
    return len(catalogue), undecodable, pictures.filter(pc.is_valid(pictures["phash"])) if undecodable else pictures


def link_rules(pictures: pa.Table, params: Split) -> list[LinkRule]:
    """The links of every rule between the pictures, which are in ascending order of id."""
    ids, codes = pictures["image_id"].to_numpy(), pictures["phash"].to_numpy()
    corners = [pictures[corner].to_numpy() for corner in CORNERS]
    aspect = pictures["width"].to_numpy() / pictures["height"].to_numpy()
    reach = np.array([params.intensity] * len(CORNERS) + [params.aspect])
    rules = [
        grouping.by_merge(ids, pictures["merged"].to_pylist()),
        grouping.by_value("bytes", pictures["sha256"]),
        grouping.by_value("original_bytes", pictures["sha512"]),
        grouping.by_value("series", grouping.series(pictures["artist"], pictures["name"])),
        grouping.by_perceptual_hash(codes, params.phash_bits),
        grouping.by_intensities(np.stack([*corners, aspect], axis=1), reach, codes, params.phash_max_distance),
    ]
    return rules + ([grouping.by_value("artist", pictures["artist"])] if params.group_by == "artist" else [])


def assign(pictures: pa.Table, rules: list[LinkRule], params: Split) -> tuple[Ints, Names]:
    """Each picture's group, numbered by the id of its first picture, and its split, which may be `LEFT_OUT`."""
    ids = pictures["image_id"].to_numpy()
    # Buckets 2f and 2f + 1 are fold f. If fold f is not the test split, 2f is for training and 2f + 1 for validation.
    weights = np.tile([1 - params.val, params.val], params.folds) / params.folds
    preferred = grouping.bucket_preferences(ids, params.seed, weights)
    first, bucket = _grouped(rules, preferred, weights, splits.strata(pictures["label"]))
    if params.group_by == "origin":
        fold = _origin_folds(pictures, rules, params)
        bucket = np.where((bucket < 0) | (fold < 0), -1, 2 * fold + bucket % 2)
    names = np.where(bucket // 2 == params.fold, "test", np.where(bucket % 2, "val", "train"))
    return ids[first], np.where(bucket < 0, LEFT_OUT, names)


def _grouped(rules: list[LinkRule], preferred: Preferences, weights: Floats, strata: Ints) -> tuple[Ints, Ints]:
    """As `grouping.assign`, and checked."""
    first, bucket = grouping.assign(rules, preferred, weights, strata)
    if leaking := grouping.leaking_rules(rules, bucket):
        raise AssertionError(f"a bug in grouping: pictures linked by {', '.join(leaking)} are in different splits")
    return first, bucket


def _origin_folds(pictures: pa.Table, rules: list[LinkRule], params: Split) -> Ints:
    """Each picture's fold [n], so that no origin is in two; -1 for a picture that links origins of different folds.

    Origins take turns: a handful of them, assigned by hash, would leave some folds empty. New images move no old ones.
    """
    ids, folds = pictures["image_id"].to_numpy(), params.folds
    origins = grouping.by_value("origin", pictures["origin"])  # numbered in the order of their first pictures
    if not len(origins.keys):
        raise MLpyError(
            "split.group_by is origin, but no picture has an origin: tag; use content or artist, or tag the pictures "
            "with the collection that each is from"
        )
    # A placeholder starts each origin's group, so that no near-duplicate draws a whole origin into another's fold.
    holders = np.arange(origins.keys.max() + 1)
    rules = [replace(rule, pictures=rule.pictures + len(holders)) for rule in (*rules, origins)]
    rules[-1] = replace(
        rules[-1],
        pictures=np.concatenate([holders, rules[-1].pictures]),
        keys=np.concatenate([holders, origins.keys]),
    )
    weights = np.full(folds, 1 / folds)
    turns = ((holders[:, None] + params.seed + np.arange(folds)) % folds).astype(np.uint8)
    preferred = np.concatenate([turns, grouping.bucket_preferences(ids, params.seed, weights)])
    # A stratum for each picture: none is refused a fold that others of its label filled.
    return _grouped(rules, preferred, weights, np.arange(len(preferred)))[1][len(holders) :]


def fold(params: Split) -> dict[str, Any]:
    """Which of how many folds this is, and what its pictures are grouped by: with it, scores can be compared."""
    return {"group_by": params.group_by, "folds": params.folds, "fold": params.fold}


def summarise(
    pictures: pa.Table, catalogue: int, undecodable: int, rules: list[LinkRule], groups: Ints, names: Names
) -> dict[str, Any]:
    """The contents of `summary.json`, with a warning if a group is suspiciously large."""
    sizes = splits.group_sizes(groups[names != LEFT_OUT])
    if sizes["largest_group"] > LARGE * len(groups):
        log.warning(
            "the largest group holds %d of %d pictures, so a rule may link pictures that are only similar: compare the "
            "rules in %s, and lower split.phash_max_distance (to 16) or split.phash_bits",
            *(sizes["largest_group"], len(groups), SPLIT_SUMMARY),
        )
    labels = splits.policy(pictures.schema)["labels"]
    return {
        "pictures": len(groups),
        "left_out": {
            "not_downloaded": catalogue - undecodable - len(groups),
            "undecodable": undecodable,
            "cross_split_links": int((names == LEFT_OUT).sum()),
        },
        **sizes,
        "splits": splits.label_shares(pictures["label"], labels, names, SPLITS),
        "rules": splits.link_counts(rules),
    }


if __name__ == "__main__":
    run(main)
