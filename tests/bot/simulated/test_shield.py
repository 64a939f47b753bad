"""Waves: one author's pictures in several channels, from the first copy to the moderators' decision."""

from __future__ import annotations

import logging
from datetime import timedelta

import discord
import pytest
from simcord.builders import ChannelHandle
from spreading import at_once, click, fields, left, quiet, spread, timed_out, wave_id
from tiny import blue, red
from world import SimulatedServer

from bot.rules.policy import Action, Mode, ModerationRule
from bot.rules.shield import ShieldPolicy

SHIELD = ShieldPolicy(on=True)
FLAGS = (ModerationRule("flagged", 0.6, Action.FLAG),)


async def test_every_copy_is_deleted_and_told_of_once(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    sent = await at_once(world, channels, blue())
    await quiet(world)
    assert left(world, channels) == 0, "also those of before the rule matched"
    assert timed_out(world)
    (entry,) = world.entries()
    embed = entry.embeds[0]
    assert embed.title == "Wave: 4 messages in 4 channels"
    assert embed.description is not None
    assert embed.description.startswith("The same picture in 3 channels within 120 s\n")
    for channel, message in zip(channels, sent, strict=True):
        assert f"channels/{world.guild.id}/{channel.id}/{message}" in embed.description
    assert fields(entry)["Action"] == "Deleted 4 messages. Author timed out for 60 minutes."
    assert fields(entry)["Author"] == f"<@{world.alice.id}> ({world.alice.id})"
    reasons = {each.reason for each in world.env.http_requests if each.method in ("DELETE", "PATCH") and each.reason}
    assert reasons == {"shield: the same picture in 3 channels within 120 s"}


async def test_the_same_picture_in_two_channels_is_none(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    await spread(world, [channels[0], channels[0], channels[1]], blue())
    await quiet(world)
    assert (left(world, channels), world.entries(), timed_out(world)) == (3, [], False)


async def test_different_pictures_are_none_unless_that_is_set(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    await spread(world, channels, *map(blue, range(4)))
    await quiet(world)
    assert (left(world, channels), world.entries()) == (4, [])
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, any_picture=True, time_out=False))
    await spread(world, channels[:3], *map(blue, range(10, 13)))
    await quiet(world)
    assert left(world, channels) == 0, "and the first four, which are as recent"
    (entry,) = world.entries()
    assert fields(entry)["Action"] == "Deleted 7 messages."
    assert not timed_out(world)


async def test_the_same_picture_under_other_names_and_compressed_again_is_recognised(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    for number, channel in enumerate(channels[:3]):
        data = blue(kind="JPEG", quality=95 - 15 * number)
        await world.alice.send(channel, attachments=[(f"{number}.jpg", data)])
    await quiet(world)
    assert left(world, channels) == 0
    assert len(world.entries()) == 1


async def test_later_copies_are_deleted_too_and_listed_in_the_same_entry(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, time_out=False))
    await spread(world, channels[:3], blue())
    await quiet(world)
    await spread(world, [channels[3], channels[0]], blue())
    await quiet(world)
    assert left(world, channels) == 0
    (entry,) = world.entries()
    assert fields(entry)["Action"] == "Deleted 5 messages."


async def test_what_an_author_takes_back_does_not_count(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    for channel in channels:  # wrong channel, wrong channel ...
        (message,) = await spread(world, [channel], blue())
        if channel is not channels[-1]:
            await world.alice.delete(message)
    await quiet(world)
    assert (left(world, channels), world.entries()) == (1, [])


async def test_shadow_only_logs(
    world: SimulatedServer, channels: list[ChannelHandle], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.policy(Mode.SHADOW, shield=SHIELD)
    await spread(world, channels, blue())
    await quiet(world)
    assert (left(world, channels), world.entries(), timed_out(world)) == (4, [], False)
    (record,) = [each for each in caplog.records if each.message == "a wave began"]
    assert (record.rule, record.action) == ("the same picture in 3 channels within 120 s", "log")  # type: ignore[attr-defined]


async def test_off_it_does_nothing(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE)
    await spread(world, channels, blue())
    await quiet(world)
    assert (left(world, channels), world.entries()) == (4, [])


async def test_exempt_roles_and_moderators_are_left_alone(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    artists = world.guild.create_role("Artists")
    artist = world.guild.add_member(world.env.create_user("artist"), roles=[artists])
    await world.policy(Mode.ENFORCE, shield=SHIELD, exempt_roles=frozenset({artists.id}))
    for author in (artist, world.mod):
        await spread(world, channels, blue(), by=author)
    await quiet(world)
    assert (left(world, channels), world.entries()) == (8, [])
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, spare_moderators=False))
    await spread(world, channels[:3], blue(1), by=world.mod)
    await quiet(world)
    assert left(world, channels) == 8
    assert len(world.entries()) == 1


async def test_newcomers_have_stricter_limits(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, newcomer_days=7))
    member = world.env.backend.guilds[world.guild.id].members[world.alice.id]
    member.joined_at = (discord.utils.utcnow() - timedelta(days=8)).isoformat()
    await spread(world, channels[:2], blue())
    await quiet(world)
    assert left(world, channels) == 2
    member.joined_at = (discord.utils.utcnow() - timedelta(days=1)).isoformat()
    await spread(world, channels[:2], blue(1))
    await quiet(world)
    assert left(world, channels) == 2
    assert "The same picture in 2 channels within 300 s" in str(world.entries()[0].embeds[0].description)


async def test_a_wave_of_flagged_pictures_has_one_entry_more_at_most_a_copy_before_the_rule(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    await world.policy(Mode.REVIEW, rules=FLAGS, shield=SHIELD)
    await spread(world, channels, red())
    await quiet(world)
    titles = [entry.embeds[0].title for entry in world.entries()]
    assert titles == ["flagged 0.98", "flagged 0.98", "Wave: 4 messages in 4 channels"]
    details = [each.detail for each in await world.decisions() if each.detail]
    assert details == ["part of a wave"] * 2


# Review


@pytest.fixture
async def entry(world: SimulatedServer, channels: list[ChannelHandle]) -> discord.Message:
    """A wave in review; its entry in the mod-log."""
    await world.policy(Mode.REVIEW, shield=SHIELD)
    await spread(world, channels, blue())
    await quiet(world)
    (entry,) = world.entries()
    assert left(world, channels) == 4
    assert fields(entry)["Action"] == "No action taken: waiting for review."
    return entry


async def test_delete_all(world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message) -> None:
    assert not await click(world, world.mod, entry, "Delete all")
    assert (left(world, channels), timed_out(world)) == (0, False)
    (entry,) = world.entries()
    assert fields(entry)["Action"] == "Deleted 4 messages."
    assert fields(entry)["Moderator"] == f"Deleted by {world.mod.mention}."
    assert entry.components == []
    reasons = {each.reason for each in world.env.http_requests if each.method == "DELETE"}
    assert reasons == {"shield: deleted by mod"}


async def test_delete_all_and_time_out(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    await world.restart()  # the buttons work after it
    assert not await click(world, world.mod, entry, "Delete all and time out")
    assert (left(world, channels), timed_out(world)) == (0, True)
    assert fields(world.entries()[0])["Action"] == "Deleted 4 messages. Author timed out for 60 minutes."


async def test_leave(world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message) -> None:
    assert not await click(world, world.mod, entry, "Leave")
    await spread(world, channels[:1], blue())
    await quiet(world)
    assert left(world, channels) == 5, "and it is not asked about again"
    assert len(world.entries()) == 1
    assert fields(world.entries()[0])["Moderator"] == f"Left alone by {world.mod.mention}."


async def test_copies_that_come_after_a_moderator_deleted_the_wave_are_deleted(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    await spread(world, channels[:1], blue())
    await quiet(world)
    assert world.entries()[0].embeds[0].title == "Wave: 5 messages in 4 channels"
    await click(world, world.mod, entry, "Delete all")
    await spread(world, channels[:1], blue())
    await quiet(world)
    assert left(world, channels) == 0
    assert fields(world.entries()[0])["Action"] == "Deleted 6 messages."
    assert "Deleted by" in fields(world.entries()[0])["Moderator"]


async def test_of_two_moderators_one_decides(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    world.press(world.mod, entry, "leave")
    world.press(world.other_mod, entry, "delete")
    await quiet(world)
    row = await world.bot.services.store.wave(wave_id(entry))
    assert row is not None
    assert row.state in ("left", "deleted"), "either may be first"
    assert left(world, channels) == (4 if row.state == "left" else 0)
    assert fields(world.entries()[0])["Moderator"].count("by <@") == 1


async def test_permissions_are_checked_at_each_click(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    helpers = world.guild.create_role("Helpers", permissions=discord.Permissions(manage_messages=True))
    helper = world.guild.add_member(world.env.create_user("helper"), roles=[helpers])
    text = "No action taken: you need the Moderate Members permission."
    assert await click(world, helper, entry, "Delete all and time out") == text
    text = f"No action taken: you need the Manage Messages permission in <#{channels[0].id}>."
    for label in ("Delete all", "Leave"):
        assert await click(world, world.alice, entry, label) == text
    assert left(world, channels) == 4


async def test_a_deletion_that_discord_refuses_can_be_tried_again(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    world.forbid(manage_messages=True)
    await world.env.settle()
    assert await click(world, world.mod, entry, "Delete all") == "No action taken: missing permission: Manage Messages."
    assert left(world, channels) == 4
    world.permit(discord.Permissions(discord.Permissions.all().value & ~discord.Permissions.administrator.flag))
    await world.env.settle()
    assert not await click(world, world.mod, world.entries()[0], "Delete all")


async def test_undo(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    await spread(world, channels[:3], blue())
    await quiet(world)
    assert timed_out(world)
    await world.restart()
    (entry,) = world.entries()
    assert not await click(world, world.mod, entry, "Undo")
    assert not timed_out(world)
    text = f"Undone by {world.mod.mention}. Time-out lifted. Deleted messages cannot be restored."
    assert fields(world.entries()[0])["Moderator"] == text
    await spread(world, channels[:2], blue())
    await quiet(world)
    assert left(world, channels) == 2, "the author's pictures are counted anew"


async def test_what_the_bot_may_not_do_is_said(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    high = world.guild.create_role("High", position=50)
    boss = world.guild.add_member(world.env.create_user("boss"), roles=[high])
    world.forbid(manage_messages=True)
    await world.env.settle()
    await spread(world, channels, blue(), by=boss)
    await quiet(world)
    (entry,) = world.entries()
    assert fields(entry)["Action"] == (
        "Deleted 0 of 4 messages. Not deleted (4): missing permission: Manage Messages. "
        "Time-out failed: the author's role ranks too high for the bot."
    )


# Restarts, and data that is deleted


async def test_a_wave_goes_on_over_a_restart(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, time_out=False))
    await spread(world, channels[:2], blue())
    await world.restart()
    await spread(world, channels[2:3], blue())
    await quiet(world)
    assert left(world, channels) == 0
    await world.restart()
    await spread(world, channels[3:], blue())
    await quiet(world)
    assert left(world, channels) == 0
    (entry,) = world.entries()
    assert fields(entry)["Action"] == "Deleted 4 messages."


async def test_an_author_without_data_is_timed_out_all_the_same(
    world: SimulatedServer, channels: list[ChannelHandle], entry: discord.Message
) -> None:
    await world.alice.slash(world.general, "privacy delete")
    row = await world.bot.services.store.wave(wave_id(entry))
    assert row is not None
    assert row.user_id is None
    await world.restart()
    assert not await click(world, world.mod, entry, "Delete all and time out")
    assert (left(world, channels), timed_out(world)) == (0, True)
    assert await world.bot.services.store.wave(row.id) is None, "deleted with the decision"


async def test_the_entry_is_posted_once_discord_takes_it(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=SHIELD)
    world.env.inject_error("POST", f"/channels/{world.modlog.id}/messages", status=403, code=50013, message="no")
    await spread(world, channels[:3], blue())
    await quiet(world)
    assert (left(world, channels), world.entries()) == (0, [])
    world.now += 60
    await world.env.advance_time(20)
    await quiet(world)
    assert len(world.entries()) == 1


async def test_a_long_wave_is_listed_in_a_file(world: SimulatedServer, channels: list[ChannelHandle]) -> None:
    await world.policy(Mode.ENFORCE, shield=ShieldPolicy(on=True, time_out=False))
    await at_once(world, channels * 11, blue())
    await quiet(world)
    assert left(world, channels) == 0
    (entry,) = world.entries()
    assert "and 4 more: see messages.txt" in str(entry.embeds[0].description)
    (file,) = [each for each in entry.attachments if each.filename == "messages.txt"]
    assert (world.env.backend.cdn.get(file.url) or b"").count(b"https://") == 44
