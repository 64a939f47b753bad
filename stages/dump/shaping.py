"""A restored database -> the tables, columns and types of `TABLES`, whatever the dump had instead.

A value that its column's type cannot hold becomes NULL: `extract` leaves such rows out and counts them.
"""

from __future__ import annotations

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.dump.databases import BoardDatabase
from stages.dump.tables import INTERNAL_NAMES, INTERNAL_PAIRS, TABLES

LIMITS = {"int4": 2**31 - 1, "int8": 2**63 - 1}
INTEGERS = ("int2", "int4", "int8")
SAFE_CASTS = {("int2", "int8"), ("int4", "int8"), ("int2", "int4"), ("float4", "float8"), ("date", "timestamp")}
READER = """
CREATE FUNCTION pg_temp.read_{kind}(value text) RETURNS {kind} LANGUAGE plpgsql AS $$
BEGIN RETURN value::{kind}; EXCEPTION WHEN data_exception THEN RETURN NULL; END $$
"""
"""Reads text as a type; NULL if it is not of that type."""


def shape(database: BoardDatabase) -> None:
    """Give a restored database its final tables, and gather statistics for the planner."""
    with database.cursor() as cursor:
        cursor.execute("SET default_statistics_target = 30")  # a sample of 9,000 rows is enough for our queries
        for name in TABLES:
            cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS public.{} ()").format(sql.Identifier(name)))
            _rename_columns(cursor, name)
        for name, table in TABLES.items():
            _shape_columns(cursor, name, {**table.columns, **table.optional_columns}, _pair_columns(cursor, name))
        for (name, column), target in INTERNAL_PAIRS.items():
            _move_pairs(cursor, name, column, target)
        for name, table in TABLES.items():
            # The planner needs the number of rows, and how often an id occurs.
            ids = [sql.Identifier(column) for column in table.columns if column.endswith("id")]
            cursor.execute(sql.SQL("ANALYZE public.{} ({})").format(sql.Identifier(name), sql.SQL(", ").join(ids)))


def _rename_columns(cursor: Cursor, table: str) -> None:
    for (name, column), public in INTERNAL_NAMES.items():
        if name == table and column in (types := _types(cursor, table)) and public not in types:
            words = map(sql.Identifier, (table, column, public))
            cursor.execute(sql.SQL("ALTER TABLE public.{} RENAME {} TO {}").format(*words))


def _pair_columns(cursor: Cursor, table: str) -> dict[str, str]:
    """The columns of a table that `_move_pairs` reads, with their type."""
    return {column: "int8" for name, column in INTERNAL_PAIRS if name == table and column in _types(cursor, table)}


def _move_pairs(cursor: Cursor, table: str, column: str, target: str) -> None:
    """Move a column of a board's own database to the table that public dumps have in its place."""
    if column not in _types(cursor, table):
        return
    words = {
        "table": sql.Identifier(table),
        "column": sql.Identifier(column),
        "target": sql.Identifier(target),
        "pair": sql.SQL(", ").join(map(sql.Identifier, TABLES[target].columns)),
    }
    statement = """
        INSERT INTO public.{target} ({pair})
        SELECT id, {column} FROM public.{table} WHERE {column} IS NOT NULL EXCEPT SELECT {pair} FROM public.{target}
        ORDER BY 1, 2
    """
    cursor.execute(sql.SQL(statement).format(**words))
    cursor.execute(sql.SQL("ALTER TABLE public.{table} DROP COLUMN {column}").format(**words))


def _types(cursor: Cursor, table: str) -> dict[str, str]:
    """Column -> PostgreSQL's internal name of its type."""
    cursor.execute(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [f"public.{table}"],
    )
    return dict(cursor.fetchall())


def _shape_columns(cursor: Cursor, table: str, columns: dict[str, str], other: dict[str, str]) -> None:
    """Drop the columns that are neither in `columns` nor in `other`, and give those the right types."""
    present = _types(cursor, table)
    kept = columns | other
    changes = [sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in present.keys() - kept.keys()]
    for name, kind in kept.items():
        words = {"name": sql.Identifier(name), "kind": sql.Identifier(kind)}
        if name not in present:
            changes.append(sql.SQL("ADD COLUMN {name} {kind}").format(**words))
        elif present[name] != kind:
            if _is_lossy(present[name], kind):
                changes.append(sql.SQL("ALTER COLUMN {name} DROP NOT NULL").format(**words))
            changes.append(sql.SQL("ALTER COLUMN {name} DROP DEFAULT").format(**words))
            using = _conversion(cursor, present[name], kind).format(**words)
            changes.append(sql.SQL("ALTER COLUMN {name} TYPE {kind} USING ").format(**words) + using)
    if changes:
        target = sql.SQL("ALTER TABLE public.{} ").format(sql.Identifier(table))
        cursor.execute(target + sql.SQL(", ").join(changes))


def _is_lossy(present: str, wanted: str) -> bool:
    return wanted != "text" and (present, wanted) not in SAFE_CASTS


def _conversion(cursor: Cursor, present: str, wanted: str) -> sql.SQL:
    """SQL expression that turns the column {name} of one type into {kind}."""
    if not _is_lossy(present, wanted):
        return sql.SQL("{name}::{kind}")
    if present == "timestamptz" and wanted == "timestamp":
        return sql.SQL("{name} AT TIME ZONE 'UTC'")
    if present in INTEGERS and wanted in INTEGERS:
        limit = LIMITS[wanted]
        return sql.SQL(f"CASE WHEN {{name}} BETWEEN {-limit} AND {limit} THEN {{name}}::{{kind}} END")
    cursor.execute("SELECT to_regproc(%s)", [f"pg_temp.read_{wanted}"])
    if cursor.fetchall() == [(None,)]:
        cursor.execute(sql.SQL(READER.format(kind=wanted)))
    return sql.SQL(f"pg_temp.read_{wanted}({{name}}::text)")
