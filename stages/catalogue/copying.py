"""PostgreSQL query -> Arrow record batches, streamed by COPY, so that the result is never in memory as a whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class with a function's name)

from stages.workspace.errors import DumpError

BLOCK = 8 << 20
"""Bytes of CSV to parse at a time."""


def stream_query(cursor: Cursor, query: str, values: Mapping[str, Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Run a query and yield its rows in batches, with the columns of `schema`.

    Args:
        cursor: a cursor on the database; it is busy until the last batch is read.
        query: the statement, with psycopg2's placeholders.
        values: the placeholders' values.
        schema: names and types of the result's columns, in order.

    Raises:
        psycopg2.Error: if the query fails.
        DumpError: if a value does not fit its column's type.
    """
    statement = b"COPY (" + cursor.mogrify(query, values) + b") TO STDOUT (FORMAT csv)"
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=1 << 16) as sink:
                cursor.copy_expert(statement, sink)
        except BaseException as error:  # raised again by the generator below, in the caller's thread
            failures.append(error)

    # psycopg2 writes COPY's output to a file object, Arrow reads from one: a thread and a pipe join them.
    thread = threading.Thread(target=copy, daemon=True)
    source = os.fdopen(reading, "rb", buffering=BLOCK)
    thread.start()
    try:
        yield from _parsed(source, schema)
    except pa.ArrowInvalid as error:
        thread.join(1)
        if not failures:  # a failed query truncates the CSV, and its own error is the one to raise
            reason = str(error).splitlines()[0]
            raise DumpError(
                f"a value in the board's database has an unexpected type ({reason})", "run `dvc repro restore`"
            ) from error
    finally:
        if thread.is_alive():
            cursor.connection.cancel()
        source.close()
        thread.join()
    if failures:
        raise failures[0]


def _parsed(source: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = source.peek(1)
    if not first:  # Arrow raises an error for an empty file
        yield pa.RecordBatch.from_pylist([], schema)
        return
    yield from pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(column_names=schema.names, block_size=BLOCK),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
