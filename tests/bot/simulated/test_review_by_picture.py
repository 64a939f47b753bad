"""A message with several pictures: a click decides those that it names."""

from __future__ import annotations

import discord
import pytest
from tiny import blue, red
from world import SimulatedServer

from bot.actions.picking import MAX_LISTED, REST, list_pictures, name_pictures, named_pictures
from bot.actions.review import ReviewButton, review_view
from bot.rules.policy import Action, Mode, ModerationRule

RULES = (ModerationRule("flagged", 0.6, Action.FLAG), ModerationRule("too_many", 0.5, Action.FLAG))


@pytest.fixture
async def entry(world: SimulatedServer) -> discord.Message:
    """The mod-log entry of a message with three pictures in review, beside a harmless one."""
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red(1), blue(), red(2), red(3))
    return world.entries()[0]


def options(entry: discord.Message) -> list[discord.SelectOption]:
    (menu,) = [item for row in entry.components for item in row.children if isinstance(item, discord.SelectMenu)]  # type: ignore[union-attr]
    return menu.options


def labels(entry: discord.Message) -> list[str | None]:
    return [item.label for row in entry.components for item in row.children if isinstance(item, discord.Button)]  # type: ignore[union-attr]


async def states(world: SimulatedServer) -> dict[str, str]:
    """State of each flagged picture, by its key."""
    return {row.picture: row.state for row in await world.decisions() if row.verdict != "clean"}


async def test_a_single_picture_has_no_menu(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red(), blue())
    (only,) = world.entries()
    assert labels(only) == ["Approve this message", "Delete", "Delete and time out", "Wrong verdict: allow picture"]
    with pytest.raises(ValueError, match="not enough values"):
        options(only)


async def test_an_entry_lists_its_pictures(world: SimulatedServer, entry: discord.Message) -> None:
    assert [option.label for option in options(entry)] == [f"{n}. attachment, flagged 0.98" for n in (1, 2, 3)]
    assert labels(entry)[1] == "Delete all"
    assert (entry.embeds[0].description or "").startswith("1. attachment: **flagged**")


async def test_a_click_decides_the_chosen_pictures_alone(world: SimulatedServer, entry: discord.Message) -> None:
    first, second, third = (option.value for option in options(entry))
    await world.mod.select(entry, [first, third])
    (entry,) = world.entries()
    assert labels(entry)[0] == "Approve this message 1, 3"
    await world.mod.click(entry, label="Approve this message 1, 3")
    assert await states(world) == {first: "approved", second: "open", third: "approved"}
    (entry,) = world.entries()
    assert labels(entry)[1] == "Delete", "one picture is left"
    assert f"1, 3: Approved by {world.mod.mention}." in str(entry.embeds[0].fields)
    await world.mod.click(entry, label="Delete")
    assert await states(world) == {first: "approved", second: "deleted", third: "approved"}
    (entry,) = world.entries()
    assert {str(label)[:4] for label in labels(entry)} == {"Undo"}
    assert world.posts(world.general) == []


async def test_only_the_named_pictures_are_refused_from_then_on(world: SimulatedServer, entry: discord.Message) -> None:
    await world.mod.select(entry, [options(entry)[0].value])
    await world.mod.click(world.entries()[0], label="Delete 1")
    await world.post(red(2))
    newest = max(await world.decisions(), key=lambda row: row.message_id)
    assert (newest.origin, newest.verdict) == ("cache", "flagged"), "the moderator said nothing of this one"
    await world.post(red(1))
    newest = max(await world.decisions(), key=lambda row: row.message_id)
    assert newest.verdict == "refused"


async def test_all_at_once(world: SimulatedServer, entry: discord.Message) -> None:
    await world.mod.click(entry, label="Wrong verdict: allow picture all")
    assert set((await states(world)).values()) == {"wrong"}
    assert {str(label)[:4] for label in labels(world.entries()[0])} == {"Undo"}


async def test_a_choice_outlives_a_restart(world: SimulatedServer, entry: discord.Message) -> None:
    chosen = options(entry)[1].value
    await world.mod.select(entry, [chosen])
    await world.restart()
    await world.mod.click(world.entries()[0], label="Approve this message 2")
    assert [key for key, state in (await states(world)).items() if state == "approved"] == [chosen]


