"""A Philomena board's public tables, and a dump of a board written from rows.

Source: philomena-dev/philomena, `priv/repo/structure.sql`; the tables and columns of the boards' public dumps.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote_plus

import psycopg2
from psycopg2 import sql
from psycopg2.extras import execute_values

from stages.dump import archive, postgres
from stages.dump.programs import binary, run
from stages.workspace.errors import DatabaseError
from stages.workspace.files import temporary

SCHEMA = """
CREATE EXTENSION citext;
CREATE TABLE users (
    id bigint PRIMARY KEY, name citext NOT NULL, slug text NOT NULL, created_at timestamp(0) NOT NULL
);
CREATE TABLE images (
    id bigint PRIMARY KEY, created_at timestamp(0) NOT NULL, updated_at timestamp(0) NOT NULL,
    image_width integer, image_height integer, image_size integer, comment_count integer DEFAULT 0 NOT NULL,
    score integer DEFAULT 0 NOT NULL, favorites integer DEFAULT 0 NOT NULL, upvotes integer DEFAULT 0 NOT NULL,
    downvotes integer DEFAULT 0 NOT NULL, hides integer DEFAULT 0 NOT NULL, image_aspect_ratio double precision,
    user_id bigint REFERENCES users, hidden_from_users boolean DEFAULT false NOT NULL, image_mime_type text,
    image_format text, image_name text, version_path text, image_sha512_hash text, image_orig_sha512_hash text,
    description text
);
CREATE TABLE tags (
    id bigint PRIMARY KEY, image_count bigint DEFAULT 0 NOT NULL, name citext NOT NULL UNIQUE, slug text NOT NULL,
    category text, description text, short_description text
);
CREATE TABLE image_taggings (
    image_id bigint NOT NULL REFERENCES images, tag_id bigint NOT NULL REFERENCES tags, PRIMARY KEY (image_id, tag_id)
);
CREATE TABLE image_intensities (
    image_id bigint PRIMARY KEY REFERENCES images, nw_intensity double precision NOT NULL,
    ne_intensity double precision NOT NULL, sw_intensity double precision NOT NULL,
    se_intensity double precision NOT NULL
);
CREATE TABLE image_duplicates (image_id bigint PRIMARY KEY REFERENCES images, target_id bigint REFERENCES images);
CREATE TABLE image_hides (image_id bigint PRIMARY KEY REFERENCES images, reason text NOT NULL);
CREATE TABLE image_sources (image_id bigint NOT NULL REFERENCES images, source text NOT NULL);
CREATE TABLE image_faves (
    image_id bigint NOT NULL REFERENCES images, user_id bigint NOT NULL REFERENCES users,
    created_at timestamp(0) NOT NULL, PRIMARY KEY (image_id, user_id)
);
CREATE TABLE tag_aliases (tag_id bigint PRIMARY KEY REFERENCES tags, target_tag_id bigint NOT NULL REFERENCES tags);
CREATE TABLE tag_implications (tag_id bigint NOT NULL REFERENCES tags, target_tag_id bigint NOT NULL REFERENCES tags);
CREATE TABLE comments (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES images, user_id bigint REFERENCES users,
    created_at timestamp(0) NOT NULL, body text NOT NULL
);
CREATE INDEX index_image_taggings_on_tag_id ON image_taggings (tag_id);
CREATE INDEX index_comments_on_image_id ON comments (image_id);
"""

Row = dict[str, object]
"""Column -> value."""
SLUG_ESCAPES = {"-": "-dash-", "/": "-fwslash-", "\\": "-bwslash-", ":": "-colon-", ".": "-dot-", "+": "-plus-"}


def slug(name: str) -> str:
    """A tag's name as it appears in the board's URLs."""
    return quote_plus("".join(SLUG_ESCAPES.get(character, character) for character in name))


def write_dump(tables: Mapping[str, Iterable[Row]], folder: Path, target: Path) -> None:
    """Write the dump of a board with these rows to `target`; equal rows give equal bytes.

    Args:
        tables: name -> rows; a table comes after those that its foreign keys refer to, and its rows have equal columns.
        folder: where a temporary cluster is created. Other processes that use the same folder wait.
        target: the dump's file.

    Raises:
        DatabaseError: if PostgreSQL cannot be found or started, or rejects a row.
    """
    with folder.with_name(f"{folder.name}.builder").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        postgres.delete(folder)  # a killed run's
        try:
            with temporary(target) as raw:
                _dump(tables, folder, raw)
                archive.normalise(raw, target)
        finally:
            postgres.delete(folder)


def _dump(tables: Mapping[str, Iterable[Row]], folder: Path, target: Path) -> None:
    with postgres.cluster(folder) as server:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE board TEMPLATE template0")
        try:
            with contextlib.closing(server.connect("board")) as connection, connection.cursor() as cursor:
                cursor.execute(SCHEMA)
                for name, rows in tables.items():
                    _insert(cursor, name, rows)
        except psycopg2.Error as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DatabaseError(f"PostgreSQL rejected the board's rows: {reason}") from error
        run([binary("pg_dump"), "-Fc", "-f", target, "-d", server.dsn("board")], environment=server.environment())


def _insert(cursor: psycopg2.extensions.cursor, table: str, rows: Iterable[Row]) -> None:
    """Insert the rows, a page of them in memory at a time."""
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        return
    columns = list(first)
    statement = sql.SQL("INSERT INTO {} ({}) VALUES %s").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    values = (tuple(row[column] for column in columns) for row in itertools.chain([first], remaining))
    execute_values(cursor, statement.as_string(cursor), values, page_size=1000)
