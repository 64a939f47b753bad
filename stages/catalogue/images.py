"""The catalogue of the images that a policy selects, streamed from the database in record batches."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.catalogue import tags
from stages.catalogue.copying import stream_query
from stages.catalogue.selection import INVALID_INTENSITIES, REASONS, statement
from stages.config.extract import Extract, Policy
from stages.philomena import addresses
from stages.philomena.tags import ARTIST
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
    }
)
"""Columns of the statement's result. PostgreSQL arrays (labels, merged, numbers) arrive as text."""


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
        """Look up the policy's tags.

        Raises:
            PolicyError: if the board does not have one.
        """
        self.cursor = cursor
        self.params = params
        self.schema = schema(params.policy)
        self.tags = tags.number_tags(cursor)
        self.images = 0
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._query, self._values = statement(params, self.tags)
        cursor.execute(INVALID_INTENSITIES)
        ((self.invalid_intensities,),) = cursor.fetchall()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the statement and yield the catalogue in batches, sorted by id."""
        query = self._query.as_string(self.cursor)
        for rows in stream_query(self.cursor, query, self._values, QUERY_SCHEMA):
            self.images += len(rows)
            self.dropped.update(_value_counts(rows["reason"].drop_null()))
            yield self._catalogue_columns(rows.filter(pc.is_null(rows["reason"])))

    def _catalogue_columns(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Turn rows of the statement's result into rows of the catalogue."""
        labels = _lists(rows["labels"])  # positions in the policy's list of labels
        names = pa.array(list(self.params.policy.labels)).take(labels.flatten())
        self.kept.update(_value_counts(names))
        extensions = rows["extension"].dictionary_encode()  # a handful of values: convert each only once
        own_tags, artist = self._tags(_lists(rows["numbers"]))
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

    def _tags(self, numbers: pa.ListArray) -> tuple[pa.ListArray, pa.Array]:
        """Each image's distinct tags in order, and its first artist without the prefix."""
        # Image and tag number in one integer: sorting those groups by image and orders the tags within it.
        images = np.repeat(np.arange(len(numbers)), pc.list_value_length(numbers).to_numpy())
        both = np.sort(images << 32 | np.abs(numbers.flatten().to_numpy()))
        both = both[np.diff(both, prepend=-1) > 0]  # np.unique would hash first, which is many times slower
        images, indices = both >> 32, (both & 0xFFFFFFFF) - 1
        names = self.tags.canonical.take(pa.array(indices))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(numbers)))])
        start, end = self.tags.artists()
        # Tags are sorted, so artists' tags have consecutive numbers.
        of_artist = np.flatnonzero((indices >= start) & (indices < end))
        owners, first = np.unique(images[of_artist], return_index=True)
        artist = np.full(len(numbers), -1)
        artist[owners] = indices[of_artist[first]]
        artists = self.tags.canonical.take(pa.array(artist, mask=artist < 0))
        return (
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names),
            pc.utf8_slice_codeunits(artists, len(ARTIST)),
        )

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
