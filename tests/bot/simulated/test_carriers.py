"""Every place of a message that shows a picture is looked at; a place that is not known is logged."""

from __future__ import annotations

from typing import Any

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simcord.backend import serializers
from tiny import blue, red
from world import SimulatedServer

from bot.pictures import formats
from bot.pictures.carriers import unknown_carriers
from bot.pictures.references import _without_signature

V2 = discord.MessageFlags(components_v2=True).value
PAGE = "https://example.com/page"


def media(world: SimulatedServer, data: bytes, name: str = "a.png") -> dict[str, Any]:
    """A picture on another host, with its copy in the media proxy."""
    return {"url": f"https://example.com/{name}", "proxy_url": world.cdn.add(f"/external/{name}", data)}


def icon(picture: dict[str, Any]) -> dict[str, Any]:
    return {"icon_url": picture["url"], "proxy_icon_url": picture["proxy_url"]}


def text(content: str = "words") -> dict[str, Any]:
    return {"type": 10, "content": content}


def gallery(*pictures: dict[str, Any]) -> dict[str, Any]:
    return {"type": 12, "items": [{"media": picture} for picture in pictures]}


def section(picture: dict[str, Any]) -> dict[str, Any]:
    return {"type": 9, "components": [text()], "accessory": {"type": 11, "media": picture}}


def container(*components: dict[str, Any]) -> dict[str, Any]:
    return {"type": 17, "components": [text(), *components]}


COMPONENTS = {
    "gallery": gallery,
    "thumbnail": section,
    "file": lambda picture: {"type": 13, "file": picture, "name": "a.png", "size": 9},
    "gallery in a container": lambda picture: container(gallery(picture)),
    "thumbnail in a container": lambda picture: container(section(picture)),
    "second of a gallery": lambda picture: gallery({"url": "https://example.com/broken.png"}, picture),
}
EMBEDS = {
    "image": lambda picture: {"image": picture},
    "thumbnail": lambda picture: {"thumbnail": picture},
    "author": lambda picture: {"author": {"name": "a", **icon(picture)}},
    "footer": lambda picture: {"footer": {"text": "a", **icon(picture)}},
    "video only": lambda picture: {"type": "video", "url": PAGE, "video": picture},
}


async def post(world: SimulatedServer, **parts: Any) -> discord.Message:
    """A message with parts that only bots, webhooks and Discord itself can make."""
    stored = world.env.backend.create_message(world.general.id, world.alice.id, parts.pop("content", ""), **parts)
    await world.env.settle()
    return next(message for message in world.posts(world.general) if message.id == stored.id)


async def receive(world: SimulatedServer, **parts: Any) -> None:
    """A message as a later version of Discord may send it, which the simulation would refuse."""
    backend = world.env.backend
    stored = backend.create_message(world.general.id, world.alice.id, "words", broadcast=False)
    backend.emit("MESSAGE_CREATE", {**serializers.message_payload(backend, stored), **parts})
    await world.env.settle()


async def verdicts(world: SimulatedServer) -> list[str]:
    return sorted({row.verdict for row in await world.decisions()} - {"outside"})


@pytest.mark.parametrize("place", COMPONENTS)
async def test_components_are_judged(world: SimulatedServer, place: str) -> None:
    await post(world, components=[COMPONENTS[place](media(world, red()))], flags=V2)
    assert await verdicts(world) == ["flagged"]


@pytest.mark.parametrize("place", COMPONENTS)
async def test_forwarded_components_are_judged(world: SimulatedServer, place: str) -> None:
    elsewhere = world.guild.create_text_channel("elsewhere")
    component = COMPONENTS[place](media(world, red()))
    await world.bot.services.store.set_policy(world.guild.id, await exempting(world, elsewhere.id))
    stored = world.env.backend.create_message(elsewhere.id, world.alice.id, "", components=[component], flags=V2)
    await world.env.settle()
    assert await world.decisions() == []
    message = next(each for each in world.posts(elsewhere) if each.id == stored.id)
    await world.alice.forward(message, world.general)
    assert await verdicts(world) == ["flagged"]


async def exempting(world: SimulatedServer, channel: int) -> Any:
    policy = await world.bot.services.store.policy(world.guild.id)
    return type(policy)(exempt_channels=frozenset({channel}))


