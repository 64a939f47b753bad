"""A board's tags: aliases resolved, names looked up, the nearest ones offered for a name that is none."""

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

from stages.catalogue.copying import fetched
from stages.philomena.tags import ARTIST, RATINGS, UNUSABLE
from stages.workspace.errors import PolicyError

NUMBER = """
SELECT pg_advisory_xact_lock(hashtext(%(name)s));
CREATE TABLE IF NOT EXISTS {table} AS
WITH RECURSIVE chain (tag_id, target_id, hops) AS (
    SELECT id, id, 0 FROM tags
    UNION ALL
    SELECT chain.tag_id, tags.id, hops + 1
    FROM chain JOIN tag_aliases ON tag_aliases.tag_id = chain.target_id JOIN tags ON tags.id = target_tag_id
    WHERE hops < 4 -- one is the rule; a ring ends
), canonical AS (
    SELECT DISTINCT ON (tag_id) tag_id, target_id FROM chain ORDER BY tag_id, hops DESC, target_id
)
SELECT canonical.tag_id AS id, own.name, tag_id <> target_id AS is_alias,
    dense_rank() OVER (ORDER BY target.name COLLATE "C")::int
    * CASE WHEN coalesce(target.category, '') = ANY(%(unusable)s) OR starts_with(lower(target.name), %(artist)s)
        OR lower(target.name) = ANY(%(ratings)s) THEN -1 ELSE 1 END AS number
FROM canonical JOIN tags own ON own.id = tag_id JOIN tags target ON target.id = target_id;
ANALYZE {table}
"""
"""Each tag's number: the rank of its canonical tag's name, from 1; negative for an unusable one."""
TABLE = f"numbered_tags_{hashlib.sha256(repr((NUMBER, UNUSABLE, RATINGS, ARTIST)).encode()).hexdigest()[:8]}"
"""Where the numbers are kept, beside the board's tables: only a permanent table is read by several processes of the
server at once. It is named by what makes it, for another version may number otherwise."""


@dataclass(frozen=True)
class Tags:
    """The board's tags, as numbered in `TABLE`."""

    canonical: pa.Array
    """Names of the canonical tags, sorted by code point: number n is at n - 1."""
    names: pa.Array
    """All names, aliases too."""
    numbers: pa.Array

    def resolved(self, wanted: Iterable[str]) -> dict[str, int]:
        """Name -> the number (without sign) of its canonical tag. Case does not matter, unless two differ in it alone.

        Raises:
            PolicyError: if there is no such tag; the nearest names are offered.
        """
        asked = pa.array(list(dict.fromkeys(wanted)), pa.string())
        exact = pc.index_in(asked, value_set=self.names)
        folded = pc.index_in(pc.utf8_lower(asked), value_set=pc.utf8_lower(self.names))
        found = pc.coalesce(exact, folded)
        if unknown := asked.filter(pc.is_null(found)).to_pylist():
            raise PolicyError("; ".join(self._unknown(name) for name in unknown))
        return dict(zip(asked.to_pylist(), pc.abs(self.numbers.take(found)).to_pylist(), strict=True))

    def _unknown(self, name: str) -> str:
        near = self.nearest(name)
        advice = f"did you mean {' or '.join(near)}?" if near else "no other is near it"
        return f"the policy names the tag {name!r}, which the board lacks; {advice}"

    def nearest(self, name: str, count: int = 3) -> list[str]:
        """The names most like `name`, at most `count` of them. Of half a million tags: within seconds."""
        name = name.lower()
        lengths = pc.utf8_length(self.names).to_numpy()
        alike = np.abs(lengths - len(name)) <= max(2, len(name) // 3)
        return difflib.get_close_matches(name, self.names.filter(pa.array(alike)).to_pylist(), count)

    def artists(self) -> tuple[int, int]:
        """First and past-the-last index of the artists' tags in `canonical`."""
        are = np.flatnonzero(pc.starts_with(self.canonical, ARTIST).to_numpy(zero_copy_only=False))
        return (int(are[0]), int(are[-1]) + 1) if len(are) else (0, 0)


def number(cursor: Cursor) -> Tags:
    """Number the board's tags, unless its database has the numbers already."""
    table = sql.Identifier(TABLE)
    values = {"name": TABLE, "unusable": list(UNUSABLE), "artist": ARTIST, "ratings": list(RATINGS)}
    cursor.execute(sql.SQL(NUMBER).format(table=table), values)
    query = sql.SQL('SELECT name, number, is_alias FROM {} ORDER BY abs(number), is_alias, name COLLATE "C", id')
    columns = pa.schema({"name": pa.string(), "number": pa.int32(), "is_alias": pa.bool_()})
    rows = pa.Table.from_batches(fetched(cursor, query.format(table).as_string(cursor), {}, columns)).combine_chunks()
    names, numbers = (rows.column(name).combine_chunks() for name in ("name", "number"))
    # Of a number's rows the first is a canonical tag's.
    _, first = np.unique(np.abs(numbers.to_numpy()), return_index=True)
    return Tags(names.take(pa.array(first)), names, numbers)
