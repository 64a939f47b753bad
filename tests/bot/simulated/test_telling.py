"""Moderators are told where they can be; nothing is done that they cannot be told of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import discord
import pytest
from simcord.backend.models.channel import Overwrite
from simcord.builders import ChannelHandle, UserHandle
from simcord.enums import OverwriteType
from tiny import blue, red, redness
from waiting import until
from world import SimulatedServer

from bot.rules.policy import Action, GuildPolicy, Mode, ModerationRule

DELETE = (ModerationRule("flagged", 0.6, Action.DELETE),)
DAY = 86400


@pytest.fixture
async def system(world: SimulatedServer) -> ChannelHandle:
    """The server's system channel."""
    channel = world.guild.create_text_channel("staff")
    world.env.backend.edit_guild(world.guild.id, {"system_channel_id": channel.id})
    await world.env.settle()
    return channel


def owners_messages(world: SimulatedServer) -> list[str]:
    """What the bot wrote to the server's owner."""
    owner = UserHandle(world.env, world.env.backend.users[world.env.backend.guilds[world.guild.id].owner_id])
    return [each.content for each in world.posts(owner.dm_channel)]


async def delete_modlog(world: SimulatedServer) -> None:
    world.env.backend.delete_channel(world.modlog.id)
    await world.env.settle()


async def hide_modlog(world: SimulatedServer) -> None:
    deny = discord.Permissions(view_channel=True).value
    world.env.backend.set_overwrite(world.modlog.id, Overwrite(world.guild.id, OverwriteType.ROLE, deny=deny))
    await world.env.settle()


async def forbid_modlog(world: SimulatedServer) -> None:
    deny = discord.Permissions(embed_links=True).value
    world.env.backend.set_overwrite(world.modlog.id, Overwrite(world.guild.id, OverwriteType.ROLE, deny=deny))
    await world.env.settle()


async def never_set(world: SimulatedServer) -> None:
    store = world.bot.services.store
    await store.set_policy(world.guild.id, replace(await store.policy(world.guild.id), modlog=None))


LOSSES = {"deleted": delete_modlog, "hidden": hide_modlog, "forbidden": forbid_modlog, "never set": never_set}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("action", [Action.SPOILER, Action.DELETE, Action.TIMEOUT])
async def test_nothing_is_done_that_cannot_be_told(
    world: SimulatedServer, system: ChannelHandle, loss: str, action: Action
) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, action),))
    await LOSSES[loss](world)
    message = await world.post(red())
    assert [each.id for each in world.posts(world.general)] == [message.id]
    assert world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until is None
    (decision,) = await world.decisions()
    assert decision.done == Action.FLAG
    assert decision.detail.startswith("nobody could be told of more: ")
    (notice,) = world.posts(system)
    assert notice.content.startswith("The mod-log cannot be used: ")
    assert "no message is deleted or reposted" in notice.content


@pytest.mark.parametrize("loss", LOSSES)
async def test_act_untold_acts_all_the_same(world: SimulatedServer, loss: str) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await LOSSES[loss](world)
    result = await world.manager.slash(world.general, "policy set", act_untold=True)
    assert result.response is not None
    await world.manager.click(result.response, label="Act all the same")
    await world.post(red())
    assert world.posts(world.general) == []


async def test_moderators_are_told_once_a_day(world: SimulatedServer, system: ChannelHandle) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await delete_modlog(world)
    assert len(world.posts(system)) == 1, "at once, before there is a match"
    for seed in range(3):
        await world.post(red(seed))
    await world.restart()
    await world.post(red(4))
    assert len(world.posts(system)) == 1
    world.now += DAY
    await world.post(red(5))
    await world.post(red(6))
    assert len(world.posts(system)) == 2


async def test_a_modlog_lost_while_the_bot_was_down_is_told_at_the_start(
    world: SimulatedServer, system: ChannelHandle
) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await world.bot.close()
    world.env.backend.delete_channel(world.modlog.id)
    await world.restart()
    (notice,) = world.posts(system)
    assert "Matches cannot be reviewed." in notice.content