@pytest.mark.parametrize("place", EMBEDS)
async def test_every_picture_of_an_embed_is_judged(world: SimulatedServer, place: str) -> None:
    await post(world, embeds=[EMBEDS[place](media(world, red()))])
    assert await verdicts(world) == ["flagged"]


async def test_the_thumbnail_of_a_video_does_not_stand_for_the_video(world: SimulatedServer) -> None:
    video = media(world, b"\0\0\0\x18ftypmp42" + bytes(100), "clip.mp4")
    world.cdn.still = red()
    await post(world, embeds=[{"type": "video", "url": PAGE, "thumbnail": media(world, blue()), "video": video}])
    assert await verdicts(world) == ["clean", "flagged"]


async def test_a_player_without_a_copy_of_its_video_is_judged_by_its_thumbnail(world: SimulatedServer) -> None:
    player = {"url": "https://www.youtube.com/embed/abc"}
    await post(world, embeds=[{"type": "video", "url": PAGE, "thumbnail": media(world, red()), "video": player}])
    assert [row.verdict for row in await world.decisions()] == ["flagged"]


async def test_two_pictures_of_one_page_differ_by_their_query(world: SimulatedServer) -> None:
    harmless, bad = media(world, blue(), "1.png"), media(world, red(), "2.png")
    harmless["url"], bad["url"] = "https://example.com/show?id=1", "https://example.com/show?id=2"
    await post(world, embeds=[{"image": harmless}, {"image": bad}])
    assert await verdicts(world) == ["clean", "flagged"]


def test_discords_signature_does_not_make_another_picture() -> None:
    url = "https://cdn.discordapp.com/attachments/1/2/a.png"
    assert _without_signature(f"{url}?ex=1&is=2&hm=3") == _without_signature(f"{url}?ex=4&is=5&hm=6") == url


@pytest.mark.parametrize("content", ["{}", "{}{}", "{} !!", "\N{GRINNING FACE} {}"])
async def test_a_message_of_custom_emoji_alone_is_judged(world: SimulatedServer, content: str) -> None:
    world.cdn.add("/emojis/77.png", red())
    await world.alice.send(world.general, content.replace("{}", "<:rude:77>"))
    assert [(row.picture, row.verdict) for row in await world.decisions()] == [("emoji:77", "flagged")]


async def test_an_animated_emoji_is_judged(world: SimulatedServer) -> None:
    world.cdn.add("/emojis/78.webp", red(kind="WEBP"))
    await world.alice.send(world.general, "<a:rude:78>")
    assert await verdicts(world) == ["flagged"]


async def test_emoji_among_words_are_small_and_not_judged(world: SimulatedServer) -> None:
    await world.alice.send(world.general, "hello <:rude:77>")
    assert await world.decisions() == []


async def test_an_attachment_shown_by_a_component_is_judged_once(world: SimulatedServer) -> None:
    (file,) = world.env.backend.store_attachments(world.general.id, [("x.png", red())])
    item = {"url": file["url"], "proxy_url": file["url"], "attachment_id": file["id"]}
    await post(world, attachments=[file], components=[gallery(item)], flags=V2)
    assert [row.picture for row in await world.decisions()] == [f"attachment:{file['id']}"]


# Carriers that nobody knows yet


def counted(world: SimulatedServer) -> float:
    registry = world.bot.services.metrics.registry
    return registry.get_sample_value("mlpy_errors_total", {"where": "unknown carrier"}) or 0.0


FORWARDED: dict[str, Any] = {
    "type": 0,
    "content": "",
    "embeds": [],
    "attachments": [],
    "timestamp": "2026-01-01T00:00:00+00:00",
    "edited_timestamp": None,
}
UNKNOWN = {
    "component 99.media": {"components": [{"type": 99, "media": {"url": PAGE}}]},
    "component 99.media in a container": {"components": [container({"type": 99, "media": {"url": PAGE}})]},
    "component 12.items.preview": {
        "components": [{"type": 12, "items": [{"media": {"url": PAGE}, "preview": {"url": PAGE}}]}]
    },
    "embeds.banner": {"embeds": [{"banner": {"url": PAGE}}]},
    "hologram": {"hologram": {"url": PAGE}},
    "hologram in a forwarded message": {"message_snapshots": [{"message": FORWARDED | {"hologram": {"url": PAGE}}}]},
}


