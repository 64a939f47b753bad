"""Authors are told what was done and by which rule, and may appeal once; moderators uphold or reverse it."""

from __future__ import annotations

from typing import Any

import discord
import pytest
from simcord import interactions
from simcord.backend import serializers
from simcord.builders import UserHandle
from simcord.results import InteractionResult
from sqlalchemy import update
from tiny import red
from world import SimulatedServer

from bot.actions.appeals import plain_text
from bot.actions.notices import ALREADY, NO_RECORD, TOO_OFTEN
from bot.commands.appealing import SENT_TEXT
from bot.rules.policy import Action, GuildPolicy, Mode, ModerationRule
from bot.storage.tables import APPEALED, REVERSED, SENT, TOLD, UPHELD, Appeal, appeals

TIMEOUT = (ModerationRule("flagged", 0.6, Action.TIMEOUT),)
DELETE = (ModerationRule("flagged", 0.6, Action.DELETE),)


@pytest.fixture
def alice(world: SimulatedServer) -> UserHandle:
    """The author, in their direct messages."""
    return UserHandle(world.env, world.env.backend.users[world.alice.id])


def notices(world: SimulatedServer, user: UserHandle) -> list[discord.Message]:
    return world.posts(user.dm_channel)


async def acted_on(
    world: SimulatedServer, rules: tuple[ModerationRule, ...] = TIMEOUT, seed: int = 0
) -> discord.Message:
    await world.policy(Mode.ENFORCE, rules=rules, tell_author=True)
    return await world.post(red(seed))


async def appeal(
    world: SimulatedServer, user: UserHandle, text: str = "It is a tomato.", place: int = -1
) -> InteractionResult:
    shown = await user.click(notices(world, user)[place], label="Appeal")
    return await user.submit_modal(shown, {"text": text})


def said(result: InteractionResult) -> str:
    """The last thing that a click was answered; empty if nothing."""
    return ([each.content for each in (result.response, *result.followups) if each is not None] or [""])[-1]


async def kept(world: SimulatedServer, message: discord.Message) -> Appeal | None:
    return await world.bot.services.appeals.find(message.id)


def timed_out(world: SimulatedServer) -> bool:
    return world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until is not None


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Action.SPOILER, "so it was reposted behind a spoiler."),
        (Action.DELETE, "so it was deleted."),
        (Action.TIMEOUT, "so it was deleted and you were timed out for a while."),
    ],
)
async def test_an_author_is_told_which_rule_and_which_server(
    world: SimulatedServer, alice: UserHandle, action: Action, words: str
) -> None:
    world.env.backend.edit_guild(world.guild.id, {"name": "The *Red* Room"})
    await acted_on(world, (ModerationRule("flagged", 0.617, action),))
    (notice,) = notices(world, alice)
    assert notice.content.startswith("Your message in **The \\*Red\\* Room** (<#")
    assert "matches this server's rule **flagged**, " + words in notice.content
    # Who knew these could find out what just passes.
    for secret in ("0.98", "0.6", ".617", "score", "threshold", "%"):
        assert secret not in notice.content


async def test_nobody_is_told_by_default_or_of_a_flag(world: SimulatedServer, alice: UserHandle) -> None:
    assert GuildPolicy.from_json('{"mode": "enforce"}').tell_author is False
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await world.post(red())
    await world.policy(Mode.REVIEW, rules=DELETE, tell_author=True)
    await world.post(red(2))
    assert notices(world, alice) == []


async def test_an_author_is_told_of_a_moderators_deletion(world: SimulatedServer, alice: UserHandle) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE, tell_author=True)
    await world.post(red())
    await world.mod.click(world.entries()[0], label="Delete")
    (notice,) = notices(world, alice)
    assert "matches this server's rule **flagged**, so it was deleted." in notice.content


async def test_an_author_is_told_once_a_message(world: SimulatedServer, alice: UserHandle) -> None:
    await acted_on(world, DELETE)
    await world.mod.click(world.entries()[0], label="Delete and time out")
    assert len(notices(world, alice)) == 1


