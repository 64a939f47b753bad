"""data/extract/images.parquet, data/download/shards -> data/split/{train,val,test}.parquet, summary.json."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.config.split import Split
from stages.dataset import grouping, hashes, splits
from stages.dataset.grouping import Ints, Rule
from stages.dataset.splits import Names
from stages.workspace import shards
from stages.workspace.errors import MLpyError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load
from stages.workspace.paths import IMAGES, SHARDS, SPLIT_SUMMARY, SPLITS

log = logging.getLogger(__name__)

LEFT_OUT = ""
GROUPED_BY = ("image_id", "width", "height", "sha512", "artist", "nw", "ne", "sw", "se", "merged", "name")
LARGE = 0.05
"""Share of all pictures from which a group is said to be large."""


def main() -> None:
    params = load(Split)
    catalogue, pictures = read()
    rules = links(pictures, params)
    groups, names = assign(pictures, rules, params)
    summary = summarise(pictures, catalogue, rules, groups, names)
    splits.write(IMAGES, SPLITS, pictures["image_id"].to_numpy(), groups, names)
    with replacing(SPLIT_SUMMARY) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")


def read() -> tuple[int, pa.Table]:
    """The catalogue's rows, and those columns of its downloaded pictures that rules and summary need, by id."""
    if not IMAGES.exists():
        raise MLpyError(f"there is no {IMAGES}; run `dvc repro extract`")
    schema = pq.read_schema(IMAGES)
    label = "labels" if "labels" in schema.names else "label"
    catalogue = pq.read_table(IMAGES, columns=[*GROUPED_BY, label]).rename_columns({label: "label"})
    hashed = hashes.of_shards(shards.files(SHARDS))
    _, listed, stored = np.intersect1d(catalogue["image_id"], hashed["image_id"], return_indices=True)  # ascending ids
    pictures = catalogue.take(listed).replace_schema_metadata(schema.metadata)
    for column in ("sha256", "phash"):
        pictures = pictures.append_column(column, hashed[column].take(stored))
    return len(catalogue), pictures


def links(pictures: pa.Table, params: Split) -> list[Rule]:
    """Every rule's links between the pictures, which are in ascending order of id."""
    ids, hashes = pictures["image_id"].to_numpy(), pictures["phash"].to_numpy()
    corners = [pictures[corner].to_numpy() for corner in ("nw", "ne", "sw", "se")]
    aspect = pictures["width"].to_numpy() / pictures["height"].to_numpy()
    reach = np.array([params.intensity] * 4 + [params.aspect])
    rules = [
        grouping.merged(ids, pictures["merged"].to_pylist()),
        grouping.equal("bytes", pictures["sha256"]),
        grouping.equal("original_bytes", pictures["sha512"]),
        grouping.equal("series", grouping.series(pictures["artist"], pictures["name"])),
        grouping.perceptual(hashes, params.phash_bits),
        grouping.intensities(np.stack([*corners, aspect], axis=1), reach, hashes, params.phash_max_distance),
    ]
    return rules + ([grouping.equal("artist", pictures["artist"])] if params.group_by == "artist" else [])


def assign(pictures: pa.Table, rules: list[Rule], params: Split) -> tuple[Ints, Names]:
    """Each picture's group, numbered by the id of its first picture, and its split: `LEFT_OUT` for a bridge."""
    ids = pictures["image_id"].to_numpy()
    weights = np.tile([1 - params.val, params.val], params.folds) / params.folds  # bucket 2f: fold f; 2f + 1: its val
    preferred = grouping.preferences(ids, params.seed, weights)
    first, bucket = grouping.assign(rules, preferred, weights, splits.strata(pictures["label"]))
    if leaking := grouping.leaks(rules, bucket):
        raise AssertionError(f"a defect: pictures linked by {', '.join(leaking)} are in different splits")
    names = np.where(bucket // 2 == params.fold, "test", np.where(bucket % 2, "val", "train"))
    return ids[first], np.where(bucket < 0, LEFT_OUT, names)


def summarise(pictures: pa.Table, catalogue: int, rules: list[Rule], groups: Ints, names: Names) -> dict[str, Any]:
    """What `summary.json` says."""
    sizes = splits.group_sizes(groups[names != LEFT_OUT])
    if sizes["largest_group"] > LARGE * len(groups):
        log.warning(
            "the largest group holds %d of %d pictures; rules may link what is merely alike: see %s, and a lower "
            "split.phash_max_distance (16) or split.phash_bits",
            *(sizes["largest_group"], len(groups), SPLIT_SUMMARY),
        )
    labels = splits.policy(pictures.schema)["labels"]
    return {
        "pictures": len(groups),
        "left_out": {"not_downloaded": catalogue - len(groups), "bridges": int((names == LEFT_OUT).sum())},
        **sizes,
        "splits": splits.label_shares(pictures["label"], labels, names, SPLITS),
        "rules": splits.rules_said(rules),
    }


if __name__ == "__main__":
    run(main)
