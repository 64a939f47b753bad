"""Writes the splits' files, and computes the statistics for `summary.json`."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.dataset.grouping import Ints, LinkRule
from stages.workspace.errors import PolicyError
from stages.workspace.files import replacing

Names = NDArray[np.str_]
SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 1000)
"""Lower bounds of the histogram of group sizes."""
ROWS = 65_536
"""Rows in memory at once."""


def write(images: Path, targets: dict[str, Path], ids: Ints, groups: Ints, splits: Names) -> None:
    """Write each split's rows of the catalogue, in the catalogue's order, with a column `group`.

    The schema's metadata, which holds the policy, is copied.

    Args:
        images: the catalogue, a parquet file.
        targets: split -> file to write.
        ids: [n] image ids, ascending. The catalogue's other rows are left out.
        groups: [n] group of each image.
        splits: [n] split of each image; those whose split is not in `targets` are left out.
    """
    source = pq.ParquetFile(images)
    schema = source.schema_arrow.append(pa.field("group", pa.int64()))
    with ExitStack() as stack:
        paths = {name: stack.enter_context(replacing(target)) for name, target in targets.items()}
        writers = {
            name: stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            for name, path in paths.items()
        }
        for batch in source.iter_batches(ROWS):
            table = pa.Table.from_batches([batch])
            row_ids = table.column("image_id").to_numpy()
            # Where each row's id is in `ids`, or would be: only if it is there, the row is kept.
            at = np.minimum(np.searchsorted(ids, row_ids), max(len(ids) - 1, 0))
            table = table.append_column(schema.field("group"), pa.array(groups[at]))
            for name, writer in writers.items():
                writer.write_table(table.filter(pa.array((ids[at] == row_ids) & (splits[at] == name))).cast(schema))


def policy(schema: pa.Schema) -> dict[str, Any]:
    """The policy's name, kind and labels, from the schema of a catalogue or a split."""
    policy: dict[str, Any] = json.loads(schema.metadata[b"mlpy"])["policy"]
    return policy


def strata(labels: pa.ChunkedArray) -> Ints:
    """Each picture's label [n], or combination of labels, as a number from 0."""
    joined = pc.binary_join(labels, "\n") if pa.types.is_list(labels.type) else labels
    codes: Ints = joined.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def label_shares(labels: pa.ChunkedArray, names: list[str], splits: Names, targets: Iterable[str]) -> dict[str, Any]:
    """Count the labels of each split.

    Args:
        labels: [n] strings, or lists of strings.
        names: all labels.
        splits: [n] split of each picture.
        targets: the splits to count.

    Returns:
        Split -> `pictures`, and for each label its number of pictures (`labels`) and their share (`shares`).

    Raises:
        PolicyError: if a split has no picture of a label.
    """
    shares: dict[str, Any] = {}
    for target in targets:
        chosen = labels.filter(pa.array(splits == target))
        flat = pc.list_flatten(chosen) if pa.types.is_list(chosen.type) else chosen
        counts = Counter(flat.to_pylist())
        if missing := [name for name in names if not counts[name]]:
            raise PolicyError(
                f"the {target} split ({len(chosen)} pictures) has none labelled {', '.join(missing)}; change "
                "split.seed or split.fold, lower split.folds, or use a policy with more such pictures"
            )
        shares[target] = {
            "pictures": len(chosen),
            "labels": {name: counts[name] for name in names},
            "shares": {name: round(counts[name] / len(chosen), 4) for name in names},
        }
    return shares


def group_sizes(groups: Ints) -> dict[str, Any]:
    """The number of groups, the largest one, and a histogram of their sizes; `groups` [n] is of the kept pictures."""
    sizes = np.unique(groups, return_counts=True)[1]
    ends = [f"{low}" if low + 1 == high else f"{low}-{high - 1}" for low, high in itertools.pairwise(SIZES)]
    counts = np.histogram(sizes, [*SIZES, np.inf])[0].tolist()
    return {
        "groups": len(sizes),
        "largest_group": int(sizes.max(initial=0)),
        "group_sizes": dict(zip([*ends, f"{SIZES[-1]}+"], counts, strict=True)),
    }


def link_counts(rules: list[LinkRule]) -> dict[str, Any]:
    """The pairs and the pictures that each rule links; several rules may link the same pair."""
    return {rule.name: {"pairs": rule.pairs(), "pictures": rule.linked()} for rule in rules}