@pytest.mark.parametrize("place", UNKNOWN)
async def test_an_unknown_carrier_is_counted_and_logged_once(
    world: SimulatedServer, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    for _ in range(3):
        await receive(world, **UNKNOWN[place])
    lines = [each.message for each in caplog.records if "does not know" in each.message]
    place = place.partition(" in ")[0]
    assert lines == [f"a message may show a picture in a field that this bot does not know: {place}.url"]
    assert counted(world) == 3


async def test_an_unknown_carrier_of_a_fetched_message_is_counted_once(
    world: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialize = serializers.message_payload

    def later(backend: Any, message: Any, *args: Any, **more: Any) -> Any:
        return {**serialize(backend, message, *args, **more), "hologram": {"url": PAGE}}

    await world.post(blue())
    assert counted(world) == 0
    monkeypatch.setattr(serializers, "message_payload", later)
    await world.post(blue(2))
    assert counted(world) == 1, "at the gateway"
    for _ in range(2):
        await world.mod.slash(world.general, "scan", channel=world.general)
    assert counted(world) == 2, "the other one, while scanning"
    channel = world.bot.get_partial_messageable(world.general.id, guild_id=world.guild.id)
    for message in world.posts(world.general):
        await channel.fetch_message(message.id)
    assert counted(world) == 2


async def test_known_carriers_are_not_reported(world: SimulatedServer) -> None:
    picture = media(world, blue())
    await receive(
        world,
        embeds=[{"url": PAGE, "provider": {"url": PAGE}, **make(picture)} for make in EMBEDS.values()],
        components=[make(picture) for make in COMPONENTS.values()],
        attachments=world.env.backend.store_attachments(world.general.id, [("x.png", blue())]),
    )
    message = await world.post(blue())
    await world.alice.send(world.general, "an answer", reply_to=message)
    await world.alice.forward(message, world.general)
    assert counted(world) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(PAGE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "type", "components", "accessory", "message_snapshots", "x"]), inner)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(["embeds", "components", "message_snapshots", "url"]), JSON))
def test_any_payload_can_be_looked_through(payload: dict[str, Any]) -> None:
    assert all(isinstance(place, str) for place in unknown_carriers(payload))


# What the bytes are decides, not the name or the type


@pytest.mark.parametrize("content_type", ["video/mp4", "text/plain", "IMAGE/HEIC", "image/x-ms-bmp", ""])
async def test_a_claimed_type_does_not_hide_a_picture(world: SimulatedServer, content_type: str) -> None:
    (file,) = world.env.backend.store_attachments(world.general.id, [("x.bin", red())])
    await post(world, attachments=[{**file, "content_type": content_type}])
    assert await verdicts(world) == ["flagged"]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/HEIC", "image/heic", "application/octet-stream"])
async def test_a_picture_that_cannot_be_decoded_here_is_judged_by_its_still(
    world: SimulatedServer, content_type: str
) -> None:
    world.cdn.still = red()
    (file,) = world.env.backend.store_attachments(world.general.id, [("x.png", HEIC)])
    await post(world, attachments=[{**file, "content_type": content_type}])
    assert await verdicts(world) == ["flagged"]


async def test_a_file_that_is_broken_for_the_decoder_is_judged_as_discord_shows_it(world: SimulatedServer) -> None:
    world.cdn.still = red(kind="WEBP")
    await world.post(red()[:60])
    assert await verdicts(world) == ["flagged"]


async def test_a_file_that_is_broken_for_discord_too_is_corrupt(world: SimulatedServer) -> None:
    await world.post(red()[:60])
    assert await verdicts(world) == ["corrupt"]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41", "video"),
        (b"\0\0\0\x14ftypM4A \0\0\0\0M4A ", ""),
        (b"BM\x8a\0\0\0\0\0\0\0\x8a\0\0\0", "BMP"),
        (b"BMW is a make of car", ""),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0", "video"),
        (b"", ""),
    ],
)
def test_formats_by_their_first_bytes(head: bytes, name: str) -> None:
    assert formats.sniff(head) == name
