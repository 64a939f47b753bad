"""`/setup`: step by step, what is missing by name, and a test that goes the whole way."""

from __future__ import annotations

from typing import Any

import discord
import pytest
from simcord.backend.models.channel import Overwrite
from simcord.enums import OverwriteType
from simcord.results import InteractionResult, ResponseMessage
from world import SimulatedServer

from bot.commands.setting_up import STEPS, Setup
from bot.rules.policy import Action, GuildPolicy, Mode, ModerationRule

STEP = {step.title: place for place, step in enumerate(STEPS)}


async def at(world: SimulatedServer, title: str, actor: Any = None) -> ResponseMessage:
    """The set-up at one of its steps."""
    actor = actor or world.manager
    shown = last(await actor.slash(world.general, "setup"))
    for _ in range(STEP[title]):
        await actor.click(shown, label="Next")
    return shown


def last(result: InteractionResult) -> ResponseMessage:
    return [each for each in (result.response, *result.followups) if each is not None][-1]


async def choose(world: SimulatedServer, shown: ResponseMessage, *values: Any) -> None:
    (menu,) = [
        each["custom_id"] for row in shown.components for each in row["components"] if each["type"] in (3, 5, 6, 7, 8)
    ]
    await world.manager.select(shown, list(values), custom_id=menu)


async def policy_of(world: SimulatedServer) -> GuildPolicy:
    return await world.bot.services.store.policy(world.guild.id)


def deny(world: SimulatedServer, channel: int, **permissions: bool) -> None:
    backend = world.env.backend
    mine = next(role for role in backend.guilds[world.guild.id].roles.values() if role.managed)
    denied = discord.Permissions(**permissions).value
    backend.set_overwrite(channel, Overwrite(mine.id, OverwriteType.ROLE, deny=denied))


async def test_a_moderator_is_walked_through_everything(world: SimulatedServer) -> None:
    world.hide(world.modlog)
    await world.env.settle()
    shown = await at(world, "mod-log")
    assert shown.ephemeral
    assert shown.content.startswith("**Set-up, step 1 of 6: mod-log**")
    await choose(world, shown, world.modlog)
    assert f"Now: {world.modlog.mention}\nSaved." in shown.content
    await world.manager.click(shown, label="Next")
    await choose(world, shown, "review")
    await world.manager.click(shown, label="Next")
    await choose(world, shown, world.mods)
    await world.manager.click(shown, label="Next")
    await world.manager.click(shown, label="Tell authors")
    assert "Now: authors are told" in shown.content
    await world.manager.click(shown, label="Next")
    await world.manager.click(shown, label="Switch on")
    assert "posts the same picture in 3 channels within 120 s" in shown.content
    await world.manager.click(shown, label="Next")
    await world.manager.click(shown, label="Post a test picture")
    (entry,) = world.entries()
    assert f"It works: {entry.jump_url}" in shown.content
    await world.manager.click(shown, label="Finish")
    assert shown.content.startswith("Set-up is done.\n**Mode** review")
    assert shown.components == []
    policy = await policy_of(world)
    assert (policy.mode, policy.modlog, policy.moderators) == (Mode.REVIEW, world.modlog.id, world.mods.id)
    assert (policy.tell_author, policy.shield.on) == (True, True)


async def test_what_was_chosen_outlives_a_restart(world: SimulatedServer) -> None:
    await choose(world, await at(world, "mode"), "review")
    await world.restart()
    assert "Now: review" in (await at(world, "mode")).content


