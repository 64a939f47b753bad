"""The slash commands: who may give them, what they answer, what changes."""

from __future__ import annotations

import csv
import io
import re

import discord
import pytest
from simcord.backend.errors import SetupError
from tiny import blue, red
from world import SimulatedServer

from bot.rules.policy import Action, Mode, ModerationRule

RULES = (ModerationRule("flagged", 0.6, Action.FLAG), ModerationRule("flagged", 0.9, Action.DELETE))


async def run_command(world: SimulatedServer, actor: object, command: str, **options: object) -> str:
    """What a command answers."""
    result = await actor.slash(world.general, command, **options)  # type: ignore[attr-defined]
    assert result.acknowledged
    messages = [each for each in (result.response, *result.followups) if each is not None]
    return "\n".join(filter(None, (each.content for each in messages)))


@pytest.mark.parametrize(
    "command",
    ["policy show", "policy set", "channel clear", "exempt list", "exempt add", "why", "stats", "scan", "model show"],
)
async def test_members_do_not_see_the_moderators_commands(world: SimulatedServer, command: str) -> None:
    with pytest.raises(SetupError, match="default-member-permissions"):
        await world.alice.slash(world.general, command)


@pytest.mark.parametrize("command", ["policy show", "channel clear", "exempt list"])
async def test_a_server_that_lets_members_see_them_does_not_let_them_use_them(
    world: SimulatedServer, command: str
) -> None:
    found = world.env.backend.find_command(command.split()[0], world.guild.id, type=1)
    world.guild.set_command_permissions(int(found["id"]), {world.guild.default_role: True})
    assert await run_command(world, world.alice, command) == "You need the Manage Server permission for this command."


async def test_policy_shows_the_models_own_thresholds_until_there_are_rules(world: SimulatedServer) -> None:
    text = await run_command(world, world.manager, "policy show")
    assert "**Mode** shadow" in text
    assert "- flagged from 0.600: flag" in text
    assert "**Mod-log** off (set a channel with `/channel modlog`)" in text
    assert text.endswith("Everything else is only logged.")


async def test_policy_set(world: SimulatedServer) -> None:
    text = await run_command(
        world, world.manager, "policy set", mode="enforce", moderators=world.mods, timeout_minutes=60, skip_bots=False
    )
    assert "**Mode** enforce" in text
    assert "The mod-log cannot be used: no mod-log channel is set." in text
    policy = await world.bot.services.store.policy(world.guild.id)
    assert (policy.mode, policy.moderators, policy.timeout_minutes) == (Mode.ENFORCE, world.mods.id, 60)
    assert (policy.skip_bots, policy.skip_age_gated) == (False, True)
    assert "Nothing changed: name at least one setting." in await run_command(world, world.manager, "policy set")


async def test_a_role_that_nobody_may_mention_is_pointed_out(world: SimulatedServer) -> None:
    quiet = world.guild.create_role("Quiet")
    assert "Pings will not notify" in await run_command(world, world.manager, "policy set", moderators=quiet)


async def test_settings_outlive_a_restart(world: SimulatedServer) -> None:
    world.hide(world.modlog)
    await run_command(world, world.manager, "policy set", mode="review")
    await run_command(world, world.manager, "channel modlog", channel=world.modlog)
    await world.restart()
    await world.post(red())
    assert len(world.entries()) == 1


async def test_a_modlog_without_permissions_is_refused(world: SimulatedServer) -> None:
    world.forbid(embed_links=True)
    text = await run_command(world, world.manager, "channel modlog", channel=world.general)
    assert text == "Mod-log not changed (missing permission: Embed Links)."
    assert "The mod-log is off." in await run_command(world, world.manager, "channel clear")


async def test_a_threshold_is_set_and_taken_away(world: SimulatedServer) -> None:
    text = await run_command(world, world.manager, "threshold", label="flagged", action="delete", score=0.9, ping=True)
    assert "- flagged from 0.600: flag" in text
    assert "- flagged from 0.900: delete, with a ping" in text
    world.hide(world.modlog)
    await run_command(world, world.manager, "channel modlog", channel=world.modlog)
    await run_command(world, world.manager, "policy set", mode="enforce")
    await world.post(red())
    assert world.posts(world.general) == []
    text = await run_command(world, world.manager, "threshold", label="flagged", action="delete")
    assert "delete" not in text


async def test_a_threshold_of_no_label_is_refused(world: SimulatedServer) -> None:
    text = await run_command(world, world.manager, "threshold", label="nonsense", action="flag", score=0.5)
    assert "there is no label `nonsense`. Choose one of flagged, corrupt" in text


async def test_labels_are_offered(world: SimulatedServer) -> None:
    offered = await world.manager.autocomplete(world.general, "threshold", "label", "la")
    assert [each["value"] for each in offered] == ["flagged", "too_large"]


async def test_exempt(world: SimulatedServer) -> None:
    assert world.mods.mention in await run_command(world, world.manager, "exempt add", role=world.mods)
    assert world.general.mention in await run_command(world, world.manager, "exempt add", channel=world.general)
    await world.post(red())
    assert await world.decisions() == []
    await run_command(world, world.manager, "exempt remove", channel=world.general)
    assert await run_command(world, world.manager, "exempt list") == f"Exempt: {world.mods.mention}."
    await world.post(red())
    assert len(await world.decisions()) == 1
    assert "name a role or a channel" in await run_command(world, world.manager, "exempt add")


