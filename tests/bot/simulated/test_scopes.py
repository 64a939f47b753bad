"""Rules for a channel, a role or newcomers, and what a rule would have matched."""

from __future__ import annotations

from typing import Any

import discord
import pytest
from simcord.results import InteractionResult
from tiny import blue, red
from world import SimulatedServer

from bot.rules.policy import NEVER, Action, GuildPolicy, Mode, ModerationRule, ScopedRule
from bot.rules.scopes import Scope

FLAG = (ModerationRule("flagged", 0.6, Action.FLAG),)
DELETE = (ModerationRule("flagged", 0.6, Action.DELETE),)


def said(result: InteractionResult) -> str:
    """All that a command answered, with its embeds."""
    messages = [each for each in (result.response, *result.followups) if each is not None]
    texts = [text for each in messages for text in (each.content, *(embed.description for embed in each.embeds))]
    return "\n".join(filter(None, texts))


async def rule_add(world: SimulatedServer, **options: Any) -> str:
    options = {"label": "flagged", "action": "delete", "score": 0.9, **options}
    given = {name: value for name, value in options.items() if value is not None}
    result = await world.manager.slash(world.general, "rule add", **given)
    if "Set the rule" in str(result.response.components if result.response else ""):
        result = await world.manager.click(result.response, label="Set the rule")
    return said(result)


async def policy_of(world: SimulatedServer) -> GuildPolicy:
    return await world.bot.services.store.policy(world.guild.id)


async def post_in(world: SimulatedServer, channel: int, picture: bytes) -> None:
    backend = world.env.backend
    files = backend.store_attachments(channel, [("x.png", picture)])
    backend.create_message(channel, world.alice.id, "", attachments=files)
    await world.env.settle()


async def done(world: SimulatedServer) -> list[int]:
    """What was done about each picture, oldest first."""
    return [each.done for each in sorted(await world.decisions(), key=lambda each: each.message_id)]


