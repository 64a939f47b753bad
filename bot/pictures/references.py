"""A message -> the pictures it shows, wherever they are in it. Nothing is fetched here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import discord
from yarl import URL

STILLS = ("video/", "image/avif", "image/heic", "image/heif", "image/tiff", "image/bmp")
"""Content types that are not decoded here, of which Discord's media proxy gives a still picture."""


@dataclass(frozen=True)
class Reference:
    """One picture that a message shows."""

    key: str
    """Names it within its message, and stays the same when the message is edited or its signed URL renewed."""
    kind: str
    """attachment, embed or sticker; with `forwarded ` before it if it came in a forwarded message."""
    url: str
    """Where Discord has it; empty if Discord has no copy of it."""
    still: str = ""
    """Where Discord's media proxy turns it into a still picture, if that is what must be judged."""
    name: str = ""
    """File name, for people."""
    spoiler: bool = False
    size: int = 0
    """Bytes; 0 if it is not known before it is fetched."""


def references(message: discord.Message) -> list[Reference]:
    """The pictures of a message and of the messages forwarded in it: attachments, embeds, stickers, each one once.

    Attachments are listed whatever their names and types say: only their content tells.
    """
    found: dict[str, Reference] = {}
    parts: list[tuple[str, discord.Message | discord.MessageSnapshot]] = [("", message)]
    parts += [("forwarded ", snapshot) for snapshot in message.message_snapshots]
    for origin, part in parts:
        for each in (
            *_attachments(part.attachments, origin),
            *_embeds(part.embeds, origin),
            *_stickers(part.stickers, origin),
        ):
            found.setdefault(each.key, each)
    return list(found.values())


def _attachments(attachments: Sequence[discord.Attachment], origin: str) -> Iterator[Reference]:
    for each in attachments:
        still = _still(each.proxy_url) if (each.content_type or "").startswith(STILLS) else ""
        yield Reference(
            f"attachment:{each.id}", f"{origin}attachment", each.url, still, each.filename, each.is_spoiler(), each.size
        )


def _embeds(embeds: Sequence[discord.Embed], origin: str) -> Iterator[Reference]:
    for embed in embeds:
        for media in (embed.image, embed.thumbnail):
            # The original may be anywhere; what people see comes from Discord's proxy.
            if media.url:
                key = hashlib.sha256(_bare(media.url).encode()).hexdigest()[:32]
                yield Reference(f"embed:{key}", f"{origin}embed", media.proxy_url or media.url, name=_name(media.url))


def _stickers(stickers: Sequence[discord.StickerItem], origin: str) -> Iterator[Reference]:
    for sticker in stickers:
        yield Reference(f"sticker:{sticker.id}", f"{origin}sticker", sticker.url, name=sticker.name)


def _bare(url: str) -> str:
    """Without the query, which Discord signs anew each day."""
    return url.partition("?")[0]


def _name(url: str) -> str:
    return _bare(url).rpartition("/")[2][:100]


def _still(proxy: str) -> str:
    return str(URL(proxy, encoded=True).update_query(format="png")) if proxy else ""
