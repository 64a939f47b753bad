"""COPY ... TO STDOUT, streamed into Arrow: rows never lie in memory all at once."""

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
"""Bytes of text that are parsed at a time."""


def fetched(cursor: Cursor, query: str, values: Mapping[str, Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A query's rows, batch by batch, in the columns that `schema` tells. `values` are the query's parameters.

    Raises:
        psycopg2.Error: as the query does. DumpError: if a value does not fit its column's type.
    """
    statement = b"COPY (" + cursor.mogrify(query, values) + b") TO STDOUT (FORMAT csv)"
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=1 << 16) as sink:
                cursor.copy_expert(statement, sink)
        except BaseException as error:  # raised again where the rows are read
            failures.append(error)

    thread = threading.Thread(target=copy, daemon=True)
    source = os.fdopen(reading, "rb", buffering=BLOCK)
    thread.start()
    try:
        yield from _parsed(source, schema)
    except pa.ArrowInvalid as error:
        thread.join(1)
        if not failures:  # a query that fails cuts its rows off: then that is the error
            reason = str(error).splitlines()[0]
            raise DumpError(f"a value in the board's database cannot be read: {reason}") from error
    finally:
        if thread.is_alive():
            cursor.connection.cancel()
        source.close()
        thread.join()
    if failures:
        raise failures[0]


def _parsed(source: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = source.peek(1)
    if not first:  # Arrow takes an empty file for an error
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