async def test_a_rule_for_a_channel_holds_in_its_threads_alone(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    strict = world.guild.create_text_channel("strict")
    text = await rule_add(world, channel=strict)
    assert f"flagged from 0.900: delete in {strict.mention}" in text
    thread = world.env.backend.create_thread(strict.id, "thread", world.alice.id)
    await world.env.settle()
    for seed, channel in enumerate((strict.id, thread.id, world.general.id)):
        await post_in(world, channel, red(seed))
    assert await done(world) == [Action.DELETE, Action.DELETE, Action.FLAG]


async def test_a_forum_post_counts_as_its_forum(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    forum = world.guild.create_forum_channel("forum")
    await rule_add(world, channel=forum)
    post = world.env.backend.create_thread(forum.id, "post", world.alice.id)
    await world.env.settle()
    await post_in(world, post.id, red())
    assert await done(world) == [Action.DELETE]


async def test_a_thread_that_the_bot_does_not_know_counts_as_its_channel(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    await rule_add(world, channel=world.general)
    thread = world.env.backend.create_thread(world.general.id, "archived", world.alice.id, broadcast=False)
    assert world.bot.get_channel(thread.id) is None
    for seed in range(2):
        await post_in(world, thread.id, red(seed))
    assert await done(world) == [Action.DELETE] * 2
    asked = [each.path for each in world.env.http_requests if each.path == f"/channels/{thread.id}"]
    assert len(asked) == 1, "it is remembered"


async def test_a_thread_that_cannot_be_asked_for_follows_the_rules_of_the_server(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    await rule_add(world, channel=world.general)
    thread = world.env.backend.create_thread(world.general.id, "hidden", world.alice.id, broadcast=False)
    world.env.inject_error("GET", f"/channels/{thread.id}", status=403, code=50001, message="Missing Access")
    await post_in(world, thread.id, red())
    assert await done(world) == [Action.FLAG]


async def test_a_category_is_less_specific_than_its_channel(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    category = world.guild.create_category("art")
    inside, mild = (world.guild.create_text_channel(name, category=category) for name in ("sketches", "studies"))
    await rule_add(world, channel=category)
    text = await rule_add(world, channel=mild, score=None)
    assert f"flagged: never delete in {mild.mention}" in text
    for seed, channel in enumerate((inside, mild)):
        await post_in(world, channel.id, red(seed))
    assert await done(world) == [Action.DELETE, Action.FLAG]


async def test_newcomers_and_roles(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    trusted = world.guild.create_role("Trusted")
    carol = world.guild.add_member(world.env.create_user("carol"), roles=[trusted])
    dave = world.guild.add_member(world.env.create_user("dave"))
    world.env.backend.guilds[world.guild.id].members[dave.id].joined_at = "2020-01-01T00:00:00+00:00"
    text = await rule_add(world, newcomer_days=7)
    assert "delete for members who joined less than 7 days ago" in text
    await rule_add(world, role=trusted, score=1.0)
    for seed, member in enumerate((world.alice, carol, dave)):
        await world.post(red(seed), by=member)
    assert await done(world) == [Action.DELETE, Action.FLAG, Action.FLAG]


async def test_a_webhook_is_no_newcomer_and_has_no_roles(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    await rule_add(world, newcomer_days=7)
    webhook = world.guild.create_webhook(world.general)
    await webhook.send("", attachments=[("x.png", red())])
    assert await done(world) == [Action.FLAG]
    assert not [each for each in world.env.http_requests if "/members/" in each.path]


@pytest.mark.parametrize("left", [False, True])
async def test_the_author_of_an_old_message_is_asked_for_once(world: SimulatedServer, left: bool) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG, exempt_channels=frozenset({world.general.id}))
    for seed in range(3):
        await world.post(red(seed))
    await world.policy(Mode.ENFORCE, rules=FLAG)
    await rule_add(world, newcomer_days=7)
    if left:
        world.guild.remove_member(world.alice)
    await world.mod.slash(world.general, "scan", channel=world.general, act=True)
    assert await done(world) == [Action.FLAG if left else Action.DELETE] * 3
    asked = [each for each in world.env.http_requests if each.path.endswith(f"/members/{world.alice.id}")]
    assert len(asked) == 1


@pytest.mark.parametrize("left", [False, True])
async def test_the_author_of_an_old_message_is_timed_out(world: SimulatedServer, left: bool) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    await world.post(red())
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.TIMEOUT),))
    if left:
        world.guild.remove_member(world.alice)
    await world.mod.slash(world.general, "scan", channel=world.general, act=True)
    assert await done(world) == [Action.DELETE if left else Action.TIMEOUT]


async def test_an_exempt_role_counts_for_old_messages_too(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    role = world.guild.create_role("Artists")
    artist = world.guild.add_member(world.env.create_user("artist"), roles=[role])
    await world.post(red(), by=artist)
    await world.policy(Mode.ENFORCE, rules=DELETE, exempt_roles=frozenset({role.id}))
    text = said(await world.mod.slash(world.general, "scan", channel=world.general, act=True))
    assert "no new pictures" in text
    assert await world.decisions() == []


async def test_an_author_who_cannot_be_asked_for_is_not_acted_on(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, exempt_channels=frozenset({world.general.id}))
    await world.post(red())
    await world.policy(Mode.ENFORCE, rules=DELETE)
    world.env.inject_error("GET", f"/guilds/*/members/{world.alice.id}", status=503, times=None)
    text = said(await world.mod.slash(world.general, "scan", channel=world.general, act=True))
    assert "The command failed." in text
    assert await world.decisions() == []


async def test_moderators_are_exempt_until_that_is_switched_off(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    await world.post(red(), by=world.mod)
    assert await world.decisions() == []
    text = said(await world.manager.slash(world.general, "policy set", exempt_moderators=False))
    assert "**Moderators' pictures** checked" in text
    await world.post(red(2), by=world.mod)
    assert await done(world) == [Action.DELETE]


async def test_a_moderator_of_one_channel_is_not_exempt_in_others(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=DELETE)
    own = world.guild.create_text_channel(
        "own", overwrites={world.alice: discord.PermissionOverwrite(manage_messages=True)}
    )
    await world.env.settle()
    await post_in(world, own.id, red())
    assert await world.decisions() == []
    await world.post(red(2))
    assert await done(world) == [Action.DELETE]


async def test_check_this_picture_names_the_rule_of_that_channel(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, rules=FLAG)
    message = await world.post(red())
    await rule_add(world, channel=world.general)
    assert "rule: delete" in said(await world.mod.context_menu(world.general, "Check this picture", message))


# The commands


async def test_rules_are_listed_and_removed(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, rules=FLAG)
    await rule_add(world, channel=world.general)
    await rule_add(world, role=world.mods, action="flag", score=0.3, ping=True)
    text = said(await world.manager.slash(world.general, "rule list"))
    assert text.startswith("- flagged from 0.600: flag\n**For parts of the server**")
    assert f"- flagged from 0.300: flag, with a ping for {world.mods.mention}" in text
    assert "the most specific rule decides" in text
    offered = await world.manager.autocomplete(world.general, "rule remove", "rule", "general")
    assert [each["name"] for each in offered] == ["flagged from 0.900: delete · #general"]
    text = said(await world.manager.slash(world.general, "rule remove", rule=offered[0]["value"]))
    assert text.startswith(f"Removed: flagged from 0.900: delete in {world.general.mention}.")
    assert len((await policy_of(world)).scoped_rules) == 1
    text = said(await world.manager.slash(world.general, "rule remove", rule=offered[0]["value"]))
    assert text == "Nothing changed: there is no such rule. Choose one of the list."
    whole = await world.manager.autocomplete(world.general, "rule remove", "rule", "0.600")
    await world.manager.slash(world.general, "rule remove", rule=whole[0]["value"])
    assert (await policy_of(world)).rules == ()


async def test_a_rule_without_a_scope_is_that_of_threshold(world: SimulatedServer) -> None:
    await rule_add(world)
    assert ModerationRule("flagged", 0.9, Action.DELETE) in ((await policy_of(world)).rules or ())
    text = said(await world.manager.slash(world.general, "rule add", label="flagged", action="delete"))
    assert text.startswith("Nothing changed: name a score")
    text = said(await world.manager.slash(world.general, "rule add", label="no", action="delete", score=1.0))
    assert text.startswith("Nothing changed: there is no label `no`.")


async def test_a_server_has_a_bounded_number_of_scoped_rules(world: SimulatedServer) -> None:
    rules = tuple(ScopedRule("flagged", 0.5, Action.FLAG, scope=Scope(role=number)) for number in range(1, 26))
    await world.policy(Mode.SHADOW, scoped_rules=rules)
    assert "a server can have 25 rules with a scope" in await rule_add(world, channel=world.general)
    assert await policy_of(world) == GuildPolicy(
        Mode.SHADOW, modlog=world.modlog.id, moderators=world.mods.id, scoped_rules=rules
    )


async def test_scoped_rules_outlive_a_restart(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=FLAG)
    await rule_add(world, channel=world.general)
    await world.restart()
    await world.post(red())
    assert await done(world) == [Action.DELETE]


async def test_reset_removes_scoped_rules_too(world: SimulatedServer) -> None:
    await world.policy(Mode.SHADOW, rules=FLAG)
    await rule_add(world, channel=world.general, score=None)
    assert (await policy_of(world)).scoped_rules[0].threshold == NEVER
    await world.manager.slash(world.general, "policy reset")
    assert (await policy_of(world)).scoped_rules == ()


# Previews


async def reviewed(world: SimulatedServer) -> None:
    """Three pictures over .9, of which moderators removed two and kept one, and a harmless one."""
    await world.policy(Mode.REVIEW, rules=FLAG)
    for seed, choice in enumerate(("Delete", "Delete", "Wrong verdict: allow picture")):
        await world.post(red(seed))
        await world.mod.click(world.entries()[-1], label=choice)
    await world.post(blue(9))


async def test_a_rule_says_what_it_would_have_matched(world: SimulatedServer) -> None:
    await reviewed(world)
    expected = (
        "Preview: in the last 30 days, this rule would have matched 3 of 4 pictures. Moderators reviewed 3 of these: "
        "they removed 2 and kept 1."
    )
    assert expected in await rule_add(world)
    assert expected in said(
        await world.manager.slash(world.general, "threshold", label="flagged", action="flag", score=0.9)
    )
    assert "matched 0 of 4 pictures." in await rule_add(world, score=0.99)
    assert "matched 0 of 4 pictures." in await rule_add(world, label="corrupt", score=0.5)


async def test_a_preview_counts_the_scope_and_the_last_30_days(world: SimulatedServer) -> None:
    await reviewed(world)
    other = world.guild.create_text_channel("other")
    assert "Preview: no pictures were checked on `flagged`" in await rule_add(world, channel=other)
    assert "matched 3 of 4 pictures" in await rule_add(world, channel=world.general)
    assert "counts everyone's pictures" in await rule_add(world, role=world.mods)
    world.now += 31 * 86400
    assert "Preview: no pictures were checked on `flagged` in the last 30 days." in await rule_add(world)


async def test_in_enforce_mode_a_rule_that_acts_shows_its_preview_first(world: SimulatedServer) -> None:
    await reviewed(world)
    await world.policy(Mode.ENFORCE, rules=FLAG)
    result = await world.manager.slash(world.general, "threshold", label="flagged", action="delete", score=0.9)
    assert "The bot would act on messages at once: flagged from 0.900: delete." in said(result)
    assert "matched 3 of 4 pictures" in said(result)
    assert (await policy_of(world)).rules == FLAG
    assert result.response is not None
    await world.manager.click(result.response, label="Set the rule")
    assert ModerationRule("flagged", 0.9, Action.DELETE) in ((await policy_of(world)).rules or ())