async def test_an_author_without_direct_messages_is_not_told(world: SimulatedServer, alice: UserHandle) -> None:
    world.env.inject_error(
        "POST", f"/channels/{alice.dm_channel.id}/messages", status=403, code=50007, message="Closed"
    )
    message = await acted_on(world)
    assert world.posts(world.general) == []
    assert len(world.entries()) == 1
    assert await kept(world, message) is None, "nothing is kept of who was not told"


async def test_webhooks_and_bots_are_not_told(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE, tell_author=True, skip_bots=False)
    await world.guild.create_webhook(world.general).send("", attachments=[("x.png", red())])
    assert world.posts(world.general) == []
    assert not [each for each in world.env.http_requests if each.path == "/users/@me/channels"]


async def test_a_flood_is_not_answered_one_by_one(world: SimulatedServer, alice: UserHandle) -> None:
    for seed in range(7):
        await acted_on(world, DELETE, seed)
    assert len(notices(world, alice)) == 5
    world.now += 86401
    await acted_on(world, DELETE, 8)
    assert len(notices(world, alice)) == 6


async def test_an_appeal_comes_to_the_modlog_under_the_entry(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    assert said(await appeal(world, alice)) == SENT_TEXT
    entry, post = world.entries()
    assert post.reference is not None
    assert post.reference.message_id == entry.id
    embed = post.embeds[0]
    assert embed.description == "```\nIt is a tomato.\n```"
    fields = {field.name: field.value for field in embed.fields}
    assert fields["Author"] == f"{world.alice.mention} ({world.alice.id})"
    assert fields["About"] == message.jump_url
    assert fields["Rule"] == "flagged: deleted, author timed out"
    found = await kept(world, message)
    assert found is not None
    assert (found.state, found.text) == (APPEALED, None), "the text is not stored any longer"
    assert notices(world, alice)[0].components == [], "there is nothing more to click"


async def test_an_appeal_needs_no_reason(world: SimulatedServer, alice: UserHandle) -> None:
    await acted_on(world)
    await appeal(world, alice, "")
    assert world.entries()[1].embeds[0].description == "No reason given."


async def test_reverse_lifts_the_time_out_and_allows_the_picture(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    await appeal(world, alice)
    assert timed_out(world)
    await world.mod.click(world.entries()[1], label="Reverse")
    assert not timed_out(world)
    post = world.entries()[1]
    assert post.components == []
    assert f"Reversed by {world.mod.mention}. Time-out lifted." in str(post.embeds[0].fields)
    assert notices(world, alice)[1].content == (
        "Your appeal in **Test Guild**: Moderators looked at it again and reversed the decision. You may post the "
        "picture again."
    )
    (decision,) = await world.decisions()
    assert (decision.state, decision.moderator_id) == ("wrong", world.mod.id)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    assert (await kept(world, message)).state == REVERSED  # type: ignore[union-attr]
    reasons = [each.reason for each in world.guild.audit_log() if each.reason]
    assert "mod reversed it after an appeal" in reasons


async def test_uphold_tells_the_author_and_agrees_with_the_decision(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    await appeal(world, alice)
    await world.mod.click(world.entries()[1], label="Uphold")
    assert timed_out(world)
    assert "the decision stands" in notices(world, alice)[1].content
    (decision,) = await world.decisions()
    assert (decision.state, decision.moderator_id) == ("timed_out", world.mod.id)
    assert (await kept(world, message)).state == UPHELD  # type: ignore[union-attr]


async def test_reverse_overrules_a_moderators_decision(world: SimulatedServer, alice: UserHandle) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE, tell_author=True)
    await world.post(red())
    await world.mod.click(world.entries()[0], label="Delete")
    await appeal(world, alice)
    await world.other_mod.click(world.entries()[1], label="Reverse")
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await world.post(red())
    assert len(world.posts(world.general)) == 1


async def test_everything_works_after_restarts(world: SimulatedServer, alice: UserHandle) -> None:
    await acted_on(world)
    await world.restart()
    shown = await alice.click(notices(world, alice)[0], label="Appeal")
    await world.restart()
    assert said(await alice.submit_modal(shown, {"text": "please"})) == SENT_TEXT
    await world.restart()
    await world.mod.click(world.entries()[1], label="Reverse")
    assert not timed_out(world)


async def test_an_appeal_waits_for_a_modlog_that_cannot_be_used(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    world.env.inject_error("POST", f"/channels/{world.modlog.id}/messages", status=503, times=3)
    assert said(await appeal(world, alice)) == SENT_TEXT
    assert (await kept(world, message)).text == "It is a tomato."  # type: ignore[union-attr]
    await world.restart()
    world.now += 60
    await world.bot.appeals.run()
    await world.bot.appeals.run()
    assert len(world.entries()) == 2
    assert (await kept(world, message)).state == APPEALED  # type: ignore[union-attr]


async def test_an_appeal_that_was_posted_before_a_crash_is_not_posted_again(
    world: SimulatedServer, alice: UserHandle
) -> None:
    message = await acted_on(world)
    await appeal(world, alice)
    await world.bot.services.store.execute(update(appeals).values(state=SENT))
    await world.bot.appeals.run()
    assert len(world.entries()) == 2
    assert (await kept(world, message)).state == APPEALED  # type: ignore[union-attr]


# Hostile authors


async def test_a_decision_can_be_appealed_once(world: SimulatedServer, alice: UserHandle) -> None:
    await acted_on(world)
    (notice,) = notices(world, alice)
    custom_id = notice.components[0].children[0].custom_id  # type: ignore[union-attr]
    first, second = [await alice.click(notice, label="Appeal") for _ in range(2)]
    assert said(await alice.submit_modal(first, {"text": "one"})) == SENT_TEXT
    assert said(await alice.submit_modal(second, {"text": "two"})) == ALREADY
    assert (await replay(world, alice.id, alice.dm_channel.id, notice, custom_id)) == ALREADY
    assert len(world.entries()) == 2


async def replay(world: SimulatedServer, user: int, channel: int, shown: discord.Message, custom_id: str) -> str:
    """What a click is answered that no client would make: by somebody else, or on a button that is gone."""
    backend = world.env.backend
    record, payload = interactions.base_payload(
        backend,
        type=discord.InteractionType.component.value,
        channel_id=channel,
        guild_id=backend.get_channel(channel).guild_id,
        user_id=user,
        data={"custom_id": custom_id, "component_type": discord.ComponentType.button.value},
    )
    stored = backend.get_message(shown.channel.id, shown.id)
    payload["message"] = dict(serializers.message_payload(backend, stored))
    button = {"type": 2, "style": 2, "label": "as it was", "custom_id": custom_id}
    payload["message"]["components"] = [{"type": 1, "components": [button]}]
    backend.emit("INTERACTION_CREATE", payload)
    await world.env.settle()
    return said(InteractionResult(world.env, record))


async def test_somebody_else_cannot_appeal(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    (notice,) = notices(world, alice)
    custom_id = notice.components[0].children[0].custom_id  # type: ignore[union-attr]
    other = UserHandle(world.env, world.env.backend.users[world.mod.id]).dm_channel
    assert await replay(world, world.mod.id, other.id, notice, custom_id) == NO_RECORD
    assert (await replay(world, alice.id, alice.dm_channel.id, notice, f"appeal:ask:{2**64 - 1}")) == NO_RECORD
    assert (await kept(world, message)).state == TOLD  # type: ignore[union-attr]


async def test_an_author_appeals_a_few_times_a_day(world: SimulatedServer, alice: UserHandle) -> None:
    for seed in range(4):
        await acted_on(world, DELETE, seed)
        result = await alice.click(notices(world, alice)[-1], label="Appeal")
        if seed < 3:
            await alice.submit_modal(result, {"text": "x"})
    assert said(result) == TOO_OFTEN
    world.now += 86401
    assert said(await appeal(world, alice)) == SENT_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "@everyone <@&1> <@2>",
        "```\n**bold** [click](https://evil.example) ||hidden||\n```",
        "# heading\n> quote\nhttps://evil.example",
        "right\u202eleft\u200b\u0007",
        "`" * 400,
    ],
)
async def test_what_an_author_writes_stays_plain(world: SimulatedServer, alice: UserHandle, text: str) -> None:
    await acted_on(world)
    await appeal(world, alice, text)
    post = world.entries()[1]
    description = post.embeds[0].description or ""
    assert description.startswith("```\n")
    assert description.endswith("\n```")
    inside = description[4:-4]
    assert "`" not in inside
    assert all(character.isprintable() or character == "\n" for character in inside)
    stored = world.env.backend.get_message(post.channel.id, post.id)
    assert (list(stored.ping_user_ids), list(stored.ping_role_ids), post.mention_everyone) == ([], [], False)


def test_a_long_text_is_cut() -> None:
    assert len(plain_text("x" * 10_000)) == 500 + len("```\n\n```")


async def test_an_author_who_left_is_told_and_nothing_breaks(world: SimulatedServer, alice: UserHandle) -> None:
    await acted_on(world)
    await appeal(world, alice)
    world.guild.remove_member(world.alice)
    await world.mod.click(world.entries()[1], label="Reverse")
    assert "The time-out could not be lifted: the author has left the server." in str(
        world.entries()[1].embeds[0].fields
    )
    (decision,) = await world.decisions()
    assert decision.state == "wrong"


async def test_an_author_who_closed_direct_messages_is_not_told_the_result(
    world: SimulatedServer, alice: UserHandle
) -> None:
    await acted_on(world)
    await appeal(world, alice)
    world.env.inject_error(
        "POST", f"/channels/{alice.dm_channel.id}/messages", status=403, code=50007, message="Closed"
    )
    await world.mod.click(world.entries()[1], label="Uphold")
    assert "Upheld by" in str(world.entries()[1].embeds[0].fields)
    assert "The author could not be told." in str(world.entries()[1].embeds[0].fields)


# Moderators


async def test_the_second_of_two_moderators_changes_nothing(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    await appeal(world, alice)
    post = world.entries()[1]
    world.press(world.mod, post, "uphold")
    world.press(world.other_mod, post, "reverse")
    await world.env.settle()
    found = await kept(world, message)
    assert found is not None
    assert len(notices(world, alice)) == 2
    assert timed_out(world) == (found.state == UPHELD)


async def test_an_appeal_of_another_server_is_refused(world: SimulatedServer, alice: UserHandle) -> None:
    message = await acted_on(world)
    await appeal(world, alice)
    other = world.env.create_guild("Elsewhere")
    role = other.create_role("Mods", permissions=discord.Permissions(administrator=True))
    spy = other.add_member(world.env.create_user("spy"), roles=[role])
    channel = other.create_text_channel("x")
    await world.env.settle()
    result = await replay(world, spy.id, channel.id, world.entries()[1], f"appeal:reverse:{message.id}")
    assert "there is no record of this appeal any more" in result
    assert (await kept(world, message)).state == APPEALED  # type: ignore[union-attr]


# Privacy


async def test_privacy_delete_and_retention_cover_appeals(world: SimulatedServer, alice: UserHandle) -> None:
    first = await acted_on(world, DELETE)
    await appeal(world, alice)
    assert "what you write is stored until" in said(await world.alice.slash(world.general, "privacy show"))
    await world.alice.slash(world.general, "privacy delete")
    assert await kept(world, first) is None
    result = await world.mod.click(world.entries()[1], label="Reverse")
    assert "there is no record of this appeal any more" in said(result)
    second = await acted_on(world, DELETE, 3)
    world.now += 91 * 86400
    await world.bot.sweep()
    assert await kept(world, second) is None


async def test_a_server_that_the_bot_left_leaves_no_appeals(world: SimulatedServer) -> None:
    message = await acted_on(world, DELETE)
    world.env.backend.remove_guild(world.guild.id)
    await world.env.settle()
    assert await kept(world, message) is None


async def test_a_moderators_deletion_is_named_in_the_audit_log(
    world: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await world.post(red())
    delete, reasons = world.bot.http.delete_message, []

    def recorded(*ids: int, reason: str | None = None) -> Any:
        reasons.append(reason)  # the simulation keeps none of single deletions
        return delete(*ids, reason=reason)

    monkeypatch.setattr(world.bot.http, "delete_message", recorded)
    await world.mod.click(world.entries()[0], label="Delete")
    assert reasons == ["by mod"]
    assert world.posts(world.general) == []
