"""What one process does for its servers over real sockets, whatever Discord and its CDN do."""

from __future__ import annotations

import asyncio
import io
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from PIL import Image
from room import NOW, TOKEN, Room
from tiny import blue, red

pytestmark = pytest.mark.asyncio(loop_scope="module")


def fields(entry: dict[str, Any]) -> dict[str, str]:
    return {field["name"]: field["value"] for field in entry["embeds"][0]["fields"]}


def steepest(data: bytes) -> int:
    """The largest step of green from pixel to pixel."""
    green = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., 1].astype(int)
    return int(max(np.abs(np.diff(green, axis=axis)).max() for axis in (0, 1)))


def labels(entry: dict[str, Any]) -> set[str]:
    """What the entry's buttons say."""
    return {button["label"] for row in entry["components"] for button in row["components"]}


async def test_a_red_picture_is_deleted_and_moderators_decide_on_it(bot: BotProcess, room: Room) -> None:
    server, picture = bot.server, red(1)
    kept, sent = await room.post(blue(1)), await room.post(picture)
    await bot.until(lambda: room.entries)
    (entry,) = room.entries
    assert sent in server.deleted
    assert fields(entry)["Action"] == "Deleted."
    (attachment,) = entry["attachments"]
    shown, kind = server.uploads[attachment["url"].removeprefix(server.cdn).partition("?")[0]]
    assert (kind, attachment["filename"]) == ("image/jpeg", "SPOILER_blurred-0.jpg")
    assert steepest(shown) < steepest(picture) / 4
    pressed = {button["label"]: button["custom_id"] for row in entry["components"] for button in row["components"]}
    assert labels(entry) == {"Approve this message", "Delete", "Delete and time out", "Wrong verdict: allow picture"}

    click = await server.click(int(entry["id"]), pressed["Wrong verdict: allow picture"], server.owner)
    assert (await server.answer(click, NOW))["type"] == 6
    await bot.until(lambda: labels(entry) == {"Undo: forget this picture"})
    assert fields(entry)["Moderator"] == f"Marked as a wrong verdict by <@{server.owner}>."
    (row,) = bot.rows("SELECT state, moderator_id FROM decisions WHERE message_id = ?", sent)
    assert row == ("wrong", server.owner)
    assert kept in server.messages
    assert bot.verdicts(kept) == ["clean"]


async def test_actions_are_done_once_despite_rate_limits_and_lost_answers(bot: BotProcess, room: Room) -> None:
    server, other = bot.server, await Room.furnished(bot.server)  # both at once: the pauses are discord.py's own
    delete, post = f"/channels/{room.channel}/messages/*", f"/channels/{other.modlog}/messages"
    for method, path in (("DELETE", delete), ("POST", post)):
        server.fail(method, path, 502, body="<html>Bad gateway</html>")
        server.fail(method, path, 500, after=method == "POST")  # it is there, only the answer is not
        server.fail(method, path, 429, retry_after=0.3)
    first, second = await room.post(red(2)), await other.post(red(3))
    await bot.until(lambda: room.entries and other.entries and server.asked("POST", post)[-1:] == [200])
    assert server.asked("DELETE", delete.replace("*", str(first))) == [502, 500, 429, 204]
    assert server.asked("POST", post) == [502, 500, 429, 200]
    assert {first, second} <= set(server.deleted)
    assert [fields(entry)["Action"] for entry in room.entries + other.entries] == ["Deleted."] * 2


async def test_discord_errors_after_which_calls_are_retried(bot: BotProcess, room: Room) -> None:
    server, other = bot.server, await Room.furnished(bot.server)
    server.fail("DELETE", f"/channels/{room.channel}/*", 503, after=True)
    server.fail("DELETE", f"/channels/{other.channel}/*", reset=True, times=2)  # of which aiohttp itself makes good one
    server.fail("POST", f"/channels/{room.modlog}/*", 503, after=True)
    server.fail("POST", f"/channels/{other.modlog}/*", reset=True)
    sent = [await each.post(red(4)) for each in (room, other)]
    paths = [f"/channels/{each.modlog}/messages" for each in (room, other)]
    await bot.until(lambda: all(server.asked("POST", path)[-1:] == [200] for path in paths))
    assert set(sent) <= set(server.deleted)
    for each in (room, other):
        (entry,) = each.entries
        assert fields(entry)["Action"].startswith("Deleted.")
        assert len(entry["attachments"]) == 1


