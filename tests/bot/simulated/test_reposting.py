"""A repost shows nothing bare, and goes when its picture is deleted."""

from __future__ import annotations

import re

import discord
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import red
from world import SimulatedServer

from bot.actions.reposting import MESSAGE_LENGTH, spoilered_text
from bot.rules.policy import Action, Mode, ModerationRule

SPOILER = (ModerationRule("flagged", 0.9, Action.SPOILER),)
HEAD = "<@1> posted (flagged):"
LINKS = (
    "https://youtu.be/abc",
    "https://www.youtube.com/watch?v=abc",
    "HTTPS://WWW.YouTube.COM/watch?v=abc",
    "http://example.com/a.png",
    "<https://example.com/a.png>",
    "[click](https://example.com/a.png)",
    "[click](<https://example.com/a.png>)",
    "discord.gg/abc",
    "example.com/a.png",
    "<:rude:77>",
    "<a:rude:78>",
)
BARE = re.compile(r"https?:/|discord\.gg|example\.com|youtu|<a?:\w+:\d+>|\]\(", re.IGNORECASE)
PIECES = st.sampled_from([*LINKS, "||", "|", "\\", "`", "```", "\n", " ", "look", "*", "> ", "# ", "@everyone", "é"])


def bare(text: str) -> str:
    """What Discord's clients show of a message uncovered: they take the shortest text between two pairs of bars."""
    return re.sub(r"\|\|(.+?)\|\|", "", text, flags=re.DOTALL)


def test_the_yardstick_sees_bare_links() -> None:
    for link in LINKS:
        assert BARE.search(bare(f"look {link} || x ||"))
        assert not BARE.search(bare(f"look || {link} ||"))


@given(st.lists(PIECES, max_size=12).map("".join))
@example("|| look https://youtu.be/abc")
@example("look || a || b || https://youtu.be/abc")
@example("|||https://youtu.be/abc|||")
@example("https://youtu.be/abc\\")
@example("a" * 1980 + " https://youtu.be/" + "b" * 2000)
def test_no_link_or_emoji_is_bare(content: str) -> None:
    text = spoilered_text(HEAD, content)
    assert not BARE.search(bare(text))
    assert len(text) <= MESSAGE_LENGTH
    assert text.startswith(HEAD)


@given(st.text(max_size=5000), st.sampled_from(LINKS), st.text(max_size=5000))
def test_any_text_around_a_link_leaves_it_covered(before: str, link: str, after: str) -> None:
    text = spoilered_text(HEAD, f"{before} {link} {after}")
    assert not BARE.search(bare(text))
    assert len(text) <= MESSAGE_LENGTH


@pytest.mark.parametrize("words", ["hello", "@everyone look!", "Is this yours? I found it.", "äöü (really)"])
def test_plain_words_stay_readable(words: str) -> None:
    assert spoilered_text(HEAD, words) == f"{HEAD}\n{words}"


@pytest.mark.parametrize("content", LINKS)
async def test_a_link_is_reposted_covered_and_without_its_preview(world: SimulatedServer, content: str) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    await world.post(red(), content=f"look || {content}")
    (again,) = world.posts(world.general)
    assert again.author.id == world.bot.user.id  # type: ignore[union-attr]
    assert not BARE.search(bare(again.content))
    assert again.flags.suppress_embeds
    assert [each.filename for each in again.attachments] == ["SPOILER_picture-0.png"]


async def test_the_embed_of_a_link_is_reposted_covered(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    message = await world.alice.send(world.general, "look https://youtu.be/abc")
    thumbnail = {"url": "https://i.ytimg.com/a.jpg", "proxy_url": world.cdn.add("/external/a.jpg", red())}
    embed = {"type": "video", "url": "https://www.youtube.com/watch?v=abc", "thumbnail": thumbnail}
    world.env.backend.edit_message(world.general.id, message.id, {"embeds": [embed]})
    await world.env.settle()
    (again,) = world.posts(world.general)
    assert again.content.endswith("|| look https://youtu.be/abc ||")
    assert again.flags.suppress_embeds
    assert again.embeds == []


async def test_a_webhooks_embed_cannot_be_hidden_so_it_is_left(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    hook = world.guild.create_webhook(world.general, "bridge")
    data = discord.Embed().set_image(url="https://example.com/x.png").to_dict()
    data["image"]["proxy_url"] = world.cdn.add("/external/x.png", red())  # type: ignore[typeddict-unknown-key]
    await hook.send("https://example.com", embed=discord.Embed.from_dict(data))
    assert len(world.posts(world.general)) == 1
    assert "embeds of bots and webhooks cannot be hidden" in world.entries()[0].embeds[0].fields[2].value  # type: ignore[operator]


@pytest.mark.parametrize("label", ["Delete", "Delete and time out"])
async def test_deleting_a_reposted_picture_deletes_the_repost(world: SimulatedServer, label: str) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    await world.post(red())
    assert len(world.posts(world.general)) == 1
    await world.restart()
    await world.mod.click(world.entries()[0], label=label)
    assert world.posts(world.general) == []


async def test_approving_a_reposted_picture_leaves_the_repost(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    await world.post(red())
    await world.mod.click(world.entries()[0], label="Approve this message")
    assert len(world.posts(world.general)) == 1


async def test_a_repost_whose_original_cannot_be_deleted_is_taken_back(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=SPOILER)
    world.env.inject_error("DELETE", "/channels/*/messages/*", status=403, code=50013, message="Missing Permissions")
    message = await world.post(red())
    assert [each.id for each in world.posts(world.general)] == [message.id]
    (decision,) = await world.decisions()
    assert decision.done == Action.FLAG
