"""The slash commands: who may give them, what they answer, what changes."""

from __future__ import annotations

import csv
import io
import re

import discord
import pytest
from simcord.backend.errors import SetupError
from tiny import blue, red
from world import World

from bot.rules.policy import Action, Mode, Rule

RULES = (Rule("flagged", 0.6, Action.FLAG), Rule("flagged", 0.9, Action.DELETE))


async def said(world: World, actor: object, command: str, **options: object) -> str:
    """What a command answers: the last that was said."""
    result = await actor.slash(world.general, command, **options)  # type: ignore[attr-defined]
    assert result.acknowledged
    messages = [each for each in (result.response, *result.followups) if each is not None]
    return "\n".join(filter(None, (each.content for each in messages)))


@pytest.mark.parametrize(
    "command",
    ["policy show", "policy set", "channel clear", "exempt list", "exempt add", "why", "stats", "scan", "model show"],
)
async def test_members_do_not_see_the_moderators_commands(world: World, command: str) -> None:
    with pytest.raises(SetupError, match="default-member-permissions"):
        await world.alice.slash(world.general, command)


@pytest.mark.parametrize("command", ["policy show", "channel clear", "exempt list"])
async def test_a_server_that_lets_members_see_them_does_not_let_them_use_them(world: World, command: str) -> None:
    found = world.env.backend.find_command(command.split()[0], world.guild.id, type=1)
    world.guild.set_command_permissions(int(found["id"]), {world.guild.default_role: True})
    assert await said(world, world.alice, command) == "You need Manage Guild for this."


async def test_policy_shows_the_models_own_thresholds_until_there_are_rules(world: World) -> None:
    text = await said(world, world.manager, "policy show")
    assert "**mode** shadow" in text
    assert "- flagged from 0.600: flag" in text
    assert "none: set one by /channel modlog" in text


async def test_policy_set(world: World) -> None:
    text = await said(
        world, world.manager, "policy set", mode="enforce", moderators=world.mods, timeout_minutes=60, skip_bots=False
    )
    assert "**mode** enforce" in text
    assert "Set a mod-log, too" in text
    policy = await world.bot.services.store.policy(world.guild.id)
    assert (policy.mode, policy.moderators, policy.timeout_minutes) == (Mode.ENFORCE, world.mods.id, 60)
    assert (policy.skip_bots, policy.skip_age_gated) == (False, True)
    assert "Nothing was set" in await said(world, world.manager, "policy set")


async def test_a_role_that_nobody_may_mention_is_pointed_out(world: World) -> None:
    quiet = world.guild.create_role("Quiet")
    assert "Pings will be silent" in await said(world, world.manager, "policy set", moderators=quiet)


async def test_settings_outlive_a_restart(world: World) -> None:
    await said(world, world.manager, "policy set", mode="review")
    await said(world, world.manager, "channel modlog", channel=world.modlog)
    await world.restart()
    await world.post(red())
    assert len(world.entries()) == 1


async def test_a_modlog_that_the_bot_cannot_write_in_is_not_taken(world: World) -> None:
    world.forbid(embed_links=True)
    text = await said(world, world.manager, "channel modlog", channel=world.general)
    assert text == "Not set: the bot lacks Embed Links in this channel."
    assert "nowhere" in await said(world, world.manager, "channel clear")


async def test_a_threshold_is_set_and_taken_away(world: World) -> None:
    text = await said(world, world.manager, "threshold", label="flagged", action="delete", score=0.9, ping=True)
    assert "- flagged from 0.600: flag" in text
    assert "- flagged from 0.900: delete, with a ping" in text
    await said(world, world.manager, "policy set", mode="enforce")
    await world.post(red())
    assert world.posts(world.general) == []
    text = await said(world, world.manager, "threshold", label="flagged", action="delete")
    assert "delete" not in text


async def test_a_threshold_of_no_label_is_refused(world: World) -> None:
    text = await said(world, world.manager, "threshold", label="nonsense", action="flag", score=0.5)
    assert "no label `nonsense`; there are flagged, corrupt" in text


async def test_labels_are_offered(world: World) -> None:
    offered = await world.manager.autocomplete(world.general, "threshold", "label", "la")
    assert [each["value"] for each in offered] == ["flagged", "too_large"]


async def test_exempt(world: World) -> None:
    assert world.mods.mention in await said(world, world.manager, "exempt add", role=world.mods)
    assert world.general.mention in await said(world, world.manager, "exempt add", channel=world.general)
    await world.post(red())
    assert await world.decisions() == []
    await said(world, world.manager, "exempt remove", channel=world.general)
    assert await said(world, world.manager, "exempt list") == f"Exempt: {world.mods.mention}."
    await world.post(red())
    assert len(await world.decisions()) == 1
    assert "name a role or a channel" in await said(world, world.manager, "exempt add")


async def test_why(world: World) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    message = await world.post(red())
    await world.mod.click(world.entries()[0], label="delete")
    text = await said(world, world.mod, "why", message=message.jump_url)
    for part in ("**flagged** (model)", "flagged 0.98", "threshold 0.900", "by the rules: delete; done: flag"):
        assert part in text
    assert f"deleted by {world.mod.mention}" in text
    assert "moderator@v1.0.0" in text
    assert await said(world, world.mod, "why", message=str(message.id)) == text
    assert await said(world, world.mod, "why", message="12345") == "Nothing is kept of that message."
    assert "link or id" in await said(world, world.mod, "why", message="that one")


async def test_why_does_not_tell_of_another_server(world: World) -> None:
    message = await world.post(red())
    other = world.env.create_guild("Elsewhere")
    role = other.create_role("Mods", permissions=discord.Permissions(manage_messages=True))
    mod = other.add_member(world.env.create_user("spy"), roles=[role])
    result = await mod.slash(other.create_text_channel("x"), "why", message=str(message.id))
    assert result.response.content == "Nothing is kept of that message."