async def test_without_a_system_channel_the_owner_is_told(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await hide_modlog(world)
    await world.post(red())
    (text,) = owners_messages(world)
    assert "The mod-log cannot be used: missing permission" in text


async def test_a_system_channel_that_the_bot_may_not_write_to_is_passed_over(
    world: SimulatedServer, system: ChannelHandle
) -> None:
    deny = discord.Permissions(send_messages=True).value
    world.env.backend.set_overwrite(system.id, Overwrite(world.guild.id, OverwriteType.ROLE, deny=deny))
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await delete_modlog(world)
    assert world.posts(system) == []
    assert len(owners_messages(world)) == 1


async def test_an_owner_who_takes_no_messages_breaks_nothing(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("POST", "/users/@me/channels", status=403, code=50007, message="no", times=None)
    await delete_modlog(world)
    await world.post(red())
    assert len(await world.decisions()) == 1


async def test_shadow_needs_no_modlog(world: SimulatedServer, system: ChannelHandle) -> None:
    await world.policy(Mode.SHADOW, rules=DELETE)
    await delete_modlog(world)
    await world.post(red())
    assert world.posts(system) == []


@pytest.mark.parametrize("mode", Mode)
async def test_policy_show_names_the_problem(world: SimulatedServer, mode: Mode) -> None:
    await world.policy(mode, rules=DELETE)
    await delete_modlog(world)
    result = await world.manager.slash(world.general, "policy show")
    assert result.response is not None
    assert "The mod-log cannot be used: the mod-log channel is deleted or hidden" in (result.response.content or "")


# A new model with other labels


async def switch(world: SimulatedServer, folder: Path, *labels: str, version: str = "moderator@v2.0.0") -> None:
    """Load another model with labels of its own, in another thread, as a poll for new tags does."""
    model = redness(folder / version / "moderator.onnx", labels=labels)
    release = world.serving.current.release
    md5 = str(len(version)) * 32
    new = replace(release, version=version, md5=md5, model=model, sidecar=model.with_suffix(".json"))
    await asyncio.to_thread(world.serving.switch_to, new)
    # The simulation waits for what it caused itself, which this was not.
    await until(lambda: not any("on_model_switch" in task.get_name() for task in asyncio.all_tasks()))
    await world.env.settle()


async def test_rules_that_no_longer_apply_are_told_at_once(world: SimulatedServer, tmp_path: Path) -> None:
    await world.policy(Mode.ENFORCE, rules=(*DELETE, ModerationRule("corrupt", 0.5, Action.FLAG)))
    await switch(world, tmp_path, "explicit", "clean")
    (notice,) = world.entries()
    assert "moderator@v2.0.0" in notice.content
    assert "These rules no longer apply:\n- flagged from 0.600: delete\n" in notice.content
    assert "corrupt" not in notice.content
    assert "explicit, clean" in notice.content
    await world.restart()
    assert len(world.entries()) == 1, "once for each change"


async def test_a_restart_with_another_model_tells_too(world: SimulatedServer, tmp_path: Path) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await world.close()
    world.serving.listeners.clear()  # nobody was there to listen
    await switch(world, tmp_path, "explicit", "clean")
    await world.env.restart_bot(await world.parts())
    await world.env.settle()
    assert len(world.entries()) == 1


async def test_the_old_labels_come_back_and_go_again(world: SimulatedServer, tmp_path: Path) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await switch(world, tmp_path, "explicit", "clean")
    await switch(world, tmp_path, "flagged", "clean", version="moderator@v1.9.10")
    assert len(world.entries()) == 1
    await switch(world, tmp_path, "explicit", "clean", version="moderator@v2.0.100")
    assert len(world.entries()) == 2


async def test_a_model_with_the_same_labels_is_no_news(world: SimulatedServer, tmp_path: Path) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await switch(world, tmp_path, "flagged", "clean")
    assert world.entries() == []


async def test_rules_are_told_elsewhere_without_a_modlog(
    world: SimulatedServer, system: ChannelHandle, tmp_path: Path
) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await never_set(world)
    await switch(world, tmp_path, "explicit", "clean")
    notice, _ = world.posts(system)
    assert "Some rules no longer apply: see `/policy show`." in notice.content
    assert "0.600" not in notice.content, "everyone can read this channel"


async def test_reset_goes_back_to_the_models_own_rules(world: SimulatedServer, tmp_path: Path) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await switch(world, tmp_path, "explicit", "clean")
    await world.post(red())
    result = await world.manager.slash(world.general, "policy reset")
    assert result.response is not None
    assert "- explicit from 0.600: flag" in (result.response.content or "")
    policy = await world.bot.services.store.policy(world.guild.id)
    assert policy.rules is None
    assert policy.mode is Mode.REVIEW
    before = len(world.entries())
    await world.post(red(2), blue(2))
    assert len(world.entries()) == before + 1


def test_settings_of_earlier_versions_act_on_nothing_untold() -> None:
    assert GuildPolicy.from_json('{"mode": "enforce"}').act_untold is False
