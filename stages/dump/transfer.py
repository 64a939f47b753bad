"""A board's dump: what of it is needed, into a database and out again, always in the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.dump import archive, databases, progress
from stages.dump.archive import EPOCH, Archive, Entry, Header
from stages.dump.databases import Database
from stages.dump.programs import binary, printing, run
from stages.workspace.errors import DatabaseError, DumpError


@dataclass(frozen=True)
class Table:
    """A table that `extract` reads, in the shape it reads it in: column -> PostgreSQL's internal type name."""

    columns: dict[str, str]
    optional_columns: dict[str, str]
    """Columns that older dumps lack; they are added, without a value."""
    optional: bool = False
    """Whether a dump may lack it; it is made then, without a row."""


PAIR = {"tag_id": "int8", "target_tag_id": "int8"}
CORNERS = {f"{corner}_intensity": "float8" for corner in ("nw", "ne", "sw", "se")}
TABLES = {
    "images": Table(
        columns={
            "id": "int8",
            "created_at": "timestamp",
            "image_width": "int4",
            "image_height": "int4",
            "image_format": "text",
        },
        optional_columns={
            "image_size": "int4",
            "image_name": "text",
            "image_sha512_hash": "text",
            "hidden_from_users": "bool",
        },
    ),
    "tags": Table({"id": "int8", "name": "text"}, {"category": "text"}),
    "image_taggings": Table({"image_id": "int8", "tag_id": "int8"}, {}),
    "tag_aliases": Table(PAIR, {}, optional=True),
    "image_duplicates": Table({"image_id": "int8", "target_id": "int8"}, {}, optional=True),
    "image_hides": Table({"image_id": "int8"}, {}, optional=True),
    "image_intensities": Table({"image_id": "int8", **CORNERS}, {}, optional=True),
}
"""From Philomena's `priv/repo/structure.sql`. Without `image_hides` and `hidden_from_users` removed images stay in."""

SCHEMA = b"public"
SUPPORTING = ("EXTENSION", "TYPE", "SHELL TYPE", "DOMAIN")
"""Kinds of objects that a table's columns may need."""
GROWTH = 12
"""Times its packed size that a table takes, at most: measured 4 to 6 in a database, 11 while `extract` sorts it."""


def needed(dump: Archive) -> list[Entry]:
    """The entries of a dump to restore: the needed tables, their data, and the types of their columns.

    Raises:
        DumpError: if a table or column is missing that no meaning can be given to.
    """
    tables = {entry.name: entry for entry in dump.entries if entry.kind == "TABLE" and entry.namespace == SCHEMA}
    data = {entry.name: entry for entry in dump.entries if entry.kind == "TABLE DATA" and entry.namespace == SCHEMA}
    for name, table in TABLES.items():
        if name not in tables:
            if table.optional:
                continue
            raise DumpError(f"{dump.path} lacks the table {name}: it is not a whole Philomena board's dump")
        if name not in data:
            raise DumpError(f"{dump.path} lacks the rows of {name}: dump it without --schema-only")
        missing = table.columns.keys() - _columns(dump, data[name])
        if missing:
            raise DumpError(f"{dump.path}: the table {name} lacks the column {min(missing)}, which is needed")
    wanted = {entry.id for name in TABLES.keys() & tables.keys() for entry in (tables[name], data[name])}
    known = {entry.id: entry for entry in dump.entries}
    ahead = [id for wanted_id in wanted for id in known[wanted_id].dependencies]
    wanted |= {entry.id for entry in dump.entries if entry.kind == "EXTENSION" and entry.tag == b"citext"}
    while ahead:
        entry = known.get(ahead.pop())
        if entry and entry.kind in SUPPORTING and entry.id not in wanted:
            wanted.add(entry.id)
            ahead.extend(entry.dependencies)
    return [entry for entry in dump.entries if entry.id in wanted]


def _columns(dump: Archive, data: Entry) -> set[str]:
    """The columns that a table's data have, from their COPY statement."""
    statement = (data.copy or b"").decode(errors="replace")
    inside = re.search(r"\((.*)\) FROM stdin", statement, re.DOTALL)
    if not inside:
        raise DumpError(f"{dump.path} holds INSERT statements; dump it without --inserts")
    words = re.findall(r'"((?:[^"]|"")*)"|([^\s,"]+)', inside[1])
    return {quoted.replace('""', '"') or plain for quoted, plain in words}


def check_space(dump: Archive, entries: list[Entry]) -> None:
    """Refuse to begin what cannot end.

    Raises:
        DatabaseError: if the disk of new databases has less free than these entries may take.
    """
    folder = databases.home()
    extents = dump.extents()
    need = GROWTH * sum(extents[entry.id][1] - extents[entry.id][0] for entry in entries if entry.id in extents)
    if folder and need > (free := shutil.disk_usage(folder).free):
        raise DatabaseError(
            f"restoring {dump.path} takes up to {need / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set MLPY_CACHE to a folder on a larger disk"
        )


