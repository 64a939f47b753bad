"""The tables and columns of a Philomena board that `extract` reads, and where a dump holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from stages.dump.archive import Archive, TocEntry
from stages.workspace.errors import DumpError


@dataclass(frozen=True)
class NeededTable:
    """A table that `extract` reads: its columns, each with PostgreSQL's internal name of its type."""

    columns: dict[str, str]
    optional_columns: dict[str, str] = field(default_factory=dict)
    """Columns that older dumps lack; they are added, filled with NULL."""
    without: str = ""
    """What happens if the dump lacks the table, which is then created empty; "" if it may not lack it."""
    private: str = ""
    """A column that tells another table of the same name, of users' own data, which is not read."""


PAIR = {"tag_id": "int8", "target_tag_id": "int8"}
CORNERS = ("nw", "ne", "sw", "se")
TABLES = {
    "images": NeededTable(
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
    "tags": NeededTable({"id": "int8", "name": "text"}, {"category": "text"}),
    "image_taggings": NeededTable({"image_id": "int8", "tag_id": "int8"}),
    "tag_aliases": NeededTable(
        PAIR, without="a policy's tag does not match images that have only an alias of it: name the aliases as well"
    ),
    "image_duplicates": NeededTable(
        {"image_id": "int8", "target_id": "int8"}, without="images that were merged into others stay in"
    ),
    "image_hides": NeededTable({"image_id": "int8"}, private="user_id"),
    "image_intensities": NeededTable(
        {"image_id": "int8", **{f"{corner}_intensity": "float8" for corner in CORNERS}},
        without="near-duplicates are found by their perceptual hashes alone",
    ),
}
"""Source: Philomena's `priv/repo/structure.sql`, and the boards' public dumps."""
OPTIONAL = {name for name, table in TABLES.items() if table.without or table.private}

INTERNAL_NAMES = {("image_intensities", corner): f"{corner}_intensity" for corner in CORNERS}
"""(table, column) -> its name in public dumps, where a board's own database has another."""
INTERNAL_PAIRS = {
    ("tags", "aliased_tag_id"): "tag_aliases",
    ("images", "duplicate_id"): "image_duplicates",
}
"""(table, column) of a board's own database -> the table of public dumps that holds the pairs of id and column."""

SCHEMA = b"public"
COLUMN = re.compile(r'^ +("(?:[^"]|"")*"|\w+) (.*?),?$', re.MULTILINE)
TYPE = re.compile(
    r"(?:bigint|integer|smallint|numeric(?:\([\d,]+\))?|double precision|real|boolean|date|text"
    r"|character varying(?:\(\d+\))?|timestamp(?:\(\d\))? with(?:out)? time zone)(?= |$)"
)
CONSTRAINTS = re.compile(r" (?:DEFAULT (?:true|false|\d+)(?= |$)|NOT NULL)")


@dataclass(frozen=True)
class DumpedTable:
    """A needed table of a dump."""

    name: str
    rows: TocEntry
    """The entry of its rows."""
    columns: dict[str, str]
    """The columns of its rows in order, each with its declaration in SQL. One that is not needed is text, and so is one
    of a type that is not PostgreSQL's own, such as citext. Sequences, checks and collations are left out."""


def needed_tables(dump: Archive) -> list[DumpedTable]:
    """The needed tables that a dump has.

    Raises:
        DumpError: if a required table, its rows or a required column is missing.
    """
    return [table for name in TABLES if (table := _dumped_table(dump, name))]


def _dumped_table(dump: Archive, name: str) -> DumpedTable | None:
    entries = {entry.kind: entry for entry in dump.entries if entry.name == name and entry.namespace == SCHEMA}
    needed = TABLES[name]
    if "TABLE" not in entries:
        if name in OPTIONAL:
            return None
        raise DumpError(f"{dump.path} lacks the table {name}", "use the complete dump of a Philomena board")
    if "TABLE DATA" not in entries:
        raise DumpError(f"{dump.path} lacks the rows of {name}", "dump the board without --schema-only")
    rows = entries["TABLE DATA"]
    names = list(_columns(dump, rows))
    if needed.private and needed.private in names:
        return None
    if missing := needed.columns.keys() - {INTERNAL_NAMES.get((name, column), column) for column in names}:
        raise DumpError(
            f"{dump.path}: the table {name} lacks the column {min(missing)}",
            "use the complete dump of a Philomena board",
        )
    declared = _declarations(entries["TABLE"])
    return DumpedTable(
        name, rows, {column: declared.get(column, "text") if _is_read(name, column) else "text" for column in names}
    )


def _is_read(table: str, column: str) -> bool:
    needed = TABLES[table]
    known = needed.columns | needed.optional_columns
    return column in known or (table, column) in INTERNAL_NAMES or (table, column) in INTERNAL_PAIRS


def _columns(dump: Archive, rows: TocEntry) -> Iterator[str]:
    """The columns of a table's rows, from their COPY statement."""
    statement = (rows.copy or b"").decode(errors="replace")
    inside = re.search(r"\((.*)\) FROM stdin", statement, re.DOTALL)
    if not inside:
        raise DumpError(f"{dump.path} holds INSERT statements", "dump the board without --inserts")
    for quoted, plain in re.findall(r'"((?:[^"]|"")*)"|([^\s,"]+)', inside[1]):
        yield quoted.replace('""', '"') or plain


def _declarations(table: TocEntry) -> dict[str, str]:
    """Column -> its type, DEFAULT and NOT NULL, from a CREATE TABLE statement; only what `TYPE` and so on know."""
    declared = {}
    for name, text in COLUMN.findall((table.definition or b"").decode(errors="replace")):
        kind = TYPE.match(text)
        rest = "".join(CONSTRAINTS.findall(text)) if kind else " NOT NULL" * text.endswith(" NOT NULL")
        declared[name.strip('"').replace('""', '"')] = (kind[0] if kind else "text") + rest
    return declared


def lacking(dump: Archive, tables: list[DumpedTable]) -> Iterator[str]:
    """What a dump lacks, each with its consequence."""
    present = {table.name: table.columns.keys() for table in tables}
    replaced = {target for (name, column), target in INTERNAL_PAIRS.items() if column in present.get(name, ())}
    for name, needed in TABLES.items():
        if needed.without and name not in present and name not in replaced:
            yield f"the table {name}: {needed.without}"
    if "hidden_from_users" not in present["images"]:
        effect = "apart from those in image_hides" if "image_hides" in present else "and fail in the download"
        yield f"the column images.hidden_from_users: removed images stay in, {effect}"
    if "category" not in present["tags"]:
        yield "the column tags.category: tags about errors and origins count as tags of the picture"
