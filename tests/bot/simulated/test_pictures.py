"""Which pictures of a message are looked at, and which are not."""

from __future__ import annotations

import copy
from typing import Any

import discord
import pytest
from simcord.backend import serializers
from simcord.backend.models.message import MessageSticker
from tiny import animated, blue, red
from world import SimulatedServer

from bot.rules.policy import Mode


async def verdicts(world: SimulatedServer) -> dict[str, str]:
    """Verdict by kind of picture."""
    return {each.picture.partition(":")[0]: each.verdict for each in await world.decisions()}


async def test_every_attachment_is_judged_by_its_content(world: SimulatedServer) -> None:
    files = [("notes.txt", red()), ("photo.png", blue()), ("song.mp3", b"ID3 no picture" * 10)]
    await world.alice.send(world.general, "three files", attachments=files)
    assert sorted(each.verdict for each in await world.decisions()) == ["clean", "flagged"]


async def test_a_spoilered_picture_is_judged_too(world: SimulatedServer) -> None:
    await world.alice.send(world.general, attachments=[("SPOILER_x.png", red())])
    assert await verdicts(world) == {"attachment": "flagged"}


async def test_a_forwarded_picture_is_judged_where_it_is_forwarded_to(world: SimulatedServer) -> None:
    elsewhere = world.guild.create_text_channel("elsewhere")
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({elsewhere.id}))
    message = await world.alice.send(elsewhere, attachments=[("x.png", red())])
    assert await world.decisions() == []
    await world.alice.forward(message, world.general)
    assert await verdicts(world) == {"attachment": "flagged"}


async def test_an_embed_that_arrives_late_is_judged(world: SimulatedServer) -> None:
    message = await world.alice.send(world.general, "look: https://example.com/a.png")
    assert await world.decisions() == []
    proxy = world.cdn.add("/external/abc/https/example.com/a.png", red())
    embed = {"type": "image", "url": "https://example.com/a.png"}
    embed["thumbnail"] = {"url": "https://example.com/a.png", "proxy_url": proxy, "width": 64, "height": 64}  # type: ignore[assignment]
    world.env.backend.edit_message(world.general.id, message.id, {"embeds": [embed]})
    await world.env.settle()
    assert await verdicts(world) == {"embed": "flagged"}


async def test_a_picture_that_discord_has_no_copy_of_is_never_fetched(world: SimulatedServer) -> None:
    message = await world.alice.send(world.general, "a link")
    for url in ("https://example.com/a.png", "http://127.0.0.1:1/a.png", "http://169.254.169.254/latest"):
        world.env.backend.edit_message(world.general.id, message.id, {"embeds": [{"image": {"url": url}}]})
        await world.env.settle()
    assert [each.verdict for each in await world.decisions()] == ["outside"] * 3
    assert world.cdn.asked == []


async def test_an_edit_has_only_new_pictures_judged(world: SimulatedServer) -> None:
    message = await world.post(red(), content="before")
    asked = len(world.cdn.asked)
    await world.alice.edit(message, "after")
    assert len(world.cdn.asked) == asked
    assert len(await world.decisions()) == 1
    await world.restart()
    await world.alice.edit(message, "after a restart")
    assert len(world.cdn.asked) == asked
    assert len(await world.decisions()) == 1


async def test_a_sticker_is_judged(world: SimulatedServer) -> None:
    world.env.backend.cdn.store_sticker(77, 1, red())
    sticker = MessageSticker(id=77, name="rude", format_type=1, guild_id=world.guild.id)
    world.env.backend.create_message(world.general.id, world.alice.id, "", stickers=[sticker])
    await world.env.settle()
    assert await verdicts(world) == {"sticker": "flagged"}


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
async def test_the_worst_frame_of_an_animation_counts(
    world: SimulatedServer, kind: str, options: dict[str, Any]
) -> None:
    frames = [blue(0), blue(1), red(2), blue(3)]
    await world.post(animated(frames, kind, **options))
    (decision,) = await world.decisions()
    assert decision.verdict == "flagged"
    assert decision.score > 0.9


