"""Commands ask for rights in the channel that they touch, look before they act, and confirm what is far-reaching."""

from __future__ import annotations

import discord
import pytest
from simcord.backend import serializers
from simcord.backend.models.channel import Overwrite
from simcord.builders import ChannelHandle
from simcord.enums import OverwriteType
from simcord.results import InteractionResult
from tiny import blue, red
from world import SimulatedServer

from bot.commands.rights import NOT_A_MODERATOR
from bot.rules.policy import Action, Mode, ModerationRule

RULES = (ModerationRule("flagged", 0.6, Action.DELETE),)
VIEW = discord.Permissions(view_channel=True).value
MANAGE = discord.Permissions(manage_messages=True).value
HISTORY = discord.Permissions(read_message_history=True).value


def said(result: InteractionResult) -> str:
    """All that a command answered."""
    messages = [each for each in (result.response, *result.followups) if each is not None]
    return "\n".join(filter(None, (each.content for each in messages)))


def overwrite(world: SimulatedServer, channel: ChannelHandle, role: int, allow: int = 0, deny: int = 0) -> None:
    world.env.backend.set_overwrite(channel.id, Overwrite(role, OverwriteType.ROLE, allow=allow, deny=deny))


@pytest.fixture
async def kept(world: SimulatedServer) -> ChannelHandle:
    """A channel that the moderators do not see, with a picture that the bot has judged."""
    channel = world.guild.create_text_channel("board")
    backend = world.env.backend
    mine = next(role for role in backend.guilds[world.guild.id].roles.values() if role.managed)
    overwrite(world, channel, mine.id, allow=VIEW)
    overwrite(world, channel, world.mods.id, deny=MANAGE)
    overwrite(world, channel, world.guild.id, deny=VIEW)
    await world.policy(Mode.SHADOW, rules=RULES)
    files = backend.store_attachments(channel.id, [("x.png", red())])
    backend.create_message(channel.id, world.manager.id, "", attachments=files)
    await world.env.settle()
    return channel


@pytest.mark.parametrize(("allow", "deny"), [(0, VIEW), (MANAGE, 0), (VIEW, MANAGE), (VIEW | MANAGE, HISTORY)])
async def test_why_is_for_moderators_of_that_channel(
    world: SimulatedServer, kept: ChannelHandle, allow: int, deny: int
) -> None:
    (decision,) = await world.decisions()
    overwrite(world, kept, world.mods.id, allow, deny)
    await world.env.settle()
    assert said(await world.mod.slash(world.general, "why", message=str(decision.message_id))) == NOT_A_MODERATOR
    overwrite(world, kept, world.mods.id, VIEW | MANAGE | HISTORY)
    await world.env.settle()
    text = said(await world.mod.slash(world.general, "why", message=str(decision.message_id)))
    assert "**flagged** (model)" in text


@pytest.mark.parametrize(("allow", "deny"), [(VIEW, MANAGE), (VIEW | MANAGE, HISTORY)])
async def test_scan_is_for_moderators_of_that_channel(
    world: SimulatedServer, kept: ChannelHandle, allow: int, deny: int
) -> None:
    asked = len(world.cdn.asked)
    overwrite(world, kept, world.mods.id, allow, deny)
    await world.env.settle()
    assert said(await world.mod.slash(world.general, "scan", channel=kept)) == NOT_A_MODERATOR
    assert len(world.cdn.asked) == asked
    overwrite(world, kept, world.mods.id, VIEW | MANAGE)
    await world.env.settle()
    assert "Checked 1 message" in said(await world.mod.slash(world.general, "scan", channel=kept))


async def test_a_moderator_of_one_channel_may_scan_that_one(world: SimulatedServer) -> None:
    helpers = world.guild.create_role("Helpers")
    helper = world.guild.add_member(world.env.create_user("helper"), roles=[helpers])
    overwrite(world, world.general, helpers.id, allow=MANAGE)
    other = world.guild.create_text_channel("other")
    await world.env.settle()
    assert "Checked" in said(await helper.slash(world.general, "scan", channel=world.general))
    assert said(await helper.slash(world.general, "scan", channel=other)) == NOT_A_MODERATOR


async def test_check_this_picture_is_for_moderators_of_that_channel(
    world: SimulatedServer, kept: ChannelHandle
) -> None:
    overwrite(world, kept, world.mods.id, VIEW, MANAGE)
    await world.env.settle()
    (message,) = world.posts(kept)
    found = world.env.backend.find_command("Check this picture", world.guild.id, type=3)
    world.guild.set_command_permissions(int(found["id"]), {world.guild.default_role: True})
    assert said(await world.mod.context_menu(kept, "Check this picture", message)) == NOT_A_MODERATOR


async def test_why_of_a_deleted_channel_is_for_moderators_of_the_server(
    world: SimulatedServer, kept: ChannelHandle
) -> None:
    (decision,) = await world.decisions()
    world.env.backend.delete_channel(kept.id)
    await world.env.settle()
    assert "**flagged**" in said(await world.mod.slash(world.general, "why", message=str(decision.message_id)))


