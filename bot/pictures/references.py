"""A message -> references to all pictures it shows. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import discord
from discord.components import (
    ActionRow,
    Component,
    Container,
    FileComponent,
    MediaGalleryComponent,
    SectionComponent,
    ThumbnailComponent,
    UnfurledMediaItem,
)
from yarl import URL

DISCORD_CDN = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
SIGNATURE = ("ex", "is", "hm")
"""Parameters with which Discord signs the URLs of its CDN, anew each day."""
CUSTOM_EMOJI = re.compile(r"<(a?):(\w{1,64}):([0-9]{1,20})>")


@dataclass(frozen=True)
class Reference:
    """One picture that a message shows."""

    key: str
    """Identifies the picture in its message; it survives edits and renewed signatures in URLs.

    At most 40 characters: the custom ids of review buttons hold it.
    """
    kind: str
    """attachment, embed, component, sticker or emoji, after `forwarded ` if it is in a forwarded message."""
    url: str
    """Discord's copy of the picture."""
    still: str = ""
    """The media proxy's still of it, to check if the file itself cannot be decoded; empty if there is none."""
    name: str = ""
    """File name, for display."""
    size: int = 0
    """Bytes; 0 if unknown before the download."""
    displayed: bool = False
    """Whether Discord shows it as a picture or video, whatever its bytes look like."""


def references(message: discord.Message) -> list[Reference]:
    """All pictures of a message and of the messages forwarded in it, without duplicates.

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
            *_components(part.components, origin),
            *_stickers(part.stickers, origin),
            *_emojis(part.content, origin),
        ):
            by_key.setdefault(reference.key, reference)
    return list(by_key.values())


def _attachments(attachments: Sequence[discord.Attachment], origin: str) -> Iterator[Reference]:
    for attachment in attachments:
        yield Reference(
            key=f"attachment:{attachment.id}",
            kind=f"{origin}attachment",
            url=attachment.url,
            still=still_url(attachment.proxy_url),
            name=attachment.filename,
            size=attachment.size,
            displayed=bool(attachment.width),
        )


def _embeds(embeds: Sequence[discord.Embed], origin: str) -> Iterator[Reference]:
    for embed in embeds:
        pictures = [
            (embed.image.url, embed.image.proxy_url),
            (embed.thumbnail.url, embed.thumbnail.proxy_url),
            (embed.author.icon_url, embed.author.proxy_icon_url),
            (embed.footer.icon_url, embed.footer.proxy_icon_url),  # type: ignore[attr-defined]  # at run time it has
        ]
        # The thumbnail of a video is its page's claim. A video without a copy is a page with a player, which has only
        # the thumbnail to show, if there is one.
        if embed.video.proxy_url or not any(url for url, _ in pictures):
            pictures.append((embed.video.url, embed.video.proxy_url))
        yield from (_media("embed", origin, url, proxy) for url, proxy in pictures if url)


def _components(components: Iterable[Component], origin: str) -> Iterator[Reference]:
    for item in _media_items(components):
        reference = replace(_media("media", origin, item.url, item.proxy_url), kind=f"{origin}component")
        if item.attachment_id:  # the message may list it among its attachments, too
            reference = replace(reference, key=f"attachment:{item.attachment_id}")
        yield reference


def _media_items(components: Iterable[Component | None]) -> Iterator[UnfurledMediaItem]:
    for component in components:
        if isinstance(component, MediaGalleryComponent):
            yield from (item.media for item in component.items)
        elif isinstance(component, ThumbnailComponent | FileComponent):
            yield component.media
        elif isinstance(component, SectionComponent):
            yield from _media_items([*component.children, component.accessory])
        elif isinstance(component, Container | ActionRow):
            yield from _media_items(component.children)


def _stickers(stickers: Sequence[discord.StickerItem], origin: str) -> Iterator[Reference]:
    for sticker in stickers:
        yield Reference(f"sticker:{sticker.id}", f"{origin}sticker", sticker.url, name=sticker.name)


def _emojis(content: str, origin: str) -> Iterator[Reference]:
    """The custom emoji of a message without words: Discord shows them large."""
    if any(character.isalnum() for character in CUSTOM_EMOJI.sub("", content)):
        return
    for animated, name, number in CUSTOM_EMOJI.findall(content):
        emoji = discord.PartialEmoji(name=name, animated=bool(animated), id=int(number))
        yield Reference(f"emoji:{emoji.id}", f"{origin}emoji", emoji.url, name=name)


def _media(kind: str, origin: str, url: str, proxy: str | None) -> Reference:
    """A picture on any host: Discord's clients show its copy in the media proxy."""
    key = hashlib.sha256(_without_signature(url).encode()).hexdigest()[:32]
    return Reference(
        key=f"{kind}:{key}",
        kind=f"{origin}{kind}",
        url=proxy or url,
        still=still_url(proxy or ""),
        name=url.partition("?")[0].rpartition("/")[2][:100],
        displayed=True,
    )


def _without_signature(text: str) -> str:
    """A URL without Discord's signature. On other hosts, each query may be another picture."""
    try:
        url = URL(text, encoded=True)
        return str(url.without_query_params(*SIGNATURE)) if url.host in DISCORD_CDN else text
    except ValueError:
        return text


def still_url(proxy: str) -> str:
    """What the media proxy makes a still of a picture or video under; empty if `proxy` is no URL."""
    try:
        return str(URL(proxy, encoded=True).update_query(format="webp")) if proxy else ""
    except ValueError:
        return ""
