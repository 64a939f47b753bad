"""The splits' files and what is said of them: every column of the catalogue, and each picture's group."""

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

from stages.dataset.grouping import Ints, Rule
from stages.workspace.errors import PolicyError
from stages.workspace.files import replacing

Names = NDArray[np.str_]
SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 1000)
"""Group sizes from which a bar of the histogram starts."""


def write(images: Path, targets: dict[str, Path], ids: Ints, groups: Ints, splits: Names) -> None:
    """Route the rows of `images` to `targets` by split, in the catalogue's order, a batch at a time.

    `ids` [n] ascend; `groups` [n] is the column that is added; a row of another id, or whose split is no target, is
    left out. The schema's metadata, so also the policy's kind and labels, travels along.
    """
    source = pq.ParquetFile(images)
    schema = source.schema_arrow.append(pa.field("group", pa.int64()))
    with ExitStack() as stack:
        paths = {name: stack.enter_context(replacing(target)) for name, target in targets.items()}
        writers = {
            name: stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            for name, path in paths.items()
        }
        for batch in source.iter_batches(65_536):
            table = pa.Table.from_batches([batch])
            own = table.column("image_id").to_numpy()
            at = np.minimum(np.searchsorted(ids, own), max(len(ids) - 1, 0))
            table = table.append_column(schema.field("group"), pa.array(groups[at]))
            for name, writer in writers.items():
                writer.write_table(table.filter(pa.array((ids[at] == own) & (splits[at] == name))).cast(schema))


def policy(schema: pa.Schema) -> dict[str, Any]:
    """The policy's name, kind and labels, from a catalogue's schema."""
    described: dict[str, Any] = json.loads(schema.metadata[b"mlpy"])["policy"]
    return described


def strata(labels: pa.ChunkedArray) -> Ints:
    """Each picture's label [n], or set of labels, as a number from 0."""
    joined = pc.binary_join(labels, "\n") if pa.types.is_list(labels.type) else labels
    codes: Ints = joined.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def label_shares(labels: pa.ChunkedArray, names: list[str], splits: Names, targets: Iterable[str]) -> dict[str, Any]:
    """Pictures and share of each label in each split; `labels` [n] are strings, or lists of them.

    Raises:
        PolicyError: if a split lacks a label.
    """
    shares: dict[str, Any] = {}
    for target in targets:
        chosen = labels.filter(pa.array(splits == target))
        flat = pc.list_flatten(chosen) if pa.types.is_list(chosen.type) else chosen
        counts = Counter(flat.to_pylist())
        if absent := [name for name in names if not counts[name]]:
            raise PolicyError(
                f"the {target} split ({len(chosen)} pictures) has none labelled {', '.join(absent)}; "
                "set another split.seed or split.fold, fewer split.folds, or a policy with more such pictures"
            )
        shares[target] = {
            "pictures": len(chosen),
            "labels": {name: counts[name] for name in names},
            "shares": {name: round(counts[name] / len(chosen), 4) for name in names},
        }
    return shares


def group_sizes(groups: Ints) -> dict[str, Any]:
    """How large the groups are; `groups` [n] is each kept picture's group."""
    sizes = np.unique(groups, return_counts=True)[1]
    ends = [f"{low}" if low + 1 == high else f"{low}-{high - 1}" for low, high in itertools.pairwise(SIZES)]
    counts = np.histogram(sizes, [*SIZES, np.inf])[0].tolist()
    return {
        "groups": len(sizes),
        "largest_group": int(sizes.max(initial=0)),
        "group_sizes": dict(zip([*ends, f"{SIZES[-1]}+"], counts, strict=True)),
    }


def rules_said(rules: list[Rule]) -> dict[str, Any]:
    """How many pairs each rule links, and how many pictures are in them; a pair may be linked by several."""
    return {rule.name: {"pairs": rule.pairs(), "pictures": rule.linked()} for rule in rules}
