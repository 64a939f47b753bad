"""The memory of pictures: block, allow, copies, list, forget, and who may."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import replace

from PIL import Image, ImageDraw, ImageOps
from simcord.results import InteractionResult
from world import SimulatedServer

from bot.rules.policy import Action, Mode, ModerationRule

RULES = (ModerationRule("flagged", 0.6, Action.FLAG),)


def said(result: InteractionResult) -> str:
    """All that was answered."""
    messages = [each for each in (result.response, *result.followups) if each is not None]
    return "\n".join(filter(None, (each.content for each in messages)))


def encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def drawing(background: tuple[int, int, int], seed: int) -> bytes:
    """Shapes on a ground: what the tiny model scores by its colour."""
    rng = random.Random(seed)
    image = Image.new("RGB", (240, 200), background)
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, size = rng.randrange(200), rng.randrange(160), rng.randrange(16, 70)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + size, y + rng.randrange(16, 70)), fill=(background[0], rng.randrange(256), background[2]))
    return encoded(image)


def red(seed: int = 0) -> bytes:
    return drawing((230, 60, 30), seed)


def blue(seed: int = 0) -> bytes:
    return drawing((30, 60, 230), seed)


def copy_of(data: bytes) -> bytes:
    """Mirrored and framed: no hash of the whole picture knows it."""
    image = ImageOps.mirror(Image.open(io.BytesIO(data)))
    return encoded(ImageOps.expand(image, (12, 40), (24, 25, 28)))


async def test_a_blocked_picture_and_its_copies_are_deleted_from_now_on(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=RULES)
    message = await world.post(blue())
    result = await world.mod.context_menu(world.general, "Block this picture", message)
    assert "Blocked 1 picture, and copies from now on. The message is deleted." in said(result)
    assert world.posts(world.general) == []
    deletion = next(each for each in world.env.http_requests if each.method == "DELETE")
    assert deletion.path.endswith(str(message.id))
    await world.post(blue())
    await world.post(copy_of(blue()))
    assert world.posts(world.general) == [], "equal bytes, and a copy"
    assert {each.verdict for each in await world.decisions()} == {"clean", "refused"}
    await world.post(blue(seed=9))
    assert len(world.posts(world.general)) == 1, "another picture stays"


async def test_an_allowed_picture_is_not_flagged_any_more(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.DELETE),))
    await world.policy(Mode.SHADOW, rules=RULES)
    message = await world.post(red())
    await world.mod.context_menu(world.general, "Allow this picture", message)
    await world.policy(Mode.ENFORCE, rules=(ModerationRule("flagged", 0.6, Action.DELETE),))
    await world.post(copy_of(red()))
    assert len(world.posts(world.general)) == 2
    assert {each.verdict for each in await world.decisions()} == {"flagged", "allowed"}


async def test_of_several_pictures_the_chosen_ones_are_blocked(world: SimulatedServer) -> None:
    message = await world.post(blue(1), blue(2))
    result = await world.mod.context_menu(world.general, "Block this picture", message)
    assert "This message has 2 pictures" in said(result)
    asked = result.followups[0] if result.followups else result.response
    await world.mod.select(asked, ["1"])
    (ruling,) = await world.bot.services.store.rulings(world.guild.id)
    decisions = {each.picture: each.sha256 for each in await world.decisions()}
    assert ruling.sha256 == decisions[f"attachment:{message.attachments[1].id}"]
    assert (ruling.moderator_id, ruling.allowed, ruling.origin) == (world.mod.id, False, "command")


async def test_only_who_may_delete_a_message_decides_on_its_picture(world: SimulatedServer) -> None:
    message = await world.post(blue())
    for name, kind in (("Block this picture", 3), ("pictures", 1)):
        found = world.env.backend.find_command(name, world.guild.id, type=kind)
        world.guild.set_command_permissions(int(found["id"]), {world.guild.default_role: True})
    result = await world.alice.context_menu(world.general, "Block this picture", message)
    assert "You need" in said(result)
    assert await world.bot.services.store.rulings(world.guild.id) == []
    for command in ("list", "show", "forget"):
        options = {} if command == "list" else {"picture": "abcd"}
        assert "You need" in said(await world.alice.slash(world.general, f"pictures {command}", **options))


async def test_decisions_are_listed_explained_and_forgotten(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=RULES)
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue()))
    await world.post(copy_of(blue()))
    (ruling,) = await world.bot.services.store.rulings(world.guild.id)
    listed = said(await world.mod.slash(world.general, "pictures list"))
    assert f"`{ruling.sha256[:10]}` **blocked** by {world.mod.mention}" in listed
    assert "met 1 time" in listed
    assert "No decisions" in said(await world.mod.slash(world.general, "pictures list", decision="allowed"))
    shown = said(await world.mod.slash(world.general, "pictures show", picture=ruling.sha256[:10]))
    assert ruling.sha256 in shown
    assert ruling.link in shown
    await world.mod.slash(world.general, "pictures forget", picture=ruling.sha256[:10])
    await world.post(copy_of(blue()))
    assert len(world.posts(world.general)) == 1
    assert "No such picture" in said(await world.mod.slash(world.general, "pictures show", picture="abcdef"))
    assert "not an ID" in said(await world.mod.slash(world.general, "pictures show", picture="%"))


async def test_approve_decides_the_message_alone_and_a_wrong_verdict_the_picture(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    await world.mod.click(world.entries()[0], label="Approve this message")
    assert await world.bot.services.store.rulings(world.guild.id) == []
    await world.post(red())
    assert len(world.entries()) == 2
    await world.mod.click(world.entries()[1], label="Wrong verdict: allow picture")
    await world.post(copy_of(red()))
    assert len(world.entries()) == 2
    (ruling,) = await world.bot.services.store.rulings(world.guild.id)
    assert ruling.link.endswith(str(world.entries()[1].id))


async def test_a_decision_is_undone_from_its_entry_even_after_a_restart(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.post(red())
    await world.mod.click(world.entries()[0], label="Wrong verdict: allow picture")
    await world.restart()
    refused = await world.alice.click(world.entries()[0], label="Undo: forget this picture")
    assert "you need the Manage Messages permission" in refused.followups[0].content
    await world.mod.click(world.entries()[0], label="Undo: forget this picture")
    assert f"By {world.mod.mention}" in str(world.entries()[0].embeds[0].fields)
    assert world.entries()[0].components == []
    await world.post(red())
    assert len(world.entries()) == 2, "judged by the model again"


async def test_a_likely_copy_is_flagged_and_not_deleted(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=RULES, copy_threshold=1.01)
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue()))
    before = len(world.entries())
    await world.post(copy_of(blue()))
    assert len(world.posts(world.general)) == 1
    entry = world.entries()[before]
    assert "similar to a picture that was blocked" in str(entry.embeds[0].description)
    earlier = world.entries()[before - 1]
    assert f"/{earlier.id})" in str(entry.embeds[0].description), "a link to that decision"
    mine, remembered = (world.env.backend.cdn.get(each.url) for each in entry.attachments)
    assert remembered == world.env.backend.cdn.get(earlier.attachments[0].url) != mine, "both, side by side"
    done = {(row.verdict, row.origin, row.done) for row in await world.decisions()}
    assert done == {("clean", "model", Action.LOG), ("clean", "model", Action.FLAG)}


async def test_a_moderators_name_is_forgotten_with_their_data(world: SimulatedServer) -> None:
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue()))
    await world.mod.slash(world.general, "privacy delete")
    (ruling,) = await world.bot.services.store.rulings(world.guild.id)
    assert ruling.moderator_id is None


async def test_what_is_remembered_ends_with_the_retention(world: SimulatedServer) -> None:
    await world.policy(Mode.REVIEW, rules=RULES)
    await world.mod.context_menu(world.general, "Block this picture", await world.post(red()))
    store = world.bot.services.store
    await store.save_fingerprint("ab" * 32, b"any")
    world.now += 91 * 86400
    await store.sweep(90)
    assert await store.rulings(world.guild.id) == []
    assert await store.find_fingerprint("ab" * 32) is None


async def test_a_list_is_shown_before_it_is_imported_and_own_decisions_stay(world: SimulatedServer) -> None:
    store = world.bot.services.store
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue(1)))
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue(2)))
    exported = await world.mod.slash(world.general, "pictures export")
    message = exported.followups[0] if exported.followups else exported.response
    assert message is not None
    data = world.env.backend.cdn.get(message.attachments[0].url)
    assert data
    kept, gone = await store.rulings(world.guild.id)
    await world.bot.services.rulings.forget(world.guild.id, gone.sha256)
    await world.bot.services.rulings.add(replace(kept, allowed=True))
    file = ("list.jsonl", data + b"{\n")
    assert "You need" in said(await world.mod.slash(world.general, "pictures import", file=file))
    asked = await world.manager.slash(world.general, "pictures import", file=file)
    assert "This would block 1 picture and allow 0 pictures. 1 picture with a decision here already" in said(asked)
    assert "Left out: line 3: not JSON." in said(asked)
    assert len(await store.rulings(world.guild.id)) == 1, "nothing before the confirmation"
    question = asked.followups[0] if asked.followups else asked.response
    await world.manager.click(question, label="Import")
    found = {ruling.sha256: ruling for ruling in await store.rulings(world.guild.id)}
    assert (found[gone.sha256].origin, found[gone.sha256].allowed) == ("import", False)
    assert found[kept.sha256].allowed
    await world.policy(Mode.ENFORCE, rules=RULES)
    before = len(world.posts(world.general))
    await world.post(copy_of(blue(1 if gone.sha256 == hashlib.sha256(blue(1)).hexdigest() else 2)))
    assert len(world.posts(world.general)) == before


async def test_a_server_follows_another_ones_published_list_until_it_is_withdrawn(world: SimulatedServer) -> None:
    await world.policy(Mode.ENFORCE, rules=RULES)
    other, memory = 4242, world.bot.services.rulings
    await world.mod.context_menu(world.general, "Block this picture", await world.post(blue()))
    (ruling,) = await world.bot.services.store.rulings(world.guild.id)
    await memory.forget(world.guild.id, ruling.sha256)
    await memory.add(replace(ruling, guild_id=other))
    assert "no such list" in said(await world.manager.slash(world.general, "pictures follow", name=str(other)))
    await memory.publish(other, True)
    assert "follows" in said(await world.manager.slash(world.general, "pictures follow", name=str(other)))
    await world.post(copy_of(blue()))
    assert world.posts(world.general) == []
    await memory.add(replace(ruling, allowed=True))
    await world.post(blue())
    assert len(world.posts(world.general)) == 1, "this server's own decision comes first"
    await memory.forget(world.guild.id, ruling.sha256)
    await memory.publish(other, False)
    await world.post(blue())
    assert len(world.posts(world.general)) == 2
