"""The review queue: buttons, rights, restarts, two moderators at once, and what is learnt about a picture."""

from __future__ import annotations

import io

import discord
import pytest
from PIL import Image
from tiny import red
from world import SimulatedServer

from bot.rules.policy import Action, Mode, ModerationRule

RULES = (ModerationRule("flagged", 0.6, Action.FLAG),)


@pytest.fixture
async def flagged(world: SimulatedServer) -> discord.Message:
    """A picture in review; its entry in the mod-log."""
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    return world.entries()[0]


async def states(world: SimulatedServer) -> list[str]:
    return [each.state for each in await world.decisions()]


async def test_approve(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.mod.click(flagged, label="Approve this message")
    assert await states(world) == ["approved"]
    assert len(world.posts(world.general)) == 1
    (entry,) = world.entries()
    assert f"Approved by {world.mod.mention}" in str(entry.embeds[0].fields)
    assert entry.components == []


async def test_delete(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.mod.click(flagged, label="Delete")
    assert await states(world) == ["deleted"]
    assert world.posts(world.general) == []


async def test_delete_and_time_out(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.mod.click(flagged, label="Delete and time out")
    assert await states(world) == ["timed_out"]
    assert world.posts(world.general) == []
    assert world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until


async def test_wrong_verdict(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.mod.click(flagged, label="Wrong verdict: allow picture")
    assert await states(world) == ["wrong"]
    assert len(world.posts(world.general)) == 1


async def test_the_buttons_work_after_a_restart(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.restart()
    await world.mod.click(flagged, label="Delete")
    assert await states(world) == ["deleted"]
    assert world.posts(world.general) == []


async def test_the_second_of_two_moderators_changes_nothing(world: SimulatedServer, flagged: discord.Message) -> None:
    world.press(world.mod, flagged, "approve")
    world.press(world.other_mod, flagged, "delete")
    await world.env.settle()
    (state,) = await states(world)
    assert state in ("approved", "deleted"), "either may be first"
    assert len(world.posts(world.general)) == (state == "approved")
    assert len([each for each in world.env.http_requests if each.method == "DELETE"]) == (state == "deleted")


async def test_a_member_cannot_decide(world: SimulatedServer, flagged: discord.Message) -> None:
    result = await world.alice.click(flagged, label="Approve this message")
    assert "you need the Manage Messages permission in that channel" in result.followups[0].content
    assert await states(world) == ["open"]


async def test_a_deletion_that_fails_can_be_tried_again(world: SimulatedServer, flagged: discord.Message) -> None:
    world.env.inject_error("DELETE", "/channels/*/messages/*", status=403, code=50013, message="Missing Permissions")
    result = await world.mod.click(flagged, label="Delete")
    assert "No action taken: Discord answered HTTP 403 (" in result.followups[0].content
    assert await states(world) == ["open"]
    await world.mod.click(flagged, label="Delete")
    assert await states(world) == ["deleted"]


async def test_a_message_that_is_gone_already_counts_as_deleted(
    world: SimulatedServer, flagged: discord.Message
) -> None:
    await world.alice.delete(world.posts(world.general)[0])
    await world.mod.click(flagged, label="Delete")
    assert await states(world) == ["deleted"]


async def test_a_wrong_time_out_is_lifted(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.TIMEOUT),))
    await world.post(red())
    members = world.env.backend.guilds[world.guild.id].members
    assert members[world.alice.id].timed_out_until
    await world.mod.click(world.entries()[0], label="Wrong verdict: allow picture")
    assert not members[world.alice.id].timed_out_until


async def test_a_time_out_that_cannot_be_lifted_is_reported(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.TIMEOUT),))
    await world.post(red())
    world.forbid(moderate_members=True)
    await world.mod.click(world.entries()[0], label="Wrong verdict: allow picture")
    assert await states(world) == ["wrong"]
    assert "The time-out could not be lifted: Discord answered HTTP 403 (" in str(world.entries()[0].embeds[0].fields)


async def test_the_thumbnail_is_small_and_blurred(world: SimulatedServer, flagged: discord.Message) -> None:
    data = world.env.backend.cdn.get(flagged.attachments[0].url)
    assert data
    image = Image.open(io.BytesIO(data)).convert("L")
    assert max(image.size) <= 160
    low, high = image.getextrema()
    assert high - low < 60, "the pattern of the picture, 150 levels of grey, can still be made out"


async def test_the_same_bytes_again_follow_the_moderator_not_the_model(
    world: SimulatedServer, flagged: discord.Message
) -> None:
    await world.mod.click(flagged, label="Wrong verdict: allow picture")
    await world.post(red())
    assert {each.verdict: each.state for each in await world.decisions()} == {"flagged": "wrong", "allowed": "closed"}
    assert len(world.entries()) == 1


async def test_a_similar_picture_follows_the_moderator_too(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.policy(Mode.ENFORCE, rules=RULES)
    await world.mod.click(flagged, label="Delete")
    await world.post(red(kind="JPEG", quality=60))
    assert world.posts(world.general) == [], "by the rules it would only have been flagged"
    decision = next(each for each in await world.decisions() if each.origin == "moderator")
    assert (decision.verdict, decision.done) == ("refused", Action.DELETE)


async def test_another_picture_does_not(world: SimulatedServer, flagged: discord.Message) -> None:
    await world.mod.click(flagged, label="Wrong verdict: allow picture")
    await world.post(red(seed=9))
    assert len(world.entries()) == 2


async def test_the_same_bytes_are_scored_once(world: SimulatedServer) -> None:
    await world.post(red())
    await world.post(red())
    assert sorted(each.origin for each in await world.decisions()) == ["cache", "model"]
    assert len({each.score for each in await world.decisions()}) == 1
