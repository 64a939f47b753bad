"""The catalogue of the images that a policy takes, streamed from the database in record batches."""

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
from stages.catalogue.copying import fetched
from stages.catalogue.selection import REASONS, statement
from stages.config.extract import Extract, Policy
from stages.philomena import addresses
from stages.philomena.tags import ARTIST
from stages.workspace.errors import PolicyError

CORNERS = ("nw", "ne", "sw", "se")

TEXT = pa.string()
ROWS = pa.schema(
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


def schema(policy: Policy) -> pa.Schema:
    """`images.parquet`'s columns; its metadata say the policy: name, kind, labels in order, the rule of each."""
    label = ("labels", pa.list_(TEXT)) if policy.kind == "multilabel" else ("label", TEXT)
    rules = {label: dataclasses.asdict(rule) for label, rule in policy.labels.items()}
    told = {"policy": {"name": policy.name, "kind": policy.kind, "labels": list(rules), "rules": rules}}
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
    return pa.schema(columns, metadata={"mlpy": json.dumps(told)})


class Catalogue:
    """The images that a policy takes, and the count of those it leaves out."""

    def __init__(self, cursor: Cursor, params: Extract) -> None:
        """Look the policy's tags up.

        Raises:
            PolicyError: if the board lacks one.
        """
        self.cursor = cursor
        self.params = params
        self.schema = schema(params.policy)
        self.tags = tags.number(cursor)
        self.images = 0
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._query, self._values = statement(params, self.tags)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The catalogue in batches, sorted by id."""
        query = self._query.as_string(self.cursor)
        for rows in fetched(self.cursor, query, self._values, ROWS):
            self.images += len(rows)
            self.dropped.update(_counted(rows["reason"].drop_null()))
            yield self._told(rows.filter(pc.is_null(rows["reason"])))

    def _told(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        labels = _lists(rows["labels"])
        names = pa.array(list(self.params.policy.labels)).take(labels.flatten())
        self.kept.update(_counted(names))
        extensions = rows["extension"].dictionary_encode()
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
        """As `addresses.picture_url` of each row; row by row it would take seconds."""
        version, known = self.params.version, extensions.dictionary.to_pylist()
        names = pa.array([addresses.picture_name(name, each) for each in ("full", version) for name in known], TEXT)
        has = addresses.has_version(rows["width"].to_numpy(), rows["height"].to_numpy(), version)
        name = names.take(pa.array(extensions.indices.to_numpy() + len(known) * has))
        at = rows["created_at"]
        words = [pc.cast(each, TEXT) for each in (pc.year(at), pc.month(at), pc.day(at), rows["image_id"])]
        return pc.binary_join_element_wise(self.params.root.rstrip("/"), *words, name, "/")

    def _tags(self, numbers: pa.ListArray) -> tuple[pa.ListArray, pa.Array]:
        """Each image's tags, sorted, each once; and its first artist, without the prefix."""
        images = np.repeat(np.arange(len(numbers)), pc.list_value_length(numbers).to_numpy())
        both = np.sort(images << 32 | np.abs(numbers.flatten().to_numpy()))
        both = both[np.diff(both, prepend=-1) > 0]  # np.unique would hash first: many times slower
        images, indices = both >> 32, (both & 0xFFFFFFFF) - 1
        names = self.tags.canonical.take(pa.array(indices))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(images, minlength=len(numbers)))])
        start, end = self.tags.artists()
        of_artist = np.flatnonzero((indices >= start) & (indices < end))
        owners, first = np.unique(images[of_artist], return_index=True)
        artist = np.full(len(numbers), -1)
        artist[owners] = indices[of_artist[first]]
        found = self.tags.canonical.take(pa.array(artist, mask=artist < 0))
        return (
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names),
            pc.utf8_slice_codeunits(found, len(ARTIST)),
        )

    def summary(self) -> dict[str, Any]:
        """What `summary.json` says; read it when the batches are.

        Raises:
            PolicyError: if a label takes no image.
        """
        policy = self.params.policy
        for label in policy.labels:
            if not self.kept[label]:
                dropped = ", ".join(f"{self.dropped[reason]} {reason}" for reason in REASONS if self.dropped[reason])
                raise PolicyError(
                    f"the policy {policy.name} takes no image for {label}, of {self.images}; "
                    f"left out were {dropped or 'none'}: mend the label's tags, or the limits of extract"
                )
        return {
            "policy": policy.name,
            "images": self.images,
            "kept": self.images - self.dropped.total(),
            "labels": {label: self.kept[label] for label in policy.labels},
            "dropped": {reason: self.dropped[reason] for reason in REASONS},
        }


def _counted(values: pa.Array) -> dict[str, int]:
    """How often each value occurs."""
    return {each["values"]: each["counts"] for each in pc.value_counts(values).to_pylist()}


def _lists(texts: pa.Array) -> pa.ListArray:
    """PostgreSQL's `{1,2}` -> [1, 2]; null and `{}` -> []."""
    inside = pc.utf8_trim(texts, "{}")
    inside = pc.if_else(pc.equal(inside, ""), None, inside)
    words = pc.split_pattern(inside, ",")
    lengths = pc.fill_null(pc.list_value_length(words), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pc.cast(words.flatten(), pa.int64()))