async def test_why_of_a_channel_that_is_hidden_from_the_bot_is_for_nobody(
    world: SimulatedServer, kept: ChannelHandle
) -> None:
    (decision,) = await world.decisions()
    world.env.backend.emit("CHANNEL_DELETE", serializers.channel_payload(world.env.backend, kept._channel))
    world.env.inject_error("GET", f"/channels/{kept.id}", status=403, code=50001, message="Missing Access")
    await world.env.settle()
    assert said(await world.mod.slash(world.general, "why", message=str(decision.message_id))) == NOT_A_MODERATOR


@pytest.mark.parametrize("joined", [True, False])
async def test_why_of_a_private_thread_is_for_its_members(world: SimulatedServer, joined: bool) -> None:
    await world.policy(Mode.SHADOW, rules=RULES, exempt_moderators=False)
    backend = world.env.backend
    thread = backend.create_thread(world.general.id, "secret", world.manager.id, type=12)
    for member in (world.bot.user.id, *([world.mod.id] if joined else [])):  # type: ignore[union-attr]
        thread.thread_members[member] = thread.thread_members[world.manager.id]
    files = backend.store_attachments(thread.id, [("x.png", red())])
    backend.create_message(thread.id, world.manager.id, "", attachments=files)
    await world.env.settle()
    (decision,) = await world.decisions()
    text = said(await world.mod.slash(world.general, "why", message=str(decision.message_id)))
    assert ("**flagged**" in text) == joined
    assert (text == NOT_A_MODERATOR) != joined


# A scan looks before it acts


async def test_a_scan_only_looks(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    for seed in range(3):
        await world.post(red(seed), blue(seed))
    await world.policy(Mode.ENFORCE, rules=RULES)
    for _ in range(2):
        text = said(await world.mod.slash(world.general, "scan", channel=world.general))
        assert "Checked 3 messages: 6 new pictures, 3 matched a rule." in text
        assert "Nothing was done. `/scan act:True` would delete 3 messages." in text
    assert len(world.posts(world.general)) == 3
    assert world.entries() == []
    assert await world.decisions() == []
    text = said(await world.mod.slash(world.general, "scan", channel=world.general, act=True))
    assert "3 matched a rule." in text
    assert world.posts(world.general) == []
    assert len(world.entries()) == 3


@pytest.mark.parametrize(
    ("mode", "plan"), [(Mode.REVIEW, "post to the mod-log for 1 message"), (Mode.SHADOW, "Nothing to do.")]
)
async def test_a_scan_says_what_the_mode_allows(world: SimulatedServer, mode: Mode, plan: str) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    await world.post(red())
    await world.policy(mode, rules=RULES)
    assert plan in said(await world.mod.slash(world.general, "scan", channel=world.general))


# Confirmations


async def test_a_rule_for_every_picture_is_confirmed(world: SimulatedServer) -> None:
    world.hide(world.modlog)
    await world.policy(Mode.ENFORCE)
    result = await world.manager.slash(world.general, "threshold", label="flagged", action="delete", score=0.0)
    assert "would delete every message with a picture" in said(result)
    await world.post(blue())
    assert len(world.posts(world.general)) == 1
    assert result.response is not None
    result = await world.manager.click(result.response, label="Set the rule")
    assert "- flagged from 0.000: delete" in said(result)
    await world.post(blue(2))
    assert len(world.posts(world.general)) == 1


@pytest.mark.parametrize(("label", "score"), [("flagged", 0.5), ("corrupt", 0.0)])
async def test_other_rules_are_set_at_once(world: SimulatedServer, label: str, score: float) -> None:
    result = await world.manager.slash(world.general, "threshold", label=label, action="delete", score=score)
    assert f"- {label} from {score:.3f}: delete" in said(result)


async def test_a_modlog_for_everyone_is_confirmed(world: SimulatedServer) -> None:
    result = await world.manager.slash(world.general, "channel modlog", channel=world.modlog)
    assert "Everyone can read" in said(result)
    store = world.bot.services.store
    assert (await store.policy(world.guild.id)).modlog is None
    assert result.response is not None
    assert "The mod-log is now" in said(await world.manager.click(result.response, label="Use it all the same"))
    assert (await store.policy(world.guild.id)).modlog == world.modlog.id


async def test_a_hidden_modlog_is_set_at_once(world: SimulatedServer) -> None:
    world.hide(world.modlog)
    await world.env.settle()
    result = await world.manager.slash(world.general, "channel modlog", channel=world.modlog)
    assert "The mod-log is now" in said(result)


async def test_every_command_for_moderators_is_hidden_from_members_and_direct_messages(world: SimulatedServer) -> None:
    commands = {each.name: each.to_dict(world.bot.tree) for each in world.bot.tree.get_commands()}
    for name in ("policy", "channel", "exempt", "threshold", "scan", "why", "stats", "model", "shield"):
        assert commands[name]["default_member_permissions"], name
        assert commands[name]["contexts"] == [0] or commands[name]["dm_permission"] is False, name
