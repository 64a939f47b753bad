"""Repeated deletions lead to what a server has set: a longer time-out, a kick, a ban."""

from __future__ import annotations

import discord
import pytest
from simcord.builders import ChannelHandle
from spreading import at_once, click, fields, left, quiet
from tiny import blue, red
from world import SimulatedServer

from bot.client import PERMISSIONS
from bot.rules.policy import Action, Mode, ModerationRule
from bot.rules.shield import ShieldPolicy
from bot.rules.strikes import StrikePolicy

DELETES = (ModerationRule("flagged", 0.6, Action.DELETE),)
DAY = 86_400


def strikes(entry: discord.Message) -> str:
    return fields(entry).get("Strikes", "")


def member(world: SimulatedServer) -> object:
    return world.env.backend.guilds[world.guild.id].members.get(world.alice.id)


async def test_off_by_default_nothing_is_counted(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES)
    await world.post(red())
    assert strikes(world.entries()[0]) == ""
    assert await world.bot.services.store.add_strike(world.guild.id, world.alice.id, 1, 30) == 1


async def test_penalties_grow_with_the_number(world: SimulatedServer) -> None:
    world.permit(discord.Permissions(PERMISSIONS.value, ban_members=True, kick_members=True))
    await world.env.settle()
    await world.policy(Mode.ENFORCE, rules=DELETES, strikes=StrikePolicy(timeout=2, minutes=90, kick=3))
    for seed in range(2):
        await world.post(red(seed))
    assert [strikes(entry) for entry in world.entries()] == [
        "1 in 30 days.",
        "2 in 30 days. Author timed out for 90 minutes.",
    ]
    world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until = None
    await world.post(red(3))
    assert strikes(world.entries()[2]) == "3 in 30 days. Author kicked."
    assert member(world) is None
    reasons = [each.reason for each in world.env.http_requests if each.method in ("PATCH", "DELETE") and each.reason]
    assert reasons == ["2 deletions in 30 days; flagged 0.98", "3 deletions in 30 days; flagged 0.98"]


async def test_a_ban_and_what_the_bot_may_not_do(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES, strikes=StrikePolicy(ban=1))
    await world.post(red())
    assert strikes(world.entries()[0]) == "1 in 30 days. Ban failed: missing permission Ban Members."
    world.permit(discord.Permissions(PERMISSIONS.value, ban_members=True))
    high = world.guild.create_role("High", position=50)
    boss = world.guild.add_member(world.env.create_user("boss"), roles=[high])
    await world.env.settle()
    await world.post(red(1), by=boss)
    assert strikes(world.entries()[1]) == "1 in 30 days. Ban failed: the author's role ranks too high for the bot."
    await world.post(red(2))
    assert strikes(world.entries()[2]) == "2 in 30 days. Author banned."
    assert world.alice.id in world.env.backend.guilds[world.guild.id].bans


async def test_old_and_wrong_deletions_do_not_count(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES, strikes=StrikePolicy(days=7, timeout=50))
    await world.post(red())
    world.now += 8 * DAY
    await world.post(red(1))
    assert strikes(world.entries()[1]) == "1 in 7 days."
    await world.mod.click(world.entries()[1], label="Wrong verdict: allow picture")
    await world.post(red(2))
    assert strikes(world.entries()[2]) == "1 in 7 days."


async def test_a_moderators_deletion_counts_once(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=DELETES, strikes=StrikePolicy(timeout=2))
    for seed in range(2):
        await world.post(red(seed))
        await world.mod.click(world.entries()[-1], label="Delete")
    said = [fields(entry)["Moderator"] for entry in world.entries()]
    by = f"Deleted by {world.mod.mention}. Strikes:"
    assert said == [f"{by} 1 in 30 days.", f"{by} 2 in 30 days. Author timed out for 1440 minutes."]
    await world.policy(Mode.ENFORCE, rules=DELETES, strikes=StrikePolicy(timeout=50))
    bob = world.guild.add_member(world.env.create_user("bob"))
    await world.post(red(5), by=bob)
    await world.mod.click(world.entries()[-1], label="Delete")
    assert fields(world.entries()[-1])["Moderator"] == f"Deleted by {world.mod.mention}."


