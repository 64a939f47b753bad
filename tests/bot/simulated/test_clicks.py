"""Rights are checked at every click: Discord goes on showing buttons to those who have lost them, and to others."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import discord
import pytest
from simcord import interactions
from simcord.backend import serializers
from simcord.builders import UserHandle
from simcord.results import InteractionResult
from spreading import quiet, spread
from tiny import blue, red
from world import SimulatedServer

import bot.actions
import bot.commands
from bot.actions.appeals import AppealDecisionButton
from bot.actions.notices import NO_RECORD, AppealButton, AppealForm
from bot.actions.review import PictureMenu, ReviewButton
from bot.actions.undoing import UndoButton
from bot.actions.wave_review import WaveButton
from bot.commands.confirming import NOT_YOURS, AskersView, Confirmation
from bot.commands.pictures import PictureChoice
from bot.commands.setting_up import STEPS, Setup
from bot.rules.policy import Action, Mode, ModerationRule
from bot.rules.shield import ShieldPolicy

DELETE = (ModerationRule("flagged", 0.6, Action.DELETE),)
TIMEOUT = (ModerationRule("flagged", 0.6, Action.TIMEOUT),)
Shown = tuple[Any, discord.Message]
"""Who was shown something to click, and the message that it is below."""


async def entry(world: SimulatedServer) -> Shown:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await world.post(red())
    return world.mod, world.entries()[0]


async def entry_of_several(world: SimulatedServer) -> Shown:
    await world.policy(Mode.REVIEW, rules=DELETE)
    await world.post(red(), red(1))
    return world.mod, world.entries()[0]


async def decided(world: SimulatedServer) -> Shown:
    actor, shown = await entry(world)
    await world.mod.click(shown, label="Wrong verdict: allow picture")
    return actor, world.entries()[0]


async def choice(world: SimulatedServer) -> Shown:
    await world.policy(Mode.REVIEW, rules=DELETE)
    result = await world.mod.context_menu(world.general, "Block this picture", await world.post(blue(1), blue(2)))
    assert result.response is not None
    return world.mod, result.response.message


async def appealed(world: SimulatedServer) -> Shown:
    await world.policy(Mode.ENFORCE, rules=TIMEOUT, tell_author=True)
    await world.post(red())
    alice = UserHandle(world.env, world.env.backend.users[world.alice.id])
    shown = await alice.click(world.posts(alice.dm_channel)[0], label="Appeal")
    await alice.submit_modal(shown, {"text": "please"})
    return world.mod, world.entries()[1]


async def wave(world: SimulatedServer) -> Shown:
    await world.policy(Mode.REVIEW, rules=DELETE, shield=ShieldPolicy(on=True))
    channels = [world.general, *(world.guild.create_text_channel(name) for name in ("one", "two"))]
    await world.env.settle()
    await spread(world, channels, blue())
    await quiet(world)
    return world.mod, world.entries()[0]


def asked(command: str, **options: Any) -> Callable[[SimulatedServer], Awaitable[Shown]]:
    async def ask(world: SimulatedServer) -> Shown:
        await world.policy(Mode.ENFORCE, rules=DELETE)
        if options.get("channel"):
            options["channel"] = world.modlog
        result = await world.manager.slash(world.general, command, **options)
        assert result.response is not None
        return world.manager, result.response.message

    return ask


def set_up(place: int) -> Callable[[SimulatedServer], Awaitable[Shown]]:
    async def show(world: SimulatedServer) -> Shown:
        await world.policy(Mode.REVIEW, rules=DELETE)
        result = await world.manager.slash(world.general, "setup")
        assert result.response is not None
        for _ in range(place):
            await world.manager.click(result.response, label="Next")
        return world.manager, result.response.message

    return show


CASES: dict[str, tuple[type, Callable[[SimulatedServer], Awaitable[Shown]]]] = {
    "a review": (ReviewButton, entry),
    "a review of several pictures": (PictureMenu, entry_of_several),
    "a decision to undo": (UndoButton, decided),
    "pictures to block": (PictureChoice, choice),
    "an appeal": (AppealDecisionButton, appealed),
    "a wave": (WaveButton, wave),
    "a threshold for all": (Confirmation, asked("threshold", label="flagged", action="timeout", score=0.0)),
    "a rule in enforce mode": (Confirmation, asked("rule add", label="flagged", action="timeout", score=0.9)),
    "acting untold": (Confirmation, asked("policy set", act_untold=True)),
    "a mod-log for everyone": (Confirmation, asked("channel modlog", channel=True)),
    **{f"set-up, {step.title}": (Setup, set_up(place)) for place, step in enumerate(STEPS)},
}
OF_AUTHORS = {AppealButton, AppealForm}
"""For the author of a message alone, whatever their rights: see `test_appeals.py`."""


def clickable() -> Iterator[type]:
    """All that the bot shows to be clicked or filled in."""
    kinds = (discord.ui.View, discord.ui.Modal, discord.ui.DynamicItem)
    for room in (bot.actions, bot.commands):
        for found in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{found.name}")
            for _, value in inspect.getmembers(module, inspect.isclass):
                if issubclass(value, kinds) and value.__module__ == module.__name__:
                    yield value


def test_nothing_to_click_is_left_out_here() -> None:
    assert set(clickable()) == {kind for kind, _ in CASES.values()} | OF_AUTHORS | {AskersView}


async def click(world: SimulatedServer, user: int, shown: discord.Message, component: dict[str, Any]) -> str:
    """What anyone is answered who clicks a component of a message, shown to them or not."""
    backend = world.env.backend
    data: dict[str, Any] = {"custom_id": component["custom_id"], "component_type": component["type"]}
    if component["type"] == discord.ComponentType.select.value:
        data["values"] = [component["options"][-1]["value"]]
    elif component["type"] != discord.ComponentType.button.value:
        target = world.modlog if component["type"] == discord.ComponentType.channel_select.value else world.mods
        data |= {"values": [str(target.id)], "resolved": {}}
        interactions.resolve_handle(world.manager, target, data["resolved"], channel_id=shown.channel.id)
    record, payload = interactions.base_payload(
        backend,
        type=discord.InteractionType.component.value,
        channel_id=shown.channel.id,
        guild_id=world.guild.id,
        user_id=user,
        data=data,
    )
    stored = backend.get_message(shown.channel.id, shown.id)
    payload["message"] = dict(serializers.message_payload(backend, stored))
    backend.emit("INTERACTION_CREATE", payload)
    await world.env.settle()
    result = InteractionResult(world.env, record)
    return "\n".join(each.content for each in (result.response, *result.followups) if each is not None)


def components(world: SimulatedServer, shown: discord.Message) -> list[dict[str, Any]]:
    stored = world.env.backend.get_message(shown.channel.id, shown.id)
    return [item for row in stored.components for item in row["components"]]


async def state(world: SimulatedServer, shown: discord.Message) -> object:
    """Whatever a click might change."""
    services = world.bot.services
    return (
        (await services.store.policy(world.guild.id)).to_json(),
        [(row.id, row.state) for row in await world.decisions()],
        [await services.appeals.find(row.message_id) for row in await world.decisions()],
        [await services.store.rulings(world.guild.id)],
        [each.id for each in world.posts(world.general)],
        [each.id for each in world.entries()],
        components(world, shown),
        world.env.backend.get_message(shown.channel.id, shown.id).content,
        world.env.backend.guilds[world.guild.id].members[world.alice.id].timed_out_until,
    )


@pytest.mark.parametrize("case", CASES)
async def test_only_those_with_the_rights_change_anything(world: SimulatedServer, case: str) -> None:
    kind, show = CASES[case]
    actor, shown = await show(world)
    admins = world.guild.create_role("Admins", permissions=discord.Permissions(administrator=True))
    admin = world.guild.add_member(world.env.create_user("admin"), roles=[admins])
    await world.env.settle()
    before = await state(world, shown)

    async def refused(user: int, answer: str) -> None:
        assert components(world, shown)
        for component in components(world, shown):
            assert re.search(answer, await click(world, user, shown, component)), component
            assert await state(world, shown) == before

    if issubclass(kind, AskersView):  # one person was asked
        await refused(world.alice.id, NOT_YOURS)
        await refused(admin.id, NOT_YOURS)
    else:  # a member who can read the mod-log
        await refused(world.alice.id, "you need the (Manage Messages|Moderate Members) permission")
    for role in list(world.env.backend.guilds[world.guild.id].members[actor.id].role_ids):
        world.env.backend.remove_member_role(world.guild.id, actor.id, role)
    await world.env.settle()
    await refused(actor.id, "ou need the (Manage|Moderate) ")


@pytest.mark.parametrize("choice", ["Delete and time out", "Reverse"])
async def test_time_outs_take_the_permission_for_them(world: SimulatedServer, choice: str) -> None:
    _, shown = await (entry if choice == "Delete and time out" else appealed)(world)
    helpers = world.guild.create_role("Helpers", permissions=discord.Permissions(manage_messages=True))
    helper = world.guild.add_member(world.env.create_user("helper"), roles=[helpers])
    await world.env.settle()
    before = await state(world, shown)
    (button,) = [each for each in components(world, shown) if each.get("label") == choice]
    assert "you need the Moderate Members permission" in await click(world, helper.id, shown, button)
    assert await state(world, shown) == before


async def test_who_has_the_rights_can_click(world: SimulatedServer) -> None:
    """The same way of clicking, so that the tests above do not pass for another reason."""
    for show, label in ((asked("policy set", act_untold=True), "Act all the same"), (entry, "Delete")):
        actor, shown = await show(world)
        before = await state(world, shown)
        (button,) = [each for each in components(world, shown) if each.get("label") == label]
        await click(world, actor.id, shown, button)
        assert await state(world, shown) != before


async def test_the_form_of_somebody_else_is_not_taken(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=TIMEOUT, tell_author=True)
    message = await world.post(red())
    backend = world.env.backend
    record, payload = interactions.base_payload(
        backend,
        type=discord.InteractionType.modal_submit.value,
        channel_id=world.general.id,
        guild_id=world.guild.id,
        user_id=world.mod.id,
        data={
            "custom_id": f"appeal:text:{message.id}",
            "components": [{"type": 1, "components": [{"type": 4, "custom_id": "text", "value": "mine"}]}],
        },
    )
    backend.emit("INTERACTION_CREATE", payload)
    await world.env.settle()
    assert [each.content for each in InteractionResult(world.env, record).followups] == [NO_RECORD]
    assert len(world.entries()) == 1
