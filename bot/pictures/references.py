"""A message -> references to all pictures it shows. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import discord
from yarl import URL

STILLS = ("video/", "image/avif", "image/heic", "image/heif", "image/tiff", "image/bmp")
"""Content types that are checked by a still, which Discord's media proxy makes."""


@dataclass(frozen=True)
class Reference:
    """One picture that a message shows."""

    key: str
    """Identifies the picture in its message; it survives edits and renewed signatures in URLs."""
    kind: str
    """attachment, embed or sticker, after `forwarded ` if it is in a forwarded message."""
    url: str
    """Discord's copy of the picture."""
    still: str = ""
    """The media proxy's still of it, if that is what to check; otherwise empty."""
    name: str = ""
    """File name, for display."""
    size: int = 0
    """Bytes; 0 if unknown before the download."""


def references(message: discord.Message) -> list[Reference]:
    """The attachments, embeds and stickers of a message and of the messages forwarded in it, without duplicates.

    Every attachment is listed: names and content types are the uploader's claim, so only the bytes decide what it is.
    """
    by_key: dict[str, Reference] = {}
    parts: list[tuple[str, discord.Message | discord.MessageSnapshot]] = [("", message)]
    # A forwarded message has no content of its own; Discord sends copies of the originals.
    parts += [("forwarded ", snapshot) for snapshot in message.message_snapshots]
    for origin, part in parts:
        for reference in (
            *_attachments(part.attachments, origin),
            *_embeds(part.embeds, origin),
            *_stickers(part.stickers, origin),
        ):
            by_key.setdefault(reference.key, reference)
    return list(by_key.values())


def _attachments(attachments: Sequence[discord.Attachment], origin: str) -> Iterator[Reference]:
    for attachment in attachments:
        needs_still = (attachment.content_type or "").startswith(STILLS)
        yield Reference(
            key=f"attachment:{attachment.id}",
            kind=f"{origin}attachment",
            url=attachment.url,
            still=_still_url(attachment.proxy_url) if needs_still else "",
            name=attachment.filename,
            size=attachment.size,
        )


def _embeds(embeds: Sequence[discord.Embed], origin: str) -> Iterator[Reference]:
    for embed in embeds:
        for media in (embed.image, embed.thumbnail):
            # The original is on any host, but Discord's clients show its copy in the media proxy.
            if media.url:
                key = hashlib.sha256(_without_query(media.url).encode()).hexdigest()[:32]
                yield Reference(
                    f"embed:{key}", f"{origin}embed", media.proxy_url or media.url, name=_file_name(media.url)
                )


def _stickers(stickers: Sequence[discord.StickerItem], origin: str) -> Iterator[Reference]:
    for sticker in stickers:
        yield Reference(f"sticker:{sticker.id}", f"{origin}sticker", sticker.url, name=sticker.name)


def _without_query(url: str) -> str:
    """A URL without its query, whose signature Discord renews each day."""
    return url.partition("?")[0]


def _file_name(url: str) -> str:
    return _without_query(url).rpartition("/")[2][:100]


def _still_url(proxy: str) -> str:
    return str(URL(proxy, encoded=True).update_query(format="png")) if proxy else ""
