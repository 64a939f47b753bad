"""Deleted pictures that the mod-log keeps behind a spoiler, where a server has asked for that."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Sequence

import discord

from bot.pictures.fetching import Fetcher, NotAPictureError, UnfetchedError
from bot.pictures.references import Reference

MAX_PICTURES = 4
"""Of one message."""
MAX_BYTES = 8_000_000
"""Of all together: Discord takes 10 MB from a bot in any server."""
SECONDS = 10.0
"""For all together: what is to be deleted does not wait longer."""
SUFFIXES = ("png", "jpg", "jpeg", "gif", "webp", "avif")

NamedFile = tuple[str, bytes]


async def fetch_evidence(fetcher: Fetcher, pictures: Iterable[Reference]) -> list[NamedFile]:
    """Download pictures before they are deleted, within the limits. Never raises."""
    files: list[NamedFile] = []
    try:
        async with asyncio.timeout(SECONDS):
            for picture in list(pictures)[:MAX_PICTURES]:
                try:
                    data = await fetcher.fetch_picture(picture)
                except (UnfetchedError, NotAPictureError):
                    continue
                if sum(len(each) for _, each in files) + len(data) <= MAX_BYTES:
                    files.append((_name(picture, len(files)), data))
    except TimeoutError:
        pass
    return files


def _name(picture: Reference, place: int) -> str:
    """A file name that Discord shows as a picture behind a spoiler, without its author's words."""
    suffix = picture.name.rpartition(".")[2].lower()
    return f"SPOILER_evidence-{place}.{suffix if suffix in SUFFIXES else 'png'}"


def as_files(files: Sequence[NamedFile]) -> list[discord.File]:
    """The attachments of an entry."""
    return [discord.File(io.BytesIO(data), name) for name, data in files]
