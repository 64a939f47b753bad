"""Rows into pg_dump's custom format, packed as pg_dump packs them, but in several processes."""

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
"""As pg_dump packs unless told otherwise."""
ADLER = 65_521

Part = Callable[[], Sequence[object]]
"""Makes some rows of a table, column by column; it can be pickled."""


def fill(empty: Path, target: Path, tables: Mapping[str, Sequence[Part]]) -> None:
    """Write the dump of an empty database to `target`, with rows: table -> its parts, in order."""
    source = archive.read(empty)
    header, entries = source.header, {entry.id: entry for entry in source.entries}
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool, target.open("wb") as file:
        file.write(archive.toc(header, source.entries))
        for entry in source.entries:
            if entry.kind != "TABLE DATA":
                continue
            start, begun = file.tell(), time.monotonic()
            entries[entry.id] = replace(entry, offset_state=OFFSET, offset=start)
            file.write(bytes([DATA_BLOCK]) + archive.integer(entry.id, header))
            checksum = zlib.adler32(b"")
            # One stream of zlib's a table: its header, the parts' blocks, an empty last block, the checksum of all.
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
            took, size = time.monotonic() - begun, file.tell() - start
            sys.stderr.write(f"board: {entry.name}: {rows:,} rows, {size / 1e6:.1f} MB, {took:.1f} s\n")
        file.seek(0)
        file.write(archive.toc(header, list(entries.values())))


def packed_part(part: Part) -> tuple[bytes, int, int, int]:
    """Blocks of deflate that others may follow, checksum and length of what is in them, number of rows."""
    columns = [column(values) for values in part()]
    out = io.BytesIO()
    table = pa.Table.from_arrays(columns, names=[str(n) for n in range(len(columns))])
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pyarrow.csv.write_csv(table, out, options)
    text = out.getvalue()
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH), zlib.adler32(text), len(text), len(table)


def column(values: object) -> pa.Array:
    """As COPY reads it."""
    array = pa.array(values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind == "U" else values)
    return pc.fill_null(array, r"\N") if array.null_count else array


def combined(first: int, second: int, length: int) -> int:
    """The Adler-32 of two texts, one after the other, from theirs; `length`: the second's."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length % ADLER * ((first & 0xFFFF) - 1)
    return high % ADLER << 16 | low % ADLER
