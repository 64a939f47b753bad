"""The tables and columns of a Philomena board that `extract` reads, and which parts of a dump hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.dump.archive import Archive, TocEntry
from stages.workspace.errors import DumpError


@dataclass(frozen=True)
class NeededTable:
    """A table that `extract` reads: its columns, each with PostgreSQL's internal name of its type."""

    columns: dict[str, str]
    optional_columns: dict[str, str]
    """Columns that older dumps lack; they are added, filled with NULL."""
    optional: bool = False
    """Whether a dump may lack the table; it is then created empty."""


PAIR = {"tag_id": "int8", "target_tag_id": "int8"}
CORNERS = {f"{corner}_intensity": "float8" for corner in ("nw", "ne", "sw", "se")}
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
    "image_taggings": NeededTable({"image_id": "int8", "tag_id": "int8"}, {}),
    "tag_aliases": NeededTable(PAIR, {}, optional=True),
    "image_duplicates": NeededTable({"image_id": "int8", "target_id": "int8"}, {}, optional=True),
    "image_hides": NeededTable({"image_id": "int8"}, {}, optional=True),
    "image_intensities": NeededTable({"image_id": "int8", **CORNERS}, {}, optional=True),
}
"""Source: Philomena's `priv/repo/structure.sql`. Without `image_hides` and `hidden_from_users`, removed images stay."""

SCHEMA = b"public"
SUPPORTING = ("EXTENSION", "TYPE", "SHELL TYPE", "DOMAIN")
"""Kinds of objects that a column's type may depend on."""


def needed_entries(dump: Archive) -> list[TocEntry]:
    """The entries of a dump to restore: the needed tables, their data, and the types of their columns.

    Raises:
        DumpError: if a required table, its rows or a required column is missing.
    """
    tables = {entry.name: entry for entry in dump.entries if entry.kind == "TABLE" and entry.namespace == SCHEMA}
    data = {entry.name: entry for entry in dump.entries if entry.kind == "TABLE DATA" and entry.namespace == SCHEMA}
    _check_tables(dump, tables, data)
    chosen = {entry.id for name in TABLES.keys() & tables.keys() for entry in (tables[name], data[name])}
    known = {entry.id: entry for entry in dump.entries}
    ahead = [id for entry_id in chosen for id in known[entry_id].dependencies]
    # Tag names are citext, and the TOC need not say that their table depends on the extension.
    chosen |= {entry.id for entry in dump.entries if entry.kind == "EXTENSION" and entry.tag == b"citext"}
    while ahead:
        entry = known.get(ahead.pop())
        if entry and entry.kind in SUPPORTING and entry.id not in chosen:
            chosen.add(entry.id)
            ahead.extend(entry.dependencies)
    return [entry for entry in dump.entries if entry.id in chosen]


def _check_tables(dump: Archive, tables: dict[str, TocEntry], data: dict[str, TocEntry]) -> None:
    for name, table in TABLES.items():
        if name not in tables:
            if table.optional:
                continue
            raise DumpError(f"{dump.path} lacks the table {name}; use the complete dump of a Philomena board")
        if name not in data:
            raise DumpError(f"{dump.path} lacks the rows of {name}; dump the board without --schema-only")
        missing = table.columns.keys() - _columns(dump, data[name])
        if missing:
            raise DumpError(
                f"{dump.path}: the table {name} lacks the column {min(missing)}; "
                "use the complete dump of a Philomena board"
            )


def _columns(dump: Archive, data: TocEntry) -> set[str]:
    """The columns of a table's data, from its COPY statement."""
    statement = (data.copy or b"").decode(errors="replace")
    inside = re.search(r"\((.*)\) FROM stdin", statement, re.DOTALL)
    if not inside:
        raise DumpError(f"{dump.path} holds INSERT statements; dump the board without --inserts")
    words = re.findall(r'"((?:[^"]|"")*)"|([^\s,"]+)', inside[1])
    return {quoted.replace('""', '"') or plain for quoted, plain in words}
