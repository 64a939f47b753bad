"""A board's tags: resolves aliases, finds tags by name, and suggests similar names for an unknown one."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.catalogue.copying import stream_query
from stages.philomena.tags import PREFIXES, RATINGS, UNUSABLE
from stages.workspace.errors import PolicyError

NUMBER_TAGS = """
SELECT pg_advisory_xact_lock(hashtext(%(name)s));
CREATE TABLE IF NOT EXISTS {table} AS
WITH RECURSIVE aliases AS (
    SELECT DISTINCT tag_id, target_tag_id FROM tag_aliases JOIN tags ON tags.id = target_tag_id
    WHERE tag_id <> target_tag_id
), chain (tag_id, target_id) AS ( -- from the tags that are no aliases to their aliases, to the aliases of those ...
    SELECT id, id FROM tags WHERE NOT EXISTS (SELECT FROM aliases WHERE aliases.tag_id = tags.id)
    UNION -- not UNION ALL, so that a ring ends
    SELECT aliases.tag_id, chain.target_id FROM chain JOIN aliases ON aliases.target_tag_id = chain.tag_id
), canonical AS ( -- a tag of a ring, or an alias of one, has no target: it stands for itself
    SELECT tags.id AS tag_id, coalesce(min(chain.target_id), tags.id) AS target_id
    FROM tags LEFT JOIN chain ON chain.tag_id = tags.id WHERE name IS NOT NULL GROUP BY tags.id
)
SELECT tag_id AS id, own.name, tag_id <> target_id AS is_alias,
    dense_rank() OVER (ORDER BY target.name COLLATE "C")::int
    * CASE WHEN coalesce(target.category, '') = ANY(%(unusable)s) OR lower(target.name) LIKE ANY(%(prefixed)s)
        OR lower(target.name) = ANY(%(ratings)s) THEN -1 ELSE 1 END AS number
FROM canonical JOIN tags own ON own.id = tag_id JOIN tags target ON target.id = target_id
WHERE target.name IS NOT NULL;
ANALYZE {table}
"""
"""Assigns each tag a number: the rank of its canonical tag's name, from 1, negated for an unusable tag."""
TABLE = f"numbered_tags_{hashlib.sha256(repr((NUMBER_TAGS, UNUSABLE, RATINGS, PREFIXES)).encode()).hexdigest()[:8]}"
"""Table for the numbers, beside the board's own: PostgreSQL's parallel workers cannot read a temporary one. Its name
contains a hash of the code that fills it, because another version of the code may number differently."""


@dataclass(frozen=True)
class Tags:
    """The board's tags with their numbers in `TABLE`."""

    canonical: pa.Array
    """Names of the canonical tags, sorted by code point: the tag with number n is at index n - 1."""
    names: pa.Array
    """All names, aliases included."""
    numbers: pa.Array
    """The number of each of `names`."""

    def resolve(self, names: Iterable[str]) -> dict[str, int]:
        """Name -> the number (without sign) of its canonical tag. Names match in any case; an exact match goes first.

        Raises:
            PolicyError: if the board has no such tag; the message suggests similar names.
        """
        numbers = self.look_up(names)
        if unknown := [name for name, number in numbers.items() if number is None]:
            raise PolicyError("; ".join(f"the policy names {'; '.join(self.explain(name))}" for name in unknown))
        return {name: abs(number) for name, number in numbers.items() if number is not None}

    def look_up(self, names: Iterable[str]) -> dict[str, int | None]:
        """Name -> the number of its canonical tag, negative for an unusable one, None if the board has no such tag."""
        wanted = pa.array(list(dict.fromkeys(names)), pa.string())
        exact = pc.index_in(wanted, value_set=self.names)
        folded = pc.index_in(pc.utf8_lower(wanted), value_set=pc.utf8_lower(self.names))
        indices = pc.coalesce(exact, folded)
        return dict(zip(wanted.to_pylist(), self.numbers.take(indices).to_pylist(), strict=True))

    def explain(self, unknown: str) -> tuple[str, str]:
        """What is wrong with a name, and what to do: to write a similar one."""
        near = self.nearest(unknown)
        advice = f"did you mean {' or '.join(near)}?" if near else "look up its spelling on the board"
        return f"the tag {unknown!r}, which the board does not have", advice

    def nearest(self, name: str, count: int = 3) -> list[str]:
        """Up to `count` names similar to `name`, the most similar first. Takes seconds for half a million tags."""
        name = name.lower()
        # difflib is slow, so compare only names of a similar length.
        lengths = pc.utf8_length(self.names).to_numpy()
        similar = np.abs(lengths - len(name)) <= max(2, len(name) // 3)
        return difflib.get_close_matches(name, self.names.filter(pa.array(similar)).to_pylist(), count)

    def starting(self, prefix: str) -> tuple[int, int]:
        """Index in `canonical` of the first tag with the prefix, and of the one after the last: they are in a row."""
        indices = np.flatnonzero(pc.starts_with(self.canonical, prefix).to_numpy(zero_copy_only=False))
        return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


def number_tags(cursor: Cursor) -> Tags:
    """Number the board's tags, unless the database has the numbers already, and read them."""
    table = sql.Identifier(TABLE)
    values = {
        "name": TABLE,
        "unusable": list(UNUSABLE),
        "prefixed": [f"{prefix}%" for prefix in PREFIXES],
        "ratings": list(RATINGS),
    }
    cursor.execute(sql.SQL(NUMBER_TAGS).format(table=table), values)
    query = sql.SQL('SELECT name, number, is_alias FROM {} ORDER BY abs(number), is_alias, name COLLATE "C", id')
    columns = pa.schema({"name": pa.string(), "number": pa.int32(), "is_alias": pa.bool_()})
    rows = pa.Table.from_batches(
        stream_query(cursor, query.format(table).as_string(cursor), {}, columns)
    ).combine_chunks()
    names, numbers = (rows.column(name).combine_chunks() for name in ("name", "number"))
    # Of the rows with the same number, the query returns the canonical tag's first.
    _, first = np.unique(np.abs(numbers.to_numpy()), return_index=True)
    return Tags(names.take(pa.array(first)), names, numbers)
