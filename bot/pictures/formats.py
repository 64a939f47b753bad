"""A file's first bytes -> its format. Names and content types are claims, so they do not count."""

from __future__ import annotations

HEAD_BYTES = 64
"""Bytes that tell a format."""

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"\x1a\x45\xdf\xa3": "video",
}
AUDIO_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P "})


def sniff(head: bytes) -> str:
    """The format of a picture by Pillow's name, "video", or nothing for what is neither.

    Args:
        head: the file's first `HEAD_BYTES`, or all of a shorter one.
    """
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "video"}.get(head[8:12], "")
    # Texts begin with these two letters, too, but not with reserved zeros after the size.
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    return _sniff_isobmff(head) if head[4:8] == b"ftyp" else ""


def _sniff_isobmff(head: bytes) -> str:
    """The format of a file in MP4's container: its main brand, or, behind a generic one, the compatible ones."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        return "AVIF"
    if any(brand[:3] in (b"hei", b"hev") or brand in (b"mif1", b"msf1") for brand in brands):
        return "HEIF"
    return "" if brands[0] in AUDIO_BRANDS else "video"