async def test_the_number_of_pictures_per_message_is_limited(
    world: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.actions.moderation.MAX_PICTURES", 2)
    await world.post(blue(1), blue(2), blue(3))
    assert sorted(each.verdict for each in await world.decisions()) == ["clean", "clean", "too_many"]


async def test_bots_are_skipped_unless_the_policy_says_otherwise(world: SimulatedServer) -> None:
    robot = world.guild.add_member(world.env.create_user("robot", bot=True))
    await world.post(red(), by=robot)
    assert await world.decisions() == []
    await world.policy(Mode.SHADOW, skip_bots=False)
    await world.post(red(), by=robot)
    assert len(await world.decisions()) == 1


async def test_people_who_speak_through_a_webhook_are_not_skipped(world: SimulatedServer) -> None:
    hook = world.guild.create_webhook(world.general, "bridge")
    proxy = world.cdn.add("/external/x.png", red())
    embed = discord.Embed(url="https://example.com/x.png").set_image(url="https://example.com/x.png")
    data = embed.to_dict()
    data["image"]["proxy_url"] = proxy  # type: ignore[index]
    await hook.send("hello", embed=discord.Embed.from_dict(data))
    assert await verdicts(world) == {"embed": "flagged"}


async def test_exempt_roles_and_channels_are_skipped(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, exempt_roles=frozenset({world.mods.id}))
    await world.post(red(), by=world.mod)
    assert await world.decisions() == []
    await world.post(red())
    assert len(await world.decisions()) == 1
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    await world.post(red(5))
    assert len(await world.decisions()) == 1


async def _gate(world: SimulatedServer) -> None:
    channel = world.env.backend.get_channel(world.general.id)
    payload = copy.deepcopy(serializers.channel_payload(world.env.backend, channel))
    world.env.backend.emit("CHANNEL_UPDATE", {**payload, "nsfw": True})
    await world.env.settle()


@pytest.mark.parametrize("skip", [True, False])
async def test_age_gated_channels_are_skipped_where_the_policy_allows(world: SimulatedServer, skip: bool) -> None:
    await world.policy(Mode.SHADOW, skip_age_gated=skip)
    await _gate(world)
    await world.post(red())
    assert len(await world.decisions()) == (0 if skip else 1)


async def test_a_thread_is_gated_as_its_parent_is(world: SimulatedServer) -> None:
    await _gate(world)
    message = await world.alice.send(world.general, "start")
    thread = world.env.backend.create_thread(world.general.id, "thread", world.alice.id, message_id=message.id)
    handle = next(each for each in world.general.threads if each.id == thread.id)
    await world.alice.send(handle, attachments=[("x.png", red())])
    assert await world.decisions() == []


async def test_a_server_for_adults_is_gated_as_a_whole(world: SimulatedServer) -> None:
    guild = world.env.backend.get_guild(world.guild.id)
    payload = copy.deepcopy(serializers.guild_create_payload(world.env.backend, guild))
    world.env.backend.emit("GUILD_UPDATE", {**payload, "nsfw_level": discord.NSFWLevel.age_restricted.value})
    await world.env.settle()
    await world.post(red())
    assert await world.decisions() == []
    await world.policy(Mode.SHADOW, skip_age_gated=False)
    await world.post(red())
    assert len(await world.decisions()) == 1


async def test_a_direct_message_is_not_looked_at(world: SimulatedServer) -> None:
    backend = world.env.backend
    channel = world.alice.user.dm_channel.id
    files = backend.store_attachments(channel, [("x.png", red())])
    backend.create_message(channel, world.alice.id, "hello", attachments=files)
    await world.env.settle()
    assert await world.decisions() == []


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "corrupt"),
        (red()[:60], "corrupt"),
        (b"\xff\x0a" + b"\0" * 100, "unsupported"),
        (red(side=1200), "too_large"),
        (b"\xff\xd8\xff" + b"\0" * 3_000_000, "too_large"),
    ],
    ids=["junk", "cut off", "format", "pixels", "bytes"],
)
async def test_what_cannot_be_judged_gets_its_own_verdict(world: SimulatedServer, data: bytes, verdict: str) -> None:
    await world.post(data)
    (decision,) = await world.decisions()
    assert (decision.verdict, decision.origin, decision.scores) == (verdict, "unjudged", {})
    assert decision.detail


async def test_a_video_is_judged_by_the_still_that_discord_makes_of_it(world: SimulatedServer) -> None:
    world.cdn.still = red()
    await world.alice.send(world.general, attachments=[("clip.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 100)])
    assert await verdicts(world) == {"attachment": "flagged"}
