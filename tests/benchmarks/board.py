"""A made-up board's dump of any size: python tests/benchmarks/board.py TARGET [--images 300000 --tags 30000 ...].

Every table of `stages.booru.philomena.SCHEMA` with its keys and indexes, in a board's proportions: tags per image
log-normal, half the images above 17 and a tenth above 33; tags drawn by Zipf's law; a rating for every image, an artist
for most; aliases, merged and removed images; comments, favourites, sources and users, which no stage reads.
Every value follows from a hash of its row's key and the seed, so the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from stages import errors, paths
from stages.booru import databases, dump, philomena
from stages.booru.tags import RATINGS

WORDS = """
amber apple arrow autumn bench bird blue boat book bridge candle castle cat cloud clover copper crown dancing dawn deer
desk dragon evening feather field flower forest garden glasses green harbor hat hill horse house ink island jumping lake
lamp lantern leaf letter looking market meadow mirror moon morning mountain night ocean open orange painting path pencil
piano portrait purple rain reading red river road rose scarf shadow silver singing sketch sleeping smiling snow spring
star stone storm street summer sun table tower train tree valley violet walking wall water wind window winter wolf
"""

TOOLS = """
CREATE SCHEMA made_up;
CREATE FUNCTION made_up.chance(key bigint, salt int) RETURNS double precision IMMUTABLE -- from 0 to below 1
    RETURN (hashint8extended(key, %(seed)s * 1000 + salt) & 4294967295) / 4294967296.0::float8;
CREATE FUNCTION made_up.whole(key bigint, salt int, last bigint) RETURNS bigint IMMUTABLE -- from 1 to `last`
    RETURN 1 + floor(last * made_up.chance(key, salt))::bigint;
CREATE FUNCTION made_up.zipf(key bigint, salt int, first bigint, last bigint) RETURNS bigint IMMUTABLE
    RETURN first - 1 + floor(exp(made_up.chance(key, salt) * ln(last - first + 2::float8)))::bigint;
CREATE FUNCTION made_up.normal(key bigint, salt int) RETURNS double precision IMMUTABLE
    RETURN sqrt(-2 * ln(1 - made_up.chance(key, salt))) * cos(2 * pi() * made_up.chance(key, salt + 1));
CREATE FUNCTION made_up.word(key bigint, salt int) RETURNS text IMMUTABLE
    RETURN (%(words)s)[made_up.whole(key, salt, cardinality(%(words)s))];
CREATE FUNCTION made_up.at(part double precision) RETURNS timestamp IMMUTABLE
    RETURN timestamp '2012-01-02' + part * interval '4400 days';
CREATE TABLE made_up.texts AS
    SELECT number, string_agg(made_up.word(number * 64 + place, 1), ' ' ORDER BY place) AS text
    FROM generate_series(1, 5000) AS number, generate_series(1, 60) AS place GROUP BY number;