async def test_the_test_entry_is_marked_and_decides_nothing(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.0, Action.TIMEOUT, ping=True),))
    shown = await at(world, "test")
    await world.manager.click(shown, label="Post a test picture")
    (entry,) = world.entries()
    embed = entry.embeds[0]
    assert (embed.title or "").startswith("Test: flagged 0.")
    assert {field.name: field.value for field in embed.fields} == {
        "Author": f"the bot, for {world.manager.mention}",
        "Message": "Test: there is none. The buttons of a real entry work.",
        "Action": "No action taken.",
    }
    assert [each.filename for each in entry.attachments] == ["SPOILER_blurred-0.jpg"]
    buttons = [each for row in entry.components for each in row.children]  # type: ignore[union-attr]
    assert [each.disabled for each in buttons] == [True] * 4  # type: ignore[union-attr]
    assert await world.decisions() == []
    stored = world.env.backend.get_message(world.modlog.id, entry.id)
    assert (list(stored.ping_user_ids), list(stored.ping_role_ids)) == ([], [])


@pytest.mark.parametrize(
    ("denied", "missing"),
    [
        ({"embed_links": True}, "missing permission: Embed Links"),
        ({"view_channel": True}, "missing permissions: View Channel, Send Messages, Embed Links, Attach Files"),
    ],
)
async def test_a_modlog_names_what_is_missing(world: SimulatedServer, denied: dict[str, bool], missing: str) -> None:
    deny(world, world.modlog.id, **denied)
    shown = await at(world, "mod-log")
    await choose(world, shown, world.modlog)
    assert f"Mod-log not changed: {missing} in {world.modlog.mention}." in shown.content
    assert (await policy_of(world)).modlog is None


async def test_a_modlog_for_everyone_is_pointed_out(world: SimulatedServer) -> None:
    shown = await at(world, "mod-log")
    await choose(world, shown, world.modlog)
    assert f"Everyone can read {world.modlog.mention}." in shown.content


async def test_a_mode_names_the_channels_in_which_permissions_are_missing(world: SimulatedServer) -> None:
    rules = (ModerationRule("flagged", 0.9, Action.TIMEOUT),)
    await world.policy(Mode.REVIEW, rules=rules)
    world.forbid(moderate_members=True)
    deny(world, world.general.id, manage_messages=True)
    deny(world, world.modlog.id, manage_messages=True, read_message_history=True)
    shown = await at(world, "mode")
    assert f"Missing permission: Read Message History in {world.modlog.mention}." in shown.content
    assert "Manage Messages" not in shown.content, "not needed for review"
    await choose(world, shown, "enforce")
    assert f"Missing permission: Manage Messages in {world.general.mention}." in shown.content
    assert f"Missing permissions: Manage Messages, Read Message History in {world.modlog.mention}." in shown.content
    assert "Missing permission: Moderate Members, to time out." in shown.content


async def test_many_channels_fit_into_the_answer(world: SimulatedServer) -> None:
    for number in range(60):
        channel = world.guild.create_text_channel(f"channel-{number}")
        deny(world, channel.id, **({"read_message_history": True} if number % 2 else {"view_channel": True}))
    await world.env.settle()
    shown = await at(world, "mode")
    assert "and 20 more." in shown.content
    assert len(shown.content) <= 2000


async def test_a_test_without_a_modlog_says_why(world: SimulatedServer) -> None:
    shown = await at(world, "test")
    assert "The mod-log cannot be used: no mod-log channel is set." in shown.content
    await world.manager.click(shown, label="Post a test picture")
    assert "The test failed: no mod-log channel is set." in shown.content


async def test_a_test_that_discord_refuses_says_why(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW)
    shown = await at(world, "test")
    world.env.inject_error("POST", f"/channels/{world.modlog.id}/messages", status=403, code=50013, message="no")
    await world.manager.click(shown, label="Post a test picture")
    assert "The test failed: Discord answered HTTP 403" in shown.content


async def test_without_clicks_it_ends_politely(world: SimulatedServer) -> None:
    shown = await at(world, "mode")
    view = next(each for each in world.bot._connection._view_store._synced_message_views.values())
    assert isinstance(view, Setup)
    await view.on_timeout()
    assert shown.content.startswith("Set-up ended: nothing was clicked for 10 minutes.")
    assert shown.components == []


async def test_going_back(world: SimulatedServer) -> None:
    shown = await at(world, "moderators' role")
    await world.manager.click(shown, label="Back")
    assert "step 2 of 6: mode" in shown.content
