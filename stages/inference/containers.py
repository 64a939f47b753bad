"""A picture file -> the parts of it that make pixels, and how long each frame is shown.

Metadata is where decoders differ from browsers: a malformed EXIF block, text that unpacks to megabytes, or a wrong
checksum in a chunk that nobody needs make a decoder give up on a picture that everyone sees. So everything but pixels,
transparency and a valid orientation is left out before the file reaches a decoder, as a browser ignores it.

Only structure is read here, and nothing is decompressed. Every step advances in the file, whatever its bytes are.

Sources: PNG 3rd edition, JPEG (ITU T.81), Exif 2.32, GIF89a, the WebP container specification.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from stages.workspace.errors import PictureError

MAX_SCANS = 100
"""Passes over a progressive JPEG. Encoders make about ten; each costs as much time as decoding the picture."""
DEFAULT_DURATION = 100
"""Milliseconds for which browsers show a frame whose own duration is `SHORTEST` or less."""
SHORTEST = 10

PNG = b"\x89PNG\r\n\x1a\n"
PNG_PARTS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"))
JFIF, ADOBE = b"JFIF\0", b"Adobe"
"""Contents of the two JPEG application segments that tell a decoder the colour space."""
GIF_TRAILER, GIF_FRAME, GIF_EXTENSION, GIF_CONTROL = 0x3B, 0x2C, 0x21, 0xF9
"""First byte of a GIF's blocks, and the extension that belongs to the next frame (GIF89a, sections 20 to 27)."""
PADDING = 4096
"""Zeros in place of what a cut WebP lacks."""
WEBP_PARTS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"))


@dataclass(frozen=True)
class Container:
    """A file without its metadata."""

    data: bytes
    """What a decoder is given."""
    width: int = 0
    """Of the largest frame, px; 0 if only a decoder can tell."""
    height: int = 0
    durations: tuple[int, ...] = (DEFAULT_DURATION,)
    """For each frame in the file, the milliseconds that a browser shows it for; one for a still picture."""
    announced: int = 1
    """Frames that the header announces; more than `durations` if the file ends early."""
    memory: int = 0
    """About the most bytes that decoding takes: pixels x bytes of a pixel x frames held at once. Measured."""
    cut: bool = False
    """Whether the end of a JPEG is missing. Of other formats, the decoder tells."""
    empty: bool = False
    """Whether it certainly holds no pixels, whatever its header says."""


def read(data: bytes) -> Container:
    """Read a file's structure. A format that is not known here is passed on as it is.

    Raises:
        PictureError: `timed_out`, for a JPEG of more than `MAX_SCANS` scans.
    """
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return Container(data)


def _shown(milliseconds: float) -> int:
    return DEFAULT_DURATION if milliseconds <= SHORTEST else round(milliseconds)


# Orientation


def orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in an Exif block; 1 if there is none or the block is malformed."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if (tag, kind, values) == (0x0112, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # it ends early
    return 1