def load(dump: Archive, entries: list[Entry], database: Database, jobs: int = 1) -> None:
    """Restore a dump's `entries` into an empty database: no index, no constraint, no trigger.

    Raises:
        DumpError: if pg_restore cannot read it. DatabaseError: if the disk is full, or the server went away.
    """
    plain = ["--no-owner", "--no-privileges", "--no-tablespaces", "--no-comments", "--no-security-labels"]
    extents = dump.extents()
    parts = [extents[entry.id] for entry in entries if entry.id in extents]
    with tempfile.TemporaryDirectory() as folder, progress.reading(dump.path, parts) as watch:
        chosen = Path(folder) / "list"
        chosen.write_text("".join(f"{entry.id};\n" for entry in entries))
        command: list[str | Path] = [binary("pg_restore"), *plain, "-L", chosen, dump.path]
        if database.version() < SETS_TIMEOUT:
            load_script(command, database)
            return
        # With its own TRUNCATE before each COPY (what -j does), or in one transaction, the load writes no WAL.
        speed = ["--jobs", str(jobs)] if jobs > 1 else ["--single-transaction"]
        run(
            [*command, "--exit-on-error", *speed, "-d", database.dsn],
            error=DumpError,
            environment=database.server.environment(),
            watch=watch,
        )


SETS_TIMEOUT = 17
"""The first PostgreSQL that takes pg_restore's own settings."""
TIMEOUT = b"SET transaction_timeout = 0;\n"


def load_script(command: Sequence[str | Path], database: Database) -> None:
    """Have psql run what pg_restore prints, but for the setting that an older server lacks."""
    psql: list[str | Path] = [
        binary("psql"),
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set",
        "ON_ERROR_STOP=1",
    ]
    with printing([*command, "--file", "-"], TIMEOUT, DumpError) as script:
        environment = database.server.environment()
        run([*psql, "-d", database.dsn, "--file", "-"], error=DumpError, environment=environment, source=script)


def shape(database: Database) -> None:
    """Bring a restored database into the one shape that `TABLES` tells, and gather statistics for the planner."""
    with database.cursor() as cursor:
        cursor.execute("SET default_statistics_target = 30")  # 9,000 rows a table tell enough, and soon
        for name, table in TABLES.items():
            cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS public.{} ()").format(sql.Identifier(name)))
            _shape_columns(cursor, name, {**table.columns, **table.optional_columns})
            cursor.execute(sql.SQL("ANALYZE public.{}").format(sql.Identifier(name)))
        cursor.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'")
        for (extension,) in cursor.fetchall():  # citext: every column of it is text now
            cursor.execute(sql.SQL("DROP EXTENSION {} CASCADE").format(sql.Identifier(extension)))


def _shape_columns(cursor: Cursor, table: str, wanted: dict[str, str]) -> None:
    cursor.execute(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [f"public.{table}"],
    )
    present = dict(cursor.fetchall())
    changes = [
        sql.SQL("DROP COLUMN {} CASCADE").format(sql.Identifier(name)) for name in present.keys() - wanted.keys()
    ]
    for name, kind in wanted.items():
        words = {"name": sql.Identifier(name), "kind": sql.Identifier(kind)}
        if name not in present:
            changes.append(sql.SQL("ADD COLUMN {name} {kind}").format(**words))
        elif present[name] != kind:
            changes.append(sql.SQL("ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}").format(**words))
    if changes:
        target = sql.SQL("ALTER TABLE public.{} ").format(sql.Identifier(table))
        cursor.execute(target + sql.SQL(", ").join(changes))


def row_counts(database: Database) -> dict[str, int]:
    """Table -> its rows."""
    with database.cursor() as cursor:
        counts = {}
        for name in TABLES:
            cursor.execute(sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name)))
            counts[name] = int(cursor.fetchall()[0][0])
        return counts


def pack(database: Database, target: Path, compression: int, like: Header | None = None) -> None:
    """Dump a database to `target`; the same tables give the same bytes, whichever server they were in."""
    program: list[str | Path] = [binary("pg_dump"), "--format=custom", f"--compress={compression}"]
    run(
        [*program, "--no-owner", "--no-privileges", "--file", target, "-d", database.dsn],
        environment=database.server.environment(),
    )
    normalise(target, like)


def normalise(path: Path, like: Header | None = None) -> None:
    """Rewrite a dump in place without what makes equal tables differ in bytes.

    That is the time of the dump, the database's name and locale, owners, and every number that a cluster gave out.
    `like`: the header whose date and server version it is to have; else 1970-01-01 and its own version.
    """
    dump = archive.read(path)
    kept = [entry for entry in dump.entries if not entry.kind.startswith("DATABASE")]
    numbers = {entry.id: number for number, entry in enumerate(kept, 1)}
    header = replace(
        dump.header,
        created=like.created if like else EPOCH,
        server_version=like.server_version if like else dump.header.server_version,
        database=b"board",
    )
    entries = {
        entry.id: replace(
            entry,
            id=numbers[entry.id],
            catalogue=(b"0", b"0"),
            owner=b"",
            dependencies=tuple(sorted(numbers[id] for id in entry.dependencies if id in numbers)),
        )
        for entry in kept
    }
    aside = path.with_name(f"{path.name}.normal")
    try:
        archive.rewrite(dump, aside, header, entries)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def live(lite: Path) -> Iterator[Database]:
    """The database of a dump that `pack` wrote: the one that was kept, or else restored from it now.

    Raises:
        DumpError: if the dump cannot be read, and the database is not there.
    """
    source = archive.read(lite)
    hash = sha256(lite)
    with databases.kept(hash) as database:
        if database:
            yield database
            return
    entries = needed(source)
    check_space(source, entries)
    with databases.new() as made:
        load(source, entries, made)
        shape(made)
        made.keep(hash)
    with databases.kept(hash) as database:
        if database is None:
            raise DatabaseError("the restored database vanished; run again")
        yield database
