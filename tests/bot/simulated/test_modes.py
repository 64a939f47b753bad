"""What is done about a picture, mode by mode and rule by rule."""

from __future__ import annotations

import pytest
from tiny import blue, red
from world import SimulatedServer

from bot.rules.policy import Action, Mode, ModerationRule

DELETES = (ModerationRule("flagged", 0.6, Action.FLAG), ModerationRule("flagged", 0.9, Action.DELETE))


def fields(world: SimulatedServer) -> dict[str, str]:
    """The fields of the first mod-log entry."""
    return {field.name or "": field.value or "" for field in world.entries()[0].embeds[0].fields}


def timed_out(world: SimulatedServer) -> bool:
    return world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until is not None


async def test_shadow_is_the_default_and_only_logs(world: SimulatedServer) -> None:
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    assert world.entries() == []
    (decision,) = await world.decisions()
    assert (decision.action, decision.done, decision.state) == (Action.FLAG, Action.LOG, "closed")


async def test_shadow_says_what_enforce_would_have_done(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, rules=DELETES)
    await world.post(red())
    (decision,) = await world.decisions()
    assert (decision.action, decision.done) == (Action.DELETE, Action.LOG)
    assert len(world.posts(world.general)) == 1


async def test_review_posts_to_the_modlog_and_leaves_the_message(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=DELETES)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    (entry,) = world.entries()
    assert entry.embeds[0].title == "flagged 0.98"
    assert fields(world)["Action"] == "No action taken: waiting for review."
    assert f"channels/{world.guild.id}/{world.general.id}/" in str(entry.embeds[0].fields)
    assert entry.embeds[0].footer.text.startswith("moderator@v1.0.0 · #")
    assert [each.filename for each in entry.attachments] == ["SPOILER_blurred-0.jpg"]


async def test_a_clean_picture_is_not_posted_to_the_modlog(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES)
    await world.post(blue())
    assert world.entries() == []
    assert len(world.posts(world.general)) == 1


async def test_enforce_deletes(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES)
    await world.post(red())
    assert world.posts(world.general) == []
    assert fields(world)["Action"] == "Deleted."
    (decision,) = await world.decisions()
    assert (decision.done, decision.state) == (Action.DELETE, "open")


async def test_the_worst_picture_of_a_message_decides(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETES)
    await world.post(blue(), red())
    assert world.posts(world.general) == []
    done = {each.verdict: each.done for each in await world.decisions()}
    assert done == {"flagged": Action.DELETE, "clean": Action.LOG}


async def test_enforce_times_out(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.TIMEOUT),))
    await world.post(red())
    assert world.posts(world.general) == []
    assert timed_out(world)


async def test_the_message_of_a_higher_ranked_author_is_only_deleted(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.TIMEOUT),))
    high = world.guild.create_role("High", position=50)
    await world.post(red(), by=world.guild.add_member(world.env.create_user("boss"), roles=[high]))
    assert world.posts(world.general) == []
    (decision,) = await world.decisions()
    assert decision.done == Action.DELETE
    assert decision.detail == "time-out failed: the author's role ranks too high for the bot"
    assert fields(world)["Action"] == "Deleted. Time-out failed: the author's role ranks too high for the bot."


async def test_a_picture_is_posted_again_behind_a_spoiler_with_its_text(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.SPOILER),))
    question = await world.mod.send(world.general, "what have you got?")
    data = red()
    await world.alice.send(
        world.general, "@everyone look!", attachments=[("x.png", data), ("notes.txt", b"hi")], reply_to=question
    )
    first, again = world.posts(world.general)
    assert first.id == question.id
    assert [each.filename for each in again.attachments] == ["SPOILER_x.png", "SPOILER_notes.txt"]
    assert world.env.backend.cdn.get(again.attachments[0].url) == data
    assert again.content.endswith("@everyone look!")
    assert world.alice.mention in again.content
    assert not again.mention_everyone
    assert world.env.backend.get_message(again.channel.id, again.id).ping_user_ids == []
    assert again.reference is not None
    assert again.reference.message_id == question.id


async def test_the_bots_own_spoilered_post_is_not_judged_again(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.SPOILER),), skip_bots=False)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    assert len(await world.decisions()) == 1


async def test_nothing_is_deleted_that_cannot_be_posted_again(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.SPOILER),))
    world.forbid(attach_files=True)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    (decision,) = await world.decisions()
    assert decision.done == Action.FLAG
    assert decision.detail == "missing permission: Attach Files"


async def test_a_rule_may_ping_the_moderators(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=(ModerationRule("flagged", 0.9, Action.FLAG, ping=True),))
    await world.post(red())
    (entry,) = world.entries()
    assert world.env.backend.get_message(world.modlog.id, entry.id).ping_role_ids == [world.mods.id]


async def test_without_such_a_rule_nobody_is_pinged(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=(ModerationRule("flagged", 0.9, Action.FLAG),))
    await world.post(red(), content=f"{world.mods.mention} @everyone")
    (entry,) = world.entries()
    stored = world.env.backend.get_message(world.modlog.id, entry.id)
    assert (list(stored.ping_role_ids), list(stored.ping_user_ids)) == ([], [])


async def test_what_cannot_be_judged_follows_its_own_rule(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("corrupt", 0.5, Action.DELETE),))
    await world.post(red()[:60])
    assert world.posts(world.general) == []
    (decision,) = await world.decisions()
    assert (decision.verdict, decision.done) == ("corrupt", Action.DELETE)


@pytest.mark.parametrize("lacking", ["manage_messages", "moderate_members"])
async def test_a_missing_permission_leaves_it_to_the_moderators(world: SimulatedServer, lacking: str) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.9, Action.TIMEOUT),))
    world.forbid(**{lacking: True})
    await world.post(red())
    (decision,) = await world.decisions()
    assert lacking.replace("_", " ").title() in decision.detail
    assert decision.done == (Action.FLAG if lacking == "manage_messages" else Action.DELETE)
    assert decision.detail[1:] in fields(world)["Action"]