async def test_stats_and_their_export(world: World) -> None:
    await world.policy(Mode.REVIEW, rules=(Rule("flagged", 0.6, Action.FLAG),))
    for seed, choice in enumerate(["delete", "delete", "wrong verdict"]):
        await world.post(red(seed=seed))
        await world.mod.click(world.entries()[-1], label=choice)
    await world.post(blue(seed=9))
    result = await world.mod.slash(world.general, "stats", export=True)
    (answer,) = result.followups or [result.response]
    assert "4 pictures in 30 days" in answer.content
    assert "flagged 3" in answer.content
    assert re.search(r"flagged +0\.90 +3 +2 +0\.67 +0\.21 to 0\.94", answer.content)
    (file,) = answer.attachments
    assert file.filename == "decisions.csv"
    rows = list(csv.DictReader(io.StringIO((world.env.backend.cdn.get(file.url) or b"").decode())))
    assert sorted(row["state"] for row in rows) == ["closed", "deleted", "deleted", "wrong"]
    assert not {"user_id", "message_id", "sha256"} & set(rows[0])


async def test_scan_looks_at_the_past_once(world: World) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    for seed in range(3):
        await world.post(red(seed=seed), blue(seed=seed))
    await world.policy(Mode.REVIEW, rules=RULES)
    text = await said(world, world.mod, "scan", channel=world.general)
    assert "3 messages: 6 pictures not judged before, 3 of them met a rule." in text
    assert len(world.entries()) == 3
    text = await said(world, world.mod, "scan", channel=world.general)
    assert "3 messages: 0 pictures" in text
    assert len(world.entries()) == 3


async def test_scan_needs_the_history(world: World) -> None:
    world.forbid(read_message_history=True)
    text = await said(world, world.mod, "scan", channel=world.general)
    assert text == "Nothing was scanned: the bot lacks Read Message History in this channel."


async def test_check_this_picture(world: World) -> None:
    await world.policy(Mode.ENFORCE, exempt_channels=frozenset({world.general.id}), rules=RULES)
    message = await world.post(red(), blue())
    result = await world.mod.context_menu(world.general, "Check this picture", message)
    (answer,) = result.followups or [result.response]
    assert "**flagged** (flagged 0.982, clean 0.018); by the rules: delete" in answer.content
    assert "**clean**" in answer.content
    assert "moderator@v1.0.0" in answer.content
    assert len(world.posts(world.general)) == 1
    empty = await world.alice.send(world.general, "only words")
    result = await world.mod.context_menu(world.general, "Check this picture", empty)
    assert (result.followups or [result.response])[0].content == "No picture is in it."


async def test_model_show(world: World) -> None:
    text = await said(world, world.mod, "model show")
    for part in ("**moderator@v1.0.0**", "`workspace`", "flagged from 0.600", "auroc 0.900"):
        assert part in text


async def test_model_reload_is_for_the_bots_owner(world: World) -> None:
    text = await said(world, world.manager, "model reload")
    assert text == "Only the bot's owner may: one model serves all servers."


async def test_the_owner_reloads_and_a_failure_leaves_the_old_model(world: World) -> None:
    world.bot.owner_id = world.manager.id
    world.serving.asked = "no-such-tag"
    text = await said(world, world.manager, "model reload")
    assert "That did not work" in text
    assert "no-such-tag" in text
    assert world.serving.version == "moderator@v1.0.0"


async def test_privacy(world: World) -> None:
    assert "after 90 days" in await said(world, world.alice, "privacy show")
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(blue())
    await world.post(red())
    await world.post(blue(seed=3), by=world.mod)
    assert await said(world, world.alice, "privacy delete") == "Done: 2 rows."
    assert {each.user_id for each in await world.decisions()} == {None, world.mod.id}
    assert len(await world.decisions()) == 2, "the picture that moderators have yet to look at stays"


async def test_privacy_of_others_is_for_managers(world: World) -> None:
    await world.post(blue())
    assert "You need Manage Guild" in await said(world, world.mod, "privacy delete", user=world.alice)
    assert await said(world, world.manager, "privacy delete", user=world.alice) == "Done: 1 rows."
    assert await world.decisions() == []


async def test_info_avatar_roll(world: World) -> None:
    assert "moderator@v1.0.0" in await said(world, world.alice, "info")
    result = await world.alice.slash(world.general, "info", member=world.mod)
    assert result.response.embeds[0].title == "mod"
    result = await world.alice.slash(world.general, "avatar", member=world.mod)
    assert result.response.embeds[0].image.url.startswith(world.cdn.base)
    assert re.fullmatch(r"3d6: [1-6], [1-6], [1-6] = \d+", await said(world, world.alice, "roll", dice="3d6"))
    assert re.fullmatch(r"1d20: \d+", await said(world, world.alice, "roll", dice="1d20"))
    for wrong in ("0d6", "d0", "999d6", "1d99999", "two", "1d6; drop table", "-1d6"):
        assert "Write it as NdM" in await said(world, world.alice, "roll", dice=wrong)


async def test_the_bot_asks_for_the_least(world: World) -> None:
    intents = world.bot.intents
    assert {name for name, on in intents if on} == {"guilds", "guild_messages", "message_content"}
    assert world.bot.allowed_mentions.to_dict() == {"parse": []}


async def test_commands_are_told_to_discord_once(world: World) -> None:
    def syncs() -> int:
        return sum(each.method == "PUT" and each.path.endswith("/commands") for each in world.env.http_requests)

    assert syncs() == 1
    await world.restart()
    assert syncs() == 1
