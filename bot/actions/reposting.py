"""Posting a message again with everything that shows a picture behind spoilers."""

from __future__ import annotations

import io
import re
from typing import Any

import discord

from bot.pictures.fetching import Fetcher

MESSAGE_LENGTH = 2000
"""Characters that Discord takes in one message."""
_NOT_PLAIN = re.compile(r"[<\[|]|:/|[^\W_]\.[^\W_]")
"""What links, custom emoji and spoilers need: `<` and `[`, `|`, a scheme, or a dot inside a word."""


def not_repostable(message: discord.Message) -> str:
    """Why a message cannot be posted again behind spoilers: a clause, or nothing."""
    if message.message_snapshots or message.stickers:
        return "not reposted: forwarded messages and stickers cannot be hidden"
    if message.components or message.poll:
        return "not reposted: components and polls cannot be hidden"
    if any(embed.type == "rich" and not _is_preview(embed, message.content) for embed in message.embeds):
        return "not reposted: embeds of bots and webhooks cannot be hidden"
    return ""


def _is_preview(embed: discord.Embed, content: str) -> bool:
    """Whether Discord made an embed from a link in the text, so that the hidden link brings it along."""
    return bool(embed.url) and "://" in content


async def repost(message: discord.Message, label: str, fetcher: Fetcher) -> discord.Message:
    """Post a message's words and files again, as the bot, with files and links behind spoilers.

    Raises:
        UnfetchedError: if a file cannot be fetched, or all together are too large to upload.
        discord.HTTPException, aiohttp.ClientError, OSError: from Discord.
    """
    files = await _spoilered_files(message, fetcher)
    head = f"{_head(message)}{discord.utils.escape_markdown(label)}):"
    # The text may mention everyone; the author's own mention was limited by their permissions, the bot's is not.
    return await message.channel.send(
        spoilered_text(head, message.content),
        files=files,
        suppress_embeds=True,  # whether clients hide the preview of a hidden link is up to them
        allowed_mentions=discord.AllowedMentions.none(),
        **_reply_reference(message),
    )


def is_repost_of(candidate: discord.Message, message: discord.Message) -> bool:
    """Whether a later message of the bot in the same channel is the repost of a message."""
    return candidate.content.startswith(_head(message)) and len(candidate.attachments) == len(message.attachments)


def _head(message: discord.Message) -> str:
    return f"{message.author.mention} posted ("


async def _spoilered_files(message: discord.Message, fetcher: Fetcher) -> list[discord.File]:
    """Fetch a message's attachments, all together within what the server's boost level lets the bot upload."""
    assert message.guild is not None  # noqa: S101 - direct messages are skipped
    remaining = message.guild.filesize_limit
    files = []
    for attachment in message.attachments:
        data = await fetcher.fetch_file(attachment.url, remaining)
        remaining -= len(data)
        files.append(discord.File(io.BytesIO(data), attachment.filename.removeprefix("SPOILER_"), spoiler=True))
    return files


def spoilered_text(head: str, content: str) -> str:
    """The words of a message below `head`, cut to what Discord takes.

    Words that could hold a link or an emoji go behind one spoiler as a whole. Looking for the links themselves would
    miss the forms that only Discord knows: a link's text, angle brackets, other hosts for the same page.
    """
    words = content.strip()
    if not words:
        return head[:MESSAGE_LENGTH]
    room = MESSAGE_LENGTH - len(head) - 1
    if not _NOT_PLAIN.search(words):
        return f"{head}\n{words[:room]}"
    # Two bars would end the spoiler. The spaces keep a bar or a backslash of the words away from its own.
    inside = re.sub(r"\|{2,}", "|", words)[: room - len("||  ||")]
    return f"{head}\n|| {inside} ||"


def _reply_reference(message: discord.Message) -> dict[str, Any]:
    """Keyword arguments that make a repost reply to the same message."""
    reference = message.reference
    if reference is None or reference.message_id is None or reference.type is not discord.MessageReferenceType.reply:
        return {}
    # The message that was replied to may have been deleted meanwhile.
    replied_to = discord.MessageReference(
        message_id=reference.message_id, channel_id=reference.channel_id, fail_if_not_exists=False
    )
    return {"reference": replied_to}