async def test_actions_that_discord_refuses_are_left_to_the_moderators(bot: BotProcess, room: Room) -> None:
    server, other = bot.server, await Room.furnished(bot.server)
    refused = 'mlpy_actions_total{action="delete",result="refused"}'
    before = (await bot.metrics()).get(refused, 0)
    server.fail("DELETE", f"/channels/{room.channel}/*", 503, times=99)
    server.fail("DELETE", f"/channels/{other.channel}/*", reset=True, times=99)
    sent = [await each.post(red(5)) for each in (room, other)]
    await bot.until(lambda: room.entries and other.entries)
    assert set(sent) <= set(server.messages)
    for each, said in ((room, "Discord answered HTTP 503"), (other, "The connection to Discord failed")):
        expected = f"No action taken: waiting for review. {said} ("
        assert fields(each.entries[0])["Action"].startswith(expected)
    while (await bot.metrics()).get(refused, 0) < before + 2:  # noqa: ASYNC110 (another process counts, after the entry)
        await asyncio.sleep(0.05)


async def test_pictures_missed_while_disconnected_are_checked_once(bot: BotProcess) -> None:
    server = bot.server
    before, identifies, resumes = await bot.metrics(), server.identifies, server.resumes
    sent = []
    for number in range(45):
        if number == 15:
            await server.drop(4000, away=0.5)  # what is posted now waits in the session
        if number == 30:
            await server.until(lambda: server.resumes == resumes + 1, NOW)
            await server.drop(None)  # and now the line goes dead, with events on it
        sent.append(await server.post(server.channel, server.user, str(number), [blue(100 + number)]))
    await bot.until(lambda: all(bot.verdicts(message) for message in sent))
    assert [bot.verdicts(message) for message in sent] == [["clean"]] * 45
    after = await bot.metrics()
    judged = 'mlpy_pictures_total{origin="model",verdict="clean"}'
    assert after[judged] - before.get(judged, 0) == 45
    assert (server.identifies, server.resumes) == (identifies, resumes + 2)
    resumed = 'mlpy_gateway_total{event="resume"}'
    assert after[resumed] - before.get(resumed, 0) == 2


async def test_monitoring_is_served_on_loopback_only(bot: BotProcess) -> None:
    assert (await bot.healthy())["model"] == "moderator@workspace"
    sent = await bot.server.post(bot.server.channel, bot.server.user, "", [blue(200)])
    await bot.until(lambda: bot.verdicts(sent))
    counted = await bot.metrics()
    for name in ("messages_total", "pictures_total", "gateway_total", "picture_seconds_count", "queue", "model_info"):
        assert any(line.startswith(f"mlpy_{name}") for line in counted), name
    assert counted["mlpy_loop_lag_seconds_count"] > 0
    for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as probe, pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
            probe.connect((address, bot.port))


async def test_health_stays_200_under_load_and_fails_without_a_connection(bot: BotProcess) -> None:
    server, seen = bot.server, set()
    await bot.healthy()
    sent = [await server.post(server.channel, server.user, "", [blue(300 + number)]) for number in range(60)]
    while not all(map(bot.verdicts, sent)):
        seen.add((await bot.get("/healthz"))[0])
    assert seen == {200}
    await server.drop(away=50.0)  # discord.py waits 60 s for the first event
    while (await bot.get("/healthz"))[0] == 200:
        pass
    server.come_back()
    await bot.healthy()


async def test_every_line_of_the_log_is_an_object_that_names_the_model(bot: BotProcess) -> None:
    server = bot.server
    sent = await server.post(server.channel, server.user, "", [red(7)])
    await bot.until(lambda: bot.verdicts(sent))
    assert {line["model"] for line in bot.log()} == {"moderator@workspace"}
    (line,) = [line for line in bot.log() if line["event"] == "decision" and line["message_id"] == sent]
    expected = {"guild_id": server.guild, "channel_id": server.channel, "user_id": server.user, "verdict": "flagged"}
    assert expected.items() <= line.items()
    assert line["score"] > 0.9


async def test_the_log_has_no_secrets_and_no_message_text(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace, MLPY_LOG="DEBUG") as bot:
        await bot.connected()
        room = await Room.furnished(server, server.guild)
        await server.post(room.channel, server.user, "a private word", [("private.png", red(8))])
        await bot.until(lambda: room.entries)
        (button, *_) = room.entries[0]["components"][0]["components"]
        await server.answer(await server.click(int(room.entries[0]["id"]), button["custom_id"], server.owner), NOW)
        await server.drop()
        await bot.until(lambda: server.resumes == 1)
        assert await bot.stopped() == 0
        assert any(line["level"] == "debug" for line in bot.log())
        for secret in (TOKEN, "a private word", "private.png", "&hm=", *server.interactions):
            assert secret not in bot.text()
