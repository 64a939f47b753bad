"""Pictures in several channels of a simulated server, and what became of them."""

from __future__ import annotations

import discord
from simcord.actors import MemberActor
from simcord.builders import ChannelHandle
from world import SimulatedServer


async def spread(
    world: SimulatedServer, channels: list[ChannelHandle], *pictures: bytes, by: MemberActor | None = None
) -> list[discord.Message]:
    """The author posts a picture in each channel: the same one, or one each."""
    return [
        await (by or world.alice).send(channel, "win!", attachments=[("win.png", pictures[place % len(pictures)])])
        for place, channel in enumerate(channels)
    ]


async def at_once(world: SimulatedServer, channels: list[ChannelHandle], picture: bytes) -> list[int]:
    """The author posts a picture in each channel before the bot hears of any. Ids of the messages."""
    backend = world.env.backend
    sent = []
    for channel in channels:
        files = backend.store_attachments(channel.id, [("win.png", picture)])
        sent.append(backend.create_message(channel.id, world.alice.id, "", attachments=files).id)
    await world.env.settle()
    return sent


async def quiet(world: SimulatedServer) -> None:
    """Until the entry is posted."""
    await world.env.settle()


def left(world: SimulatedServer, channels: list[ChannelHandle]) -> int:
    return sum(len(world.posts(channel)) for channel in channels)


def fields(entry: discord.Message) -> dict[str, str]:
    return {field.name or "": field.value or "" for field in entry.embeds[0].fields}


def wave_id(entry: discord.Message) -> str:
    button = entry.components[0].children[0]  # type: ignore[union-attr]
    return str(button.custom_id).rpartition(":")[2]  # type: ignore[union-attr]


def timed_out(world: SimulatedServer) -> bool:
    return world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until is not None


async def click(world: SimulatedServer, actor: MemberActor, entry: discord.Message, label: str) -> str:
    """What the bot answers, or nothing."""
    result = await actor.click(entry, label=label)
    return "".join(each.content for each in result.followups)