async def test_a_wave_is_one_strike_and_its_undo_takes_it_back(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    await world.policy(
        Mode.ENFORCE, shield=ShieldPolicy(on=True, time_out=False), strikes=StrikePolicy(timeout=50), rules=DELETES
    )
    await at_once(world, channels, blue())
    await quiet(world)
    assert left(world, channels) == 0
    (entry,) = world.entries()
    assert strikes(entry) == "1 in 30 days."
    assert not await click(world, world.mod, entry, "Undo")
    await world.post(red())
    assert strikes(world.entries()[1]) == "1 in 30 days."


@pytest.mark.parametrize("by_manager", [False, True])
async def test_who_deletes_their_data_keeps_their_strikes_unless_a_manager_does(
    world: SimulatedServer, by_manager: bool
) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES, strikes=StrikePolicy(timeout=50))
    await world.post(red())
    if by_manager:
        await world.manager.slash(world.general, "privacy delete", user=world.alice)
    else:
        await world.alice.slash(world.general, "privacy delete")
    await world.post(red(1))
    assert strikes(world.entries()[1]) == ("1 in 30 days." if by_manager else "2 in 30 days.")


# Commands


async def said(world: SimulatedServer, name: str, **options: object) -> str:
    result = await world.manager.slash(world.general, name, **options)
    return "\n".join(each.content for each in (result.response, *result.followups) if each is not None)


async def test_the_shield_is_set_by_commands_and_survives_a_restart(world: SimulatedServer) -> None:
    assert "**Shield** off" in await said(world, "shield show")
    await said(world, "shield set", on=True, channels=4, seconds=60, action="delete")
    await said(world, "shield newcomers", days=7)
    text = await said(world, "shield strikes", timeout=3, ban=9)
    assert "Ban Members" in text.splitlines()[-1], "the missing permission is named"
    await world.restart()
    text = await said(world, "shield show")
    assert "**Shield** on" in text
    assert "the same picture in 4 channels within 60 s" in text
    assert "the same picture in 2 channels within 300 s, for 7 days after joining" in text
    assert "time-out of 1,440 minutes from 3 deletions on, ban from 9 deletions on, within 30 days" in text
    assert "delete every copy (in shadow mode, it is only logged)" in text


async def test_counting_any_pictures_and_keeping_evidence_are_confirmed(world: SimulatedServer) -> None:
    for name, options, label, question in (
        ("shield set", {"pictures": "any"}, "Count any pictures", "treated like a scammer"),
        ("shield evidence", {"on": True}, "Keep them", "Never keep illegal pictures"),
    ):
        result = await world.manager.slash(world.general, name, **options)
        shown = result.response or result.followups[0]
        assert question in shown.content
        await world.manager.click(shown, label=label)
    policy = await world.bot.services.store.policy(world.guild.id)
    assert (policy.shield.any_picture, policy.evidence) == (True, True)


async def test_only_managers_set_the_shield(world: SimulatedServer) -> None:
    found = world.env.backend.find_command("shield", world.guild.id)
    world.guild.set_command_permissions(int(found["id"]), {world.guild.default_role: True})
    result = await world.alice.slash(world.general, "shield show")
    assert "You need the Manage Server permission" in str((result.response or result.followups[0]).content)


# Evidence


async def test_evidence_is_kept_behind_a_spoiler_only_where_that_is_set(
    world: SimulatedServer, channels: list[ChannelHandle]
) -> None:
    shield = ShieldPolicy(on=True, time_out=False)
    await world.policy(Mode.ENFORCE, rules=DELETES, shield=shield)
    await world.post(red())
    assert [each.filename for each in world.entries()[0].attachments] == ["SPOILER_blurred-0.jpg"]
    await world.policy(Mode.ENFORCE, rules=DELETES, shield=shield, evidence=True)
    await world.post(red(1))
    await at_once(world, channels, blue())
    await quiet(world)
    for entry, picture in zip(world.entries()[1:], (red(1), blue()), strict=True):
        blurred, kept = entry.attachments
        assert (blurred.filename, kept.filename) == ("SPOILER_blurred-0.jpg", "SPOILER_evidence-0.png")
        assert kept.is_spoiler()
        assert world.env.backend.cdn.get(kept.url) == picture


async def test_evidence_is_not_kept_of_what_is_not_deleted_and_has_limits(
    world: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.policy(Mode.REVIEW, rules=DELETES, evidence=True)
    await world.post(red())
    monkeypatch.setattr("bot.actions.evidence.MAX_BYTES", 100)
    await world.policy(Mode.ENFORCE, rules=DELETES, evidence=True)
    await world.post(red(1))
    for entry in world.entries():
        assert [each.filename for each in entry.attachments] == ["SPOILER_blurred-0.jpg"]
    assert len(world.posts(world.general)) == 1, "what cannot be kept is deleted all the same"