def _exif(value: int) -> bytes:
    """A well-formed Exif block with nothing but an orientation."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


# PNG


def _png(data: bytes) -> Container:
    kept = bytearray()
    exif = transparency = b""
    durations: list[int] = []
    announced, pixels_at = 0, -1
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            exif = exif or data[start + 8 : end - 4]
        elif kind not in PNG_PARTS or (kind[0] & 0x20 and not _checksum_fits(data, start, end)):
            continue
        elif kind == b"tRNS":
            transparency = transparency or data[start + 8 : end - 4]
            if pixels_at < 0 and kept and transparency:
                kept += _png_transparency(transparency, kept)
        else:
            if kind == b"acTL" and end - start >= 20:
                (announced,) = struct.unpack_from(">I", data, start + 8)
            elif kind == b"fcTL" and end - start >= 38:
                durations.append(_png_duration(data, start))
            elif kind == b"IDAT" and pixels_at < 0:
                pixels_at = len(kept)
                if announced and not durations:  # a still picture of its own, before the animation
                    durations.append(DEFAULT_DURATION)
                    announced += 1
            kept += data[start:end]
    empty = pixels_at < 0 or not _inflates(kept, pixels_at)
    width, height = struct.unpack_from(">II", kept, 8) if len(kept) >= 25 and kept[4:8] == b"IHDR" else (0, 0)
    if (turned := orientation(exif)) != 1:
        kept[25:25] = _png_chunk(b"eXIf", _exif(turned))
    frames = (tuple(durations[:announced]) if announced > 1 else ()) or (DEFAULT_DURATION,)
    pixel = 12 if announced > 1 else _png_pixel_bytes(kept) if width else 0
    memory = width * height * (pixel + 4 * (turned != 1))
    return Container(PNG + kept, width, height, frames, max(1, announced), memory, empty=empty)


def _png_pixel_bytes(kept: bytearray) -> int:
    """Bytes of a decoded pixel, of a still picture."""
    depth, colour = kept[16], kept[17]
    if colour not in (0, 3):
        return 4
    return 5 if depth == 16 else 1  # 16-bit grey is converted


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk; the last may run over the file's end."""
    at, size, header = len(PNG), len(data), struct.Struct(">I4s").unpack_from
    while at + 8 <= size:
        length, kind = header(data, at)
        yield kind, at, at + 12 + length
        if kind == b"IEND":
            return
        at += 12 + length


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _checksum_fits(data: bytes, start: int, end: int) -> bool:
    """Whether an ancillary chunk is whole; browsers ignore one that is not."""
    return end <= len(data) and zlib.crc32(data[start + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0]


def _png_transparency(body: bytes, kept: bytearray) -> bytes:
    """The tRNS chunk for a decoder that reads grey of 2 and 4 bits as 8 bits: its value is scaled likewise."""
    depth, colour = kept[16], kept[17]
    if colour == 0 and depth in (2, 4) and len(body) >= 2:
        value = int.from_bytes(body[:2], "big") & ((1 << depth) - 1)  # higher bits are to be ignored
        body = (value * 255 // ((1 << depth) - 1)).to_bytes(2, "big")
    return _png_chunk(b"tRNS", body)


def _png_duration(data: bytes, start: int) -> int:
    """Milliseconds of a frame, from its fcTL chunk."""
    numerator, denominator = struct.unpack_from(">HH", data, start + 28)
    return _shown(1000 * numerator / (denominator or 100))


def _inflates(kept: bytearray, at: int) -> bool:
    """Whether the first bytes of the pixels can be decompressed: the start of a row, at least."""
    inflate, got = zlib.decompressobj(), 0
    try:
        while got < 2 and kept[at + 4 : at + 8] == b"IDAT":
            (length,) = struct.unpack_from(">I", kept, at)
            got += len(inflate.decompress(bytes(kept[at + 8 : at + 8 + min(length, 4096)]), 2))
            at += 12 + length
    except zlib.error:
        return False
    return got > 1


# JPEG


def _jpeg(data: bytes) -> Container:
    kept = bytearray()
    exif = jfif = adobe = b""
    width = height = components = 0
    for marker, start, end in _jpeg_segments(data):
        body = data[start + 4 : end] if marker in (0xE0, 0xE1, 0xEE) else b""
        if marker == 0xDA:
            break
        if body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE0 and body.startswith(JFIF) and len(body) >= 14:
            jfif = data[start:end]
        elif marker == 0xEE and body.startswith(ADOBE) and len(body) >= 12:
            adobe = data[start:end]
        elif marker < 0xE0 or 0xF0 <= marker < 0xFE:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and end - start >= 10:
                height, width, components = struct.unpack_from(">HHB", data, start + 5)
            kept += data[start:end]
    else:
        return Container(data, width, height, empty=True)
    turned = orientation(exif)
    head = b"\xff\xe1" + struct.pack(">H", 8 + len(_exif(turned))) + b"Exif\0\0" + _exif(turned) if turned != 1 else b""
    scans = data[start:]
    if (count := scans.count(b"\xff\xda")) > MAX_SCANS:
        raise PictureError("timed_out", f"{count} scans, over the cap of {MAX_SCANS}")
    # Without the end marker a decoder waits for more; with it, what is missing is filled as browsers do.
    tail = b"" if scans.rfind(b"\xff\xd9") >= 0 else b"\xff\xd9"
    clean = b"".join((b"\xff\xd8", jfif, head, adobe, kept, scans, tail))
    # Several scans are added up as coefficients of two bytes. Of one scan, a fraction of the pixels is decoded.
    memory = width * height * 2 * components if count > 1 else 0
    return Container(clean, width, height, memory=memory, cut=bool(tail))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the first scan; bytes between segments are skipped."""
    at, size = 2, len(data)
    while 0 <= (at := data.find(b"\xff", at)) < size - 3:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
        elif marker == 0xD9:
            return
        else:
            end = at + 2 + max(2, data[at + 2] << 8 | data[at + 3])
            yield marker, at, end
            at = end


# GIF


def _gif(data: bytes) -> Container:
    if len(data) < 13:
        return Container(data, empty=True)
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + _palette_bytes(data[10])
    kept, control, start = bytearray(data[:at]), b"", -1
    durations: list[int] = []
    try:
        while (kind := data[at]) != GIF_TRAILER:
            start = at
            if kind == GIF_FRAME:
                left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at + 1)
                width, height = max(width, left + across), max(height, top + down)
                at = _after_blocks(data, at + 11 + _palette_bytes(flags))
                kept += control + data[start:at]
                durations.append(_shown(10 * int.from_bytes(control[4:6], "little")))
                control = b""
            elif kind == GIF_EXTENSION:
                at = _after_blocks(data, at + 2)
                if data[start + 1] == GIF_CONTROL and at - start == 8:
                    control = data[start:at]
            else:
                at += 1  # decoders skip unknown bytes between blocks
    except (IndexError, struct.error):  # the file ends early: what there is of the last frame is shown
        cut = at == start and data[at] == GIF_FRAME and len(data) > at + 9
        if cut and len(data) > at + 12 + _palette_bytes(data[at + 9]):
            kept += control + data[start:] + b"\0"
            durations.append(DEFAULT_DURATION)
    shown = tuple(durations) or (DEFAULT_DURATION,)
    memory = width * height * (14 if len(shown) > 1 else 2)
    return Container(bytes(kept) + b";", width, height, shown, len(shown), memory, empty=not durations)


def _palette_bytes(flags: int) -> int:
    """Size of a GIF palette, from the flags byte of the block before it."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    """Where a block's data ends: pieces with their length in front, the last one empty."""
    while length := data[at]:
        at += 1 + length
    return at + 1


# WebP


def _webp(data: bytes) -> Container:
    kept, exif = bytearray(), b""
    durations: list[int] = []
    for kind, start, end in _webp_chunks(data):
        if kind == b"EXIF":
            exif = exif or data[start + 8 : end]
        elif kind in WEBP_PARTS:
            if kind == b"ANMF":
                if end > len(data) and durations:
                    continue  # a cut frame is never shown; a cut first one is, as far as it goes
                durations.append(_shown(int.from_bytes(data[start + 20 : start + 23], "little")))
            part = data[start:end]
            if end > len(data):  # decoders want all bytes at once, and a few more where they lost track
                part = part[8:] + bytes(PADDING + len(part) % 2)
                part = struct.pack("<4sI", kind, len(part)) + part
            kept += part
    turned = orientation(exif)
    width = height = 0
    if kept[:4] == b"VP8X" and len(kept) >= 18:
        # Transparency and animation are as they were; no colour profile, Exif or XMP follows.
        kept[8:12] = bytes((kept[8] & 0x12 | (0x08 if turned != 1 else 0), 0, 0, 0))
        width, height = (1 + int.from_bytes(kept[at : at + 3], "little") for at in (12, 15))
        if turned != 1:
            kept += b"EXIF" + struct.pack("<I", len(_exif(turned))) + _exif(turned)
    elif kept[:4] == b"VP8 " and kept[11:14] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", kept, 14))
    elif kept[:4] == b"VP8L" and len(kept) >= 13:
        (bits,) = struct.unpack_from("<I", kept, 9)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    shown = tuple(durations) or (DEFAULT_DURATION,)
    memory = width * height * (17 + 4 * (turned != 1))
    clean = b"RIFF" + struct.pack("<I", 4 + len(kept)) + b"WEBP" + kept
    return Container(clean, width, height, shown, len(shown), memory)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk, with its padding; the last may run over the file's end."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    at = 12
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at, at + 8 + length + length % 2
        at += 8 + length + length % 2