async def test_a_click_on_an_entry_that_has_changed_decides_nothing(
    world: SimulatedServer, entry: discord.Message
) -> None:
    keys = [option.value for option in options(entry)]
    await world.mod.select(entry, keys[:2])
    custom_id = next(
        item.custom_id
        for row in world.entries()[0].components
        for item in row.children  # type: ignore[union-attr]
        if isinstance(item, discord.Button) and item.label == "Delete 1, 2"
    )
    await world.other_mod.select(world.entries()[0], keys[:1])
    await world.other_mod.click(world.entries()[0], label="Approve this message 1")
    # The first moderator's client still shows the old buttons, whose places mean other pictures now.
    button = ReviewButton.__discord_ui_compiled_template__.fullmatch(custom_id or "")
    assert button is not None
    now = [option.value for option in options(world.entries()[0])]
    assert now == keys[1:]
    assert named_pictures(button["names"], list_pictures((key, "") for key in now)) is None


async def test_members_cannot_choose(world: SimulatedServer, entry: discord.Message) -> None:
    result = await world.alice.select(entry, [options(entry)[0].value])
    assert result.response is not None
    assert "you need the Manage Messages permission" in (result.response.content or "")
    assert labels(world.entries()[0])[0] == "Approve this message all"


async def test_an_entry_of_a_late_embed_decides_its_own_picture(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    message = await world.post(red(1), content="https://example.com/a.png")
    proxy = world.cdn.add("/external/a.png", red(2))
    embed = {"type": "image", "thumbnail": {"url": "https://example.com/a.png", "proxy_url": proxy}}
    world.env.backend.edit_message(world.general.id, message.id, {"embeds": [embed]})
    await world.env.settle()
    early, late = world.entries()
    await world.mod.click(late, label="Wrong verdict: allow picture")
    found = {row.picture.partition(":")[0]: row.state for row in await world.decisions()}
    assert found == {"attachment": "open", "embed": "wrong"}
    await world.mod.click(early, label="Approve this message")
    assert "open" not in [row.state for row in await world.decisions()]


async def test_more_pictures_than_a_menu_holds(world: SimulatedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.actions.moderation.MAX_PICTURES", 1)
    await world.policy(Mode.REVIEW, rules=RULES)
    world.cdn.add("/0.png", red())
    embeds = [{"image": picture(world, n), "thumbnail": picture(world, n + 10), "author": icon(n)} for n in range(10)]
    world.env.backend.create_message(world.general.id, world.alice.id, "", embeds=embeds)
    await world.env.settle()
    assert len(await states(world)) == 30
    (entry,) = world.entries()
    keys = [option.value for option in options(entry)]
    assert (len(keys), keys[-1]) == (MAX_LISTED, REST)
    await world.mod.select(entry, keys[:-1])
    await world.mod.click(world.entries()[0], label="Approve this message 24 pictures")
    assert {key for key, state in (await states(world)).items() if state == "approved"} == set(keys[:-1])
    (entry,) = world.entries()
    assert [option.value for option in options(entry)] == [REST]
    await world.mod.click(entry, label="Wrong verdict: allow picture all")
    assert "open" not in (await states(world)).values()
    assert world.entries()[0].components == []


def picture(world: SimulatedServer, number: int) -> dict[str, str]:
    """A picture on another host."""
    return {"url": f"https://example.com/{number}.png", "proxy_url": f"{world.cdn.base}/{number}.png"}


def icon(number: int) -> dict[str, str]:
    return {"name": "a", "icon_url": f"https://example.com/icon-{number}.png"}


def test_the_rest_is_named_by_the_last_option() -> None:
    pictures = list_pictures((f"embed:{n:032x}", "x") for n in range(MAX_LISTED + 5))
    assert len(pictures) == MAX_LISTED
    assert pictures[-1].key == REST
    assert named_pictures(name_pictures(pictures, {REST}), pictures) == {REST}


@pytest.mark.parametrize("count", [1, 2, 7, MAX_LISTED])
def test_custom_ids_fit(count: int) -> None:
    largest = 2**63 - 1
    pictures = list_pictures((f"embed:{n:032x}", "x") for n in range(count))
    view = review_view(largest, largest, pictures)
    assert all(len(item.custom_id) <= 100 for item in view.children)  # type: ignore[attr-defined]
    assert all(len(item.label or "") <= 80 for item in view.children if isinstance(item, discord.ui.Button))
    assert named_pictures(name_pictures(pictures, {pictures[-1].key}), pictures) == {pictures[-1].key}


async def test_buttons_of_earlier_versions_still_decide_all(world: SimulatedServer, entry: discord.Message) -> None:
    stored = world.env.backend.get_message(world.modlog.id, entry.id)
    message_id = world.posts(world.general)[0].id
    button = {
        "type": 2,
        "style": 3,
        "label": "Approve this message",
        "custom_id": f"review:approve:{world.general.id}:{message_id}",
    }
    stored.components = [{"type": 1, "components": [button]}]
    await world.mod.click(world.entries()[0], label="Approve this message")
    assert set((await states(world)).values()) == {"approved"}


async def test_a_lifted_time_out_waits_for_all_pictures_that_asked_for_it(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.TIMEOUT),))
    await world.post(red(1), red(2))
    members = world.env.backend.guilds[world.guild.id].members
    (entry,) = world.entries()
    await world.mod.select(entry, [options(entry)[0].value])
    await world.mod.click(world.entries()[0], label="Wrong verdict: allow picture 1")
    assert members[world.alice.id].timed_out_until, "the other picture asked for it, too"
    await world.mod.click(world.entries()[0], label="Wrong verdict: allow picture")
    assert not members[world.alice.id].timed_out_until


