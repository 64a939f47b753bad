"""The catalogue of the images that a policy selects, streamed from the database in record batches."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.catalogue import corrected, corrections, tags
from stages.catalogue.copying import stream_query
from stages.catalogue.selection import INVALID_INTENSITIES, REASONS, statement
from stages.config.extract import Extract, Policy
from stages.philomena import addresses
from stages.philomena.tags import ARTIST, ORIGIN
from stages.workspace.errors import PolicyError

CORNERS = ("nw", "ne", "sw", "se")

TEXT = pa.string()
QUERY_SCHEMA = pa.schema(
    {
        "reason": TEXT,
        "image_id": pa.int64(),
        "labels": TEXT,
        "width": pa.int32(),
        "height": pa.int32(),
        "extension": TEXT,
        "sha512": TEXT,
        "size": pa.int64(),
        **{corner: pa.float64() for corner in CORNERS},
        "merged": TEXT,
        "numbers": TEXT,
        "name": TEXT,
        "created_at": pa.timestamp("us"),
        "is_changed": pa.bool_(),
        "before": TEXT,
    }
)
"""Columns of the statement's result. PostgreSQL arrays (labels, merged, numbers, before) arrive as text. `is_changed`:
whether a correction gives an image with one another label than its tags do. `before`: what tags it had before them."""


def schema(policy: Policy) -> pa.Schema:
    """Columns of `images.parquet`; the metadata hold the policy: name, kind, labels in order and their rules."""
    label = ("labels", pa.list_(TEXT)) if policy.kind == "multilabel" else ("label", TEXT)
    rules = {label: dataclasses.asdict(rule) for label, rule in policy.labels.items()}
    metadata = {"policy": {"name": policy.name, "kind": policy.kind, "labels": list(rules), "rules": rules}}
    columns = [
        ("image_id", pa.int64()),
        label,
        ("url", TEXT),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", TEXT),
        ("sha512", TEXT),
        ("artist", TEXT),
        ("origin", TEXT),
        ("size", pa.int64()),
        *((corner, pa.float64()) for corner in CORNERS),
        ("merged", pa.list_(pa.int64())),
        ("tags", pa.list_(TEXT)),
        ("name", TEXT),
        ("created_at", pa.timestamp("us")),
    ]
    return pa.schema(columns, metadata={"mlpy": json.dumps(metadata)})


class Catalogue:
    """The images that a policy selects, and counts of those left out."""

    def __init__(self, cursor: Cursor, params: Extract) -> None:
        """Look up the policy's tags and the corrections' images.

        Raises:
            PolicyError: if the board does not have one.
            CorrectionsError: if a correction does not fit the board or the policy.
        """
        self.cursor = cursor
        self.params = params
        self.schema = schema(params.policy)
        self.tags = tags.number_tags(cursor)
        path = Path(params.corrections) if params.corrections else None
        rows = corrections.read(path) if path else []
        self.corrected = corrected.resolve(path or Path(), rows, cursor, params.policy, self.tags)
        self.images = 0
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._query, self._values = statement(params, self.tags, self.corrected)
        cursor.execute(INVALID_INTENSITIES)
        ((self.invalid_intensities,),) = cursor.fetchall()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement and yield the catalogue in batches, sorted by id."""
        query = self._query.as_string(self.cursor)
        for rows in stream_query(self.cursor, query, self._values, QUERY_SCHEMA):
            self.images += len(rows)
            self.dropped.update(_value_counts(rows["reason"].drop_null()))
            kept = rows.filter(pc.is_null(rows["reason"]))
            self.corrected.note(kept)
            yield self._catalogue_columns(kept)

    def _catalogue_columns(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Turn rows of the statement's result into rows of the catalogue."""
        labels = _lists(rows["labels"])  # positions in the policy's list of labels
        names = pa.array(list(self.params.policy.labels)).take(labels.flatten())
        self.kept.update(_value_counts(names))
        extensions = rows["extension"].dictionary_encode()  # a handful of values: convert each only once
        own_tags, artist, origin = self._tags(_lists(rows["numbers"]))
        columns = {
            **{name: rows[name] for name in rows.schema.names if name in self.schema.names},
            "label": names,
            "labels": pa.ListArray.from_arrays(labels.offsets, names),
            "url": self._urls(rows, extensions),
            "format": pa.array(
                [addresses.served_format(name) for name in extensions.dictionary.to_pylist()], TEXT
            ).take(extensions.indices),
            "merged": _lists(rows["merged"]),
            "tags": own_tags,
            "artist": artist,
            "origin": origin,
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)

    def _urls(self, rows: pa.RecordBatch, extensions: pa.DictionaryArray) -> pa.Array:
        """The address of each row's picture: `addresses.picture_path` for whole columns, which saves seconds."""
        version, known = self.params.version, extensions.dictionary.to_pylist()
        names = pa.array([addresses.picture_name(name, size) for size in ("full", version) for name in known], TEXT)
        has = addresses.has_version(rows["width"].to_numpy(), rows["height"].to_numpy(), version)
        name = names.take(pa.array(extensions.indices.to_numpy() + len(known) * has))
        at = rows["created_at"]
        words = [pc.cast(part, TEXT) for part in (pc.year(at), pc.month(at), pc.day(at), rows["image_id"])]
        return pc.binary_join_element_wise(self.params.root.rstrip("/"), *words, name, "/")

    def _tags(self, numbers: pa.ListArray) -> tuple[pa.ListArray, pa.Array, pa.Array]:
        """Each image's distinct tags in order, and its first artist and origin without the prefix."""
        # Image and tag number in one integer: sorting those groups by image and orders the tags within it.
        images = np.repeat(np.arange(len(numbers)), pc.list_value_length(numbers).to_numpy())
        both = np.sort(images << 32 | np.abs(numbers.flatten().to_numpy()))
        both = both[np.diff(both, prepend=-1) > 0]  # np.unique would hash first, which is many times slower
        images, indices = both >> 32, (both & 0xFFFFFFFF) - 1
        names = self.tags.canonical.take(pa.array(indices))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(numbers)))])
        artist, origin = (self._first(prefix, images, indices, len(numbers)) for prefix in (ARTIST, ORIGIN))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names), artist, origin

    def _first(self, prefix: str, images: NDArray[np.int64], indices: NDArray[np.int64], count: int) -> pa.Array:
        """Each of `count` images' first tag with the prefix, without it; null for none.

        `images` and `indices` [k], the taggings by image, are positions of images and of tags in `Tags.canonical`.
        """
        start, end = self.tags.starting(prefix)
        # Tags are sorted, so those with one prefix have consecutive numbers.
        places = np.flatnonzero((indices >= start) & (indices < end))
        owners, first = np.unique(images[places], return_index=True)
        tag = np.full(count, -1)
        tag[owners] = indices[places[first]]
        return pc.utf8_slice_codeunits(self.tags.canonical.take(pa.array(tag, mask=tag < 0)), len(prefix))

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; complete once all batches are read.

        Raises:
            PolicyError: if a label matches no image.
        """
        policy = self.params.policy
        for label in policy.labels:
            if not self.kept[label]:
                dropped = ", ".join(f"{self.dropped[reason]} {reason}" for reason in REASONS if self.dropped[reason])
                raise PolicyError(
                    f"no image matches the label {label} of the policy {policy.name} "
                    f"(of {self.images} images, left out: {dropped or 'none'}); "
                    "change the label's tags, or extract's formats, min_side or limit"
                )
        return {
            "policy": policy.name,
            "images": self.images,
            "kept": self.images - self.dropped.total(),
            "labels": {label: self.kept[label] for label in policy.labels},
            "dropped": {reason: self.dropped[reason] for reason in REASONS},
            "invalid_intensities": self.invalid_intensities,
            "corrections": self.corrected.summary(),
        }


def _value_counts(values: pa.Array) -> dict[str, int]:
    """Value -> number of occurrences."""
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}


def _lists(texts: pa.Array) -> pa.ListArray:
    """PostgreSQL arrays as text -> lists: `{1,2}` -> [1, 2]; null and `{}` -> []."""
    inside = pc.utf8_trim(texts, "{}")
    inside = pc.if_else(pc.equal(inside, ""), None, inside)
    words = pc.split_pattern(inside, ",")
    lengths = pc.fill_null(pc.list_value_length(words), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pc.cast(words.flatten(), pa.int64()))
