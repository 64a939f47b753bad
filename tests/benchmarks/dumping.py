"""Rows -> pg_dump's custom format, compressed as pg_dump does, but in several processes."""

from __future__ import annotations

import io
import multiprocessing
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from stages.dump import archive
from stages.dump.archive import DATA_BLOCK, OFFSET

PROCESSES = 2
LEVEL = 6
"""pg_dump's default compression level."""
ADLER = 65_521

Part = Callable[[], Sequence[object]]
"""Generates some rows of a table, column by column; must be picklable."""


def fill(empty: Path, target: Path, tables: Mapping[str, Sequence[Part]]) -> None:
    """Copy the dump of an empty database to `target` with rows added: table -> its parts, in order."""
    source = archive.read(empty)
    header, entries = source.header, {entry.id: entry for entry in source.entries}
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool, target.open("wb") as file:
        file.write(archive.toc(header, source.entries))
        for entry in source.entries:
            if entry.kind != "TABLE DATA":
                continue
            start, started = file.tell(), time.monotonic()
            entries[entry.id] = replace(entry, offset_state=OFFSET, offset=start)
            file.write(bytes([DATA_BLOCK]) + archive.integer(entry.id, header))
            checksum = zlib.adler32(b"")
            # One zlib stream per table: header, the parts' blocks, an empty last block, the checksum of all rows.
            blocks = [b"\x78\x9c"]
            rows = 0
            for packed, part_sum, length, count in pool.imap(packed_part, tables[entry.name]):
                checksum, rows = combined(checksum, part_sum, length), rows + count
                for block in (*blocks, packed):
                    file.write(archive.integer(len(block), header) + block)
                blocks = []
            for block in (*blocks, b"\x03\x00" + checksum.to_bytes(4, "big")):
                file.write(archive.integer(len(block), header) + block)
            file.write(archive.integer(0, header))
            took, size = time.monotonic() - started, file.tell() - start
            sys.stderr.write(f"board: {entry.name}: {rows:,} rows, {size / 1e6:.1f} MB, {took:.1f} s\n")
        file.seek(0)
        file.write(archive.toc(header, list(entries.values())))


def packed_part(part: Part) -> tuple[bytes, int, int, int]:
    """Deflate blocks that others may follow; the rows' Adler-32, their length in bytes, and their number."""
    columns = [column(values) for values in part()]
    out = io.BytesIO()
    table = pa.Table.from_arrays(columns, names=[str(n) for n in range(len(columns))])
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pyarrow.csv.write_csv(table, out, options)
    text = out.getvalue()
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH), zlib.adler32(text), len(text), len(table)


def column(values: object) -> pa.Array:
    """A column as COPY reads it: NULL is \\N."""
    array = pa.array(values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind == "U" else values)
    return pc.fill_null(array, r"\N") if array.null_count else array


def combined(first: int, second: int, length: int) -> int:
    """The Adler-32 of two concatenated texts from the Adler-32 of each; `length` is that of the second."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length % ADLER * ((first & 0xFFFF) - 1)
    return high % ADLER << 16 | low % ADLER