# The author's data


@pytest.mark.parametrize("label", ["Approve this message", "Delete", "Wrong verdict: allow picture"])
async def test_a_deletion_of_data_takes_effect_when_the_review_closes(world: SimulatedServer, label: str) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    await world.alice.slash(world.general, "privacy delete")
    (row,) = await world.decisions()
    assert (row.state, row.user_id) == ("open", None)
    await world.mod.click(world.entries()[0], label=label)
    assert await world.decisions() == []
    assert len(await world.bot.services.store.rulings(world.guild.id)) == (label != "Approve this message")


async def test_an_author_without_data_is_timed_out_all_the_same(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    await world.alice.slash(world.general, "privacy delete")
    await world.mod.click(world.entries()[0], label="Delete and time out")
    assert world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until
    assert "Author timed out" in str(world.entries()[0].embeds[0].fields)
    assert "has left" not in str(world.entries()[0].embeds[0].fields)
    assert await world.decisions() == []


async def test_who_has_left_is_said_to_have_left(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    world.env.backend.remove_member(world.guild.id, world.alice.id)
    await world.env.settle()
    await world.mod.click(world.entries()[0], label="Delete and time out")
    assert "Time-out failed: the author has left the server." in str(world.entries()[0].embeds[0].fields)


async def test_a_failing_discord_is_not_taken_for_an_author_who_has_left(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    world.env.inject_error("GET", "/guilds/*/members/*", status=500, times=None)
    await world.mod.click(world.entries()[0], label="Delete and time out")
    text = str(world.entries()[0].embeds[0].fields)
    assert "has left" not in text
    assert "Time-out failed: Discord answered HTTP 500" in text


async def test_a_webhook_has_not_left(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    hook = world.guild.create_webhook(world.general, "bridge")
    data = discord.Embed(url="https://example.com/x.png").set_image(url="https://example.com/x.png").to_dict()
    data["image"]["proxy_url"] = world.cdn.add("/external/x.png", red())  # type: ignore[typeddict-unknown-key]
    await hook.send("hello", embed=discord.Embed.from_dict(data))
    world.env.inject_error("GET", "/guilds/*/members/*", status=404, code=10013, message="Unknown User")
    await world.mod.click(world.entries()[0], label="Delete and time out")
    text = str(world.entries()[0].embeds[0].fields)
    assert "has left" not in text
    assert "Time-out failed: the author is not a member" in text
