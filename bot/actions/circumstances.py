"""Where a message is and who wrote it, also where Discord does not say it: archived threads, old messages."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import discord

from bot.actions.discord_calls import DISCORD_ERRORS, retry
from bot.rules.policy import GuildPolicy
from bot.rules.scopes import Circumstances

MEMBER_SECONDS = 300.0
"""How long a member that was asked for is remembered."""
REMEMBERED = 1_000
"""Members and threads that are remembered."""
AGE_GATED, MODERATOR = "age-gated", "exempt moderator"
"""Why messages in channels for adults, and those of moderators, are not checked."""
Channel = discord.abc.GuildChannel | discord.Thread


@dataclass(frozen=True)
class Context:
    """A message's channel and author, as far as they can be known."""

    message: discord.Message
    channel: Channel | None
    """None if the bot cannot see it: then only the rules for the whole server and for authors apply."""
    member: discord.Member | None
    """None for webhooks and those who have left."""

    def circumstances(self) -> Circumstances:
        """What the scopes of rules ask about."""
        days = None
        if self.member is not None and self.member.joined_at is not None:
            # At the time of the message: it may be looked at much later.
            days = (self.message.created_at - self.member.joined_at).total_seconds() / 86400
        roles = frozenset(role.id for role in self.member.roles) if self.member else frozenset[int]()
        return Circumstances(self._channels(), roles, days)

    def _channels(self) -> tuple[int, ...]:
        channel = self.channel
        if channel is None:
            return ()
        parent = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        category = channel.guild.get_channel(parent)
        category_id = category.category_id if category is not None else None
        return (parent,) if category_id is None else (parent, category_id)

    def exemption(self, policy: GuildPolicy) -> str:
        """Why the server's settings leave the message alone, or nothing."""
        roles = frozenset(role.id for role in self.member.roles) if self.member else frozenset[int]()
        if policy.exempt_roles & roles:
            return "exempt role"
        # A thread is exempt with its channel, and both with their category.
        if policy.exempt_channels & {self.message.channel.id, *self._channels()}:
            return "exempt channel"
        if policy.exempt_moderators and self._is_moderator():
            return MODERATOR
        if policy.skip_age_gated and self.message.guild and is_age_restricted(self.channel, self.message.guild):
            return AGE_GATED
        return ""

    def _is_moderator(self) -> bool:
        """Whether the author may delete others' messages there. Other bots have a setting of their own."""
        if self.member is None or self.member.bot:
            return False
        channel = self.channel
        if isinstance(channel, discord.Thread):
            channel = channel.parent  # whose permissions a thread has
        held = channel.permissions_for(self.member) if channel else self.member.guild_permissions
        return held.manage_messages


def is_age_restricted(channel: object, guild: discord.Guild) -> bool:
    """Whether the channel, its thread's parent or the whole server is for adults."""
    if guild.nsfw_level in (discord.NSFWLevel.explicit, discord.NSFWLevel.age_restricted):
        return True
    if isinstance(channel, discord.Thread):
        channel = channel.parent  # a thread has no setting of its own
    return bool(getattr(channel, "nsfw", False))


class Contexts:
    """Finds out what Discord did not send with a message, and remembers it for a while."""

    def __init__(self) -> None:
        self._threads: OrderedDict[int, Channel] = OrderedDict()
        self._members: OrderedDict[tuple[int, int], tuple[float, discord.Member | None]] = OrderedDict()

    async def of(self, message: discord.Message, policy: GuildPolicy) -> Context:
        """The context of a message in a server.

        Raises:
            discord.HTTPException, aiohttp.ClientError, OSError: if the author of a message that was fetched cannot be
                asked for. Whoever fetches messages tries again later.
        """
        member = await self._member(message, policy)
        if member is not None:
            message.author = member  # time-outs and the shield need that, too
        return Context(message, await self._channel(message), member)

    async def _channel(self, message: discord.Message) -> Channel | None:
        guild, channel = message.guild, message.channel
        if guild is None:
            return None
        if isinstance(channel, Channel):
            return channel
        known = guild.get_channel_or_thread(channel.id) or self._threads.get(channel.id)
        if known is not None:
            return known
        try:
            found = await guild.fetch_channel(channel.id)
        except DISCORD_ERRORS:
            return None  # hidden or deleted, and a new message must be checked all the same
        _remember(self._threads, channel.id, found)
        return found

    async def _member(self, message: discord.Message, policy: GuildPolicy) -> discord.Member | None:
        """The author. Messages that are fetched come without roles and the date of joining."""
        guild, author = message.guild, message.author
        if isinstance(author, discord.Member):
            return author
        if guild is None or message.webhook_id is not None or not policy.asks_about_authors:
            return None
        now, key = time.monotonic(), (guild.id, author.id)
        until, member = self._members.get(key, (-1.0, None))
        if now >= until:
            member = await _fetch_member(guild, author.id)
            _remember(self._members, key, (now + MEMBER_SECONDS, member))
        return member


async def _fetch_member(guild: discord.Guild, user_id: int) -> discord.Member | None:
    found: list[discord.Member] = []

    async def fetch() -> None:
        found.append(await guild.fetch_member(user_id))

    try:
        await retry(fetch)
    except discord.NotFound:
        return None
    return found[0]


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