-- No foreign key is looked up, no other process helps: the rows are the same each time, and soon there.
SET session_replication_role = replica;
SET max_parallel_workers_per_gather = 0;
SET work_mem = '256MB';
SET search_path = public, made_up;
"""

TABLES = {
    "image_taggings": """
        WITH images AS MATERIALIZED (
            SELECT id, chance(id, 2) < 0.7 AS is_safe, -- safe excludes the other ratings
                -- a third more than wanted, for an image may draw a tag twice
                least(200, ceil(1.17 * %(taggings)s / %(images)s * exp(0.52 * normal(id, 3))))::int AS draws
            FROM generate_series(1, %(images)s::bigint) AS id
        ), drawn AS (
            SELECT id, zipf(id * 256 + draw, 5, 8, %(tags)s * 2 / 3) AS tag
            FROM images, generate_series(1, draws) AS draw
        ), made AS (
            SELECT id, 1::bigint AS tag, 0 AS turn FROM images WHERE is_safe
            UNION ALL SELECT id, 1 + whole(id, 6, 3), 0 FROM images WHERE NOT is_safe
            UNION ALL SELECT id, 4 + whole(id, 7, 2), 0 FROM images WHERE NOT is_safe AND chance(id, 8) < 0.1
            UNION ALL SELECT id, 7, 0 FROM images WHERE NOT is_safe AND chance(id, 9) < 0.05
            UNION ALL SELECT id, zipf(id, 10, %(tags)s * 2 / 3 + 1, %(tags)s), 0 FROM images WHERE chance(id, 11) < 0.85
            UNION ALL SELECT id, tag, 1 + chance(id * 8388608 + tag, 12) FROM (
                SELECT DISTINCT id, tag - (tag > 1000 AND mod(tag, 12) = 0)::int AS tag FROM drawn -- never an alias
            ) once
        ), chosen AS (SELECT id, tag FROM made ORDER BY turn, id, tag LIMIT %(taggings)s)
        SELECT id, tag FROM chosen ORDER BY id, tag
    """,
    "tags": """
        WITH named AS (
            SELECT id, CASE WHEN id <= 7 THEN (%(ratings)s)[id]
                WHEN id > %(tags)s * 2 / 3 THEN 'artist:' || word(id, 21) || id
                ELSE word(id, 22) || ' ' || word(id, 23) || ' ' || id END AS name,
                CASE WHEN id <= 7 THEN 'rating' WHEN id > %(tags)s * 2 / 3 THEN 'origin'
                ELSE (ARRAY['character', 'oc', 'species', 'content-official'])[whole(id, 24, 12)] END AS category
            FROM generate_series(1, %(tags)s) AS id
        ), used AS (SELECT tag_id, count(*) FROM image_taggings GROUP BY tag_id)
        SELECT id, coalesce(count, 0), name, replace(name, ' ', '+'), category,
            CASE WHEN chance(id, 25) < 0.1 THEN left(long.text, 200) END,
            CASE WHEN chance(id, 26) < 0.2 THEN right(long.text, 40) END
        FROM named LEFT JOIN used ON tag_id = id JOIN texts long ON number = whole(id, 27, 5000)
        ORDER BY id
    """,
    "images": """
        WITH facts AS (
            SELECT id, at(id::float8 / %(images)s) AS created_at, 200 + whole(id, 31, 2400) AS height,
                (ARRAY[640, 800, 1000, 1024, 1280, 1500, 1920, 2000, 2480])[whole(id, 32, 9)] AS width,
                CASE WHEN chance(id, 33) < 0.03 THEN 'gif' WHEN chance(id, 33) < 0.05 THEN 'webm' ELSE
                    coalesce((ARRAY['jpg', 'jpeg', 'JPEG', 'svg', 'PNG'])[whole(id, 34, 16)], 'png') END AS format
            FROM generate_series(1, %(images)s) AS id
        )
        SELECT id, created_at, created_at + chance(id, 35) * interval '900 days', width, height,
            width * height * (0.1 + chance(id, 36)), whole(id, 37, 7) - 1, whole(id, 38, 300), whole(id, 39, 200),
            whole(id, 40, 320), whole(id, 41, 8) - 1, whole(id, 42, 4) - 1, width / height::float8,
            whole(id, 43, %(users)s), chance(id, 44) < 0.03,
            CASE lower(format) WHEN 'svg' THEN 'image/svg+xml' WHEN 'webm' THEN 'video/webm' WHEN 'gif' THEN 'image/gif'
                WHEN 'png' THEN 'image/png' ELSE 'image/jpeg' END,
            format, word(id, 45) || '_' || word(id, 46) || '_' || whole(id, 47, 99999) || '.' || format,
            to_char(created_at, 'FMYYYY/FMMM/FMDD/') || id || '/', encode(sha512(id::text::bytea), 'hex'),
            encode(sha512(('original ' || id)::bytea), 'hex'),
            CASE WHEN chance(id, 48) < 0.6 THEN left(text, whole(id, 49, 250)::int) ELSE '' END
        FROM facts JOIN texts ON number = whole(id, 50, 5000)
        ORDER BY id
    """,
    "image_intensities": """
        SELECT id, 255 * chance(id, 51), 255 * chance(id, 52), 255 * chance(id, 53), 255 * chance(id, 54)
        FROM generate_series(1, %(images)s) AS id
    """,
    "image_duplicates": """
        SELECT id, whole(id, 55, id - 1) FROM generate_series(2, %(images)s) AS id WHERE chance(id, 56) < 0.02
    """,
    "image_hides": """
        SELECT id, 'Rule ' || whole(id, 57, 9) FROM generate_series(1, %(images)s) AS id WHERE chance(id, 44) < 0.03
    """,
    "tag_aliases": """
        SELECT id, id - 1 FROM generate_series(1, %(tags)s * 2 / 3) AS id WHERE id > 1000 AND mod(id, 12) = 0
    """,
    "tag_implications": "SELECT id, 7 + whole(id, 58, 900) FROM generate_series(1000, %(tags)s * 2 / 3, 9) AS id",
    "users": """
        SELECT id, name, name, at(id::float8 / %(users)s) FROM (
            SELECT id, word(id, 61) || '-' || word(id, 62) || id AS name FROM generate_series(1, %(users)s) AS id
        ) named
    """,
    "image_sources": """
        SELECT id, 'https://www.example.org/' || word(id, 63) || '/art/' || word(id, 64) || whole(id, 65, 999999999)
        FROM generate_series(1, %(images)s) AS id WHERE chance(id, 66) < %(sources)s
    """,
    "image_faves": """
        SELECT DISTINCT ON (id, fan) id, fan, at(least(1, id::float8 / %(images)s + draw / 10000.0))
        FROM (
            SELECT id, draw, zipf(id * 256 + draw, 67, 1, %(users)s) AS fan
            FROM generate_series(1, %(images)s::bigint) AS id,
                generate_series(1, (2 * %(faves)s * chance(id, 68))::int) AS draw
        ) drawn
        ORDER BY id, fan, draw
    """,
    "comments": """
        SELECT id, whole(id, 71, %(images)s), whole(id, 72, %(users)s), at(id / (%(comments)s * %(images)s)::float8),
            left(text, 10 + whole(id, 73, 200)::int)
        FROM generate_series(1, (%(comments)s * %(images)s)::int) AS id JOIN texts ON number = whole(id, 74, 5000)
        ORDER BY id
    """,
}
"""Table -> its rows. Ratings are tags 1 to 7; the last third of the tags are artists."""


@dataclass(frozen=True)
class Size:
    images: int = 300_000
    tags: int = 30_000
    taggings: int = 6_000_000
    others: float = 1.0
    """Scales the rows of tables that no stage reads. 1 makes 0.7 kB of dump an image; Derpibooru's has 1.6 kB."""
    seed: int = 0

    def values(self) -> dict[str, object]:
        """What the statements ask for."""
        per_image = {"comments": 4 * self.others, "faves": 30 * self.others, "sources": 0.9 * self.others}
        users = max(10, self.images // 6)
        return {**asdict(self), **per_image, "users": users, "words": WORDS.split(), "ratings": list(RATINGS)}


def write(target: Path, size: Size) -> None:
    """Dump such a board to `target`.

    Raises:
        DatabaseError: if PostgreSQL cannot be had, or refuses. SystemExit: if the tags are too few for the taggings.
    """
    with databases.new() as database:
        with database.cursor() as cursor:
            tables, create, indexes = philomena.SCHEMA.partition("CREATE INDEX")
            cursor.execute(tables)
            cursor.execute(TOOLS, size.values())
            for table, rows in TABLES.items():
                with told(table):
                    cursor.execute(f"INSERT INTO {table} {rows}", size.values())
                if table == "image_taggings" and cursor.rowcount < size.taggings:
                    sys.exit(f"{size.tags} tags are too few for {size.taggings} taggings of {size.images} images")
            cursor.execute(create + indexes)  # faster made than kept up
            cursor.execute("DROP SCHEMA made_up CASCADE")
        with told("pg_dump"), paths.replacing(target) as aside:
            dump.pack(database, aside, compression=6)  # as pg_dump does unless told otherwise


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say on stderr what is done, and how long it took."""
    sys.stderr.write(f"board: {what} ... ")
    sys.stderr.flush()
    start = time.monotonic()
    yield
    sys.stderr.write(f"{time.monotonic() - start:.1f} s\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that tell a board's size."""
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{value} by default")


def asked(options: argparse.Namespace) -> Size:
    """The size that the options tell."""
    return Size(**{name: getattr(options, name) for name in asdict(Size())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    add_options(parser)
    options = parser.parse_args()
    write(options.target, asked(options))


if __name__ == "__main__":
    errors.run(main)