async def test_why(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    message = await world.post(red())
    await world.mod.click(world.entries()[0], label="Delete")
    text = await run_command(world, world.mod, "why", message=message.jump_url)
    for part in ("**flagged** (model)", "flagged 0.98", "threshold 0.900", "rule: delete · done: flagged"):
        assert part in text
    assert f"Deleted by {world.mod.mention} <t:" in text
    assert "moderator@v1.0.0" in text
    assert await run_command(world, world.mod, "why", message=str(message.id)) == text
    assert await run_command(world, world.mod, "why", message="12345") == "No record of that message."
    assert "paste its link or its id" in await run_command(world, world.mod, "why", message="that one")


async def test_why_does_not_show_decisions_of_another_server(world: SimulatedServer) -> None:
    message = await world.post(red())
    other = world.env.create_guild("Elsewhere")
    role = other.create_role("Mods", permissions=discord.Permissions(manage_messages=True))
    mod = other.add_member(world.env.create_user("spy"), roles=[role])
    result = await mod.slash(other.create_text_channel("x"), "why", message=str(message.id))
    assert result.response.content == "No record of that message."


async def test_stats_and_their_export(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=(ModerationRule("flagged", 0.6, Action.FLAG),))
    for seed, choice in enumerate(["Delete", "Delete", "Wrong verdict: allow picture"]):
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


async def test_scan_looks_at_the_past_once(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    for seed in range(3):
        await world.post(red(seed=seed), blue(seed=seed))
    await world.policy(Mode.REVIEW, rules=RULES)
    text = await run_command(world, world.mod, "scan", channel=world.general, act=True)
    assert text == "Checked 3 messages: 6 new pictures, 3 matched a rule."
    assert len(world.entries()) == 3
    text = await run_command(world, world.mod, "scan", channel=world.general, act=True)
    assert "Checked 3 messages: no new pictures." in text
    assert len(world.entries()) == 3


async def test_scan_needs_the_history(world: SimulatedServer) -> None:
    world.forbid(read_message_history=True)
    text = await run_command(world, world.mod, "scan", channel=world.general)
    assert text == "Scan not started (missing permission: Read Message History)."


async def test_check_this_picture(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, exempt_channels=frozenset({world.general.id}), rules=RULES)
    message = await world.post(red(), blue())
    result = await world.mod.context_menu(world.general, "Check this picture", message)
    (answer,) = result.followups or [result.response]
    assert "**flagged** (flagged 0.982, clean 0.018) · rule: delete" in answer.content
    assert "**clean**" in answer.content
    assert "moderator@v1.0.0" in answer.content
    assert len(world.posts(world.general)) == 1
    empty = await world.alice.send(world.general, "only words")
    result = await world.mod.context_menu(world.general, "Check this picture", empty)
    assert (result.followups or [result.response])[0].content == "No pictures in this message."


async def test_model_show(world: SimulatedServer) -> None:
    text = await run_command(world, world.mod, "model show")
    for part in ("**moderator@v1.0.0**", "`workspace`", "flagged from 0.600", "validation AUROC 0.900"):
        assert part in text


async def test_model_reload_is_for_the_bots_owner(world: SimulatedServer) -> None:
    text = await run_command(world, world.manager, "model reload")
    assert text == "Only the bot's owner can reload the model, which serves all servers."


async def test_the_owner_reloads_and_a_failure_leaves_the_old_model(world: SimulatedServer) -> None:
    world.bot.owner_id = world.manager.id
    world.serving.asked = "no-such-tag"
    text = await run_command(world, world.manager, "model reload")
    assert text.startswith("The command failed: ")
    assert "no-such-tag" in text
    assert world.serving.version == "moderator@v1.0.0"


async def test_privacy(world: SimulatedServer) -> None:
    assert "after 90 days" in await run_command(world, world.alice, "privacy show")
    await world.policy(Mode.REVIEW, rules=RULES, exempt_moderators=False)
    await world.post(blue())
    await world.post(red())
    await world.post(blue(seed=3), by=world.mod)
    assert await run_command(world, world.alice, "privacy delete") == "Deleted 2 records."
    assert {each.user_id for each in await world.decisions()} == {None, world.mod.id}
    assert len(await world.decisions()) == 2, "the picture that moderators have yet to look at stays"


async def test_privacy_of_others_is_for_managers(world: SimulatedServer) -> None:
    await world.post(blue())
    assert "You need the Manage Server permission" in await run_command(
        world, world.mod, "privacy delete", user=world.alice
    )
    assert await run_command(world, world.manager, "privacy delete", user=world.alice) == "Deleted 1 record."
    assert await world.decisions() == []


async def test_info_avatar_roll(world: SimulatedServer) -> None:
    assert "moderator@v1.0.0" in await run_command(world, world.alice, "info")
    result = await world.alice.slash(world.general, "info", member=world.mod)
    assert result.response.embeds[0].title == "mod"
    result = await world.alice.slash(world.general, "avatar", member=world.mod)
    assert result.response.embeds[0].image.url.startswith(world.cdn.base)
    assert re.fullmatch(r"3d6: [1-6], [1-6], [1-6] = \d+", await run_command(world, world.alice, "roll", dice="3d6"))
    assert re.fullmatch(r"1d20: \d+", await run_command(world, world.alice, "roll", dice="1d20"))
    for wrong in ("0d6", "d0", "999d6", "1d99999", "two", "1d6; drop table", "-1d6"):
        assert "Write it as NdM" in await run_command(world, world.alice, "roll", dice=wrong)


async def test_the_bot_requests_minimal_intents_and_no_mentions(world: SimulatedServer) -> None:
    intents = world.bot.intents
    assert {name for name, on in intents if on} == {"guilds", "guild_messages", "message_content"}
    assert world.bot.allowed_mentions.to_dict() == {"parse": []}


async def test_commands_are_uploaded_once(world: SimulatedServer) -> None:
    def syncs() -> int:
        return sum(each.method == "PUT" and each.path.endswith("/commands") for each in world.env.http_requests)

    assert syncs() == 1
    await world.restart()
    assert syncs() == 1
