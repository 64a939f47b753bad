"""Several processes on one database, and several models in one process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import psycopg2
import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from repository import GitProject
from room import NOW, PASSWORD, TOKEN, Room
from tiny import blue, red, redness

from stages.dump import postgres

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty one on a PostgreSQL, which takes any password."""
    with postgres.cluster(tmp_path_factory.mktemp("postgres") / "cluster") as server:
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE bot")
        socket = "&".join(f"{name}={server.parameters[name]}" for name in ("host", "port"))
        yield f"postgresql://postgres:{PASSWORD}@/bot?{socket}"


async def test_two_processes_share_the_shards_and_one_database(
    database: str, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    async with DiscordServer(token=TOKEN, guilds=2, shards=2) as server, AsyncExitStack() as stack:

        async def started(name: str, shard: int) -> BotProcess:
            (tmp_path / name).mkdir()
            shards = ("--shard-ids", str(shard), "--shard-count", "2")
            process = BotProcess(server, tmp_path / name, *shards, *workspace, database=database, MLPY_LOG="DEBUG")
            return await stack.enter_async_context(process)

        first, second = await asyncio.gather(started("first", 0), started("second", 1))
        await server.until(lambda: len(server.sessions) == 2, NOW)
        rooms = [
            await Room.furnished(server, guild) for guild in sorted(server.guilds, key=lambda guild: (guild >> 22) % 2)
        ]
        pictures = [blue(1), red(1), blue(2), blue(3)]
        sent = [await room.post(picture) for picture in pictures for room in rooms]
        await server.until(lambda: all(room.entries for room in rooms), NOW)
        await server.until(lambda: len(_rows(database)) == len(sent), NOW)
        assert [message for message, _ in _rows(database)] == sent
        decided = [[line["message_id"] for line in bot.log() if line["event"] == "decision"] for bot in (first, second)]
        assert [sorted(messages) for messages in decided] == [sent[::2], sent[1::2]]
        assert [path for _, path, _ in server.requests if path.endswith("/commands")] == [
            f"/applications/{server.bot}/commands"
        ]

        await _appeal(server, rooms[1])

        assert await first.stopped() == 0
        third = await started("third", 0)
        await server.until(lambda: len(server.sessions) == 2, NOW)
        gone = await rooms[0].post(red(2))
        await server.until(lambda: gone in server.deleted, NOW)  # by the rules that its manager set in the first one
        await server.until(lambda: (gone, "flagged") in _rows(database), NOW)

        for bot in (first, second, third):
            told = [line["event"] for line in bot.log() if line["level"] in ("warning", "error", "critical")]
            assert [event for event in told if "voice" not in event] == []
            assert not any(secret in bot.text() for secret in (TOKEN, PASSWORD))
        assert not any(secret in second.command_line() for secret in (TOKEN, PASSWORD))


async def _appeal(server: DiscordServer, room: Room) -> None:
    """An author in a server of the second process: direct messages, and the form, are the first one's."""
    assert "told by direct message" in await room.command("policy set", tell_author=True)
    await room.post(red(7))
    await server.until(lambda: server.user in server.dms and server.posted(server.dms[server.user]), NOW)
    (notice,) = server.posted(server.dms[server.user])
    assert "rule **flagged**, so it was deleted." in notice["content"]
    button = notice["components"][0]["components"][0]["custom_id"]
    shown = await server.click(int(notice["id"]), button, server.user)
    assert (await server.answer(shown, NOW))["type"] == 9
    sent = await server.submit(shown, {"text": "a tomato"})
    await server.until(lambda: sent.followups, NOW)
    await server.until(lambda: "Appeal" in room.entries[-1]["embeds"][0]["title"], NOW)
    entry, post = room.entries[-2:]
    assert post["message_reference"]["message_id"] == entry["id"]
    assert post["embeds"][0]["description"] == "```\na tomato\n```"
    reverse = post["components"][0]["components"][1]["custom_id"]
    await server.click(int(post["id"]), reverse, server.owner)
    await server.until(lambda: not post["components"], NOW)
    assert "reversed the decision" in server.posted(server.dms[server.user])[-1]["content"]
    await room.command("policy set", tell_author=False)


def _rows(database: str) -> list[tuple[int, str]]:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT message_id, verdict FROM decisions ORDER BY message_id")
        return cursor.fetchall()


async def test_another_model_is_served_without_a_restart(
    project: GitProject, discord_: DiscordServer, tmp_path: Path
) -> None:
    ours, server = project.copy(tmp_path / "ours"), discord_
    first, other = (redness(tmp_path / f"{sharpness}.onnx", sharpness).read_bytes() for sharpness in (50, 20))
    lock = (ours.folder / "dvc.lock").read_text()
    for version, md5 in ((2, _cached(ours, b"no model")), (3, _md5(other))):
        (ours.folder / "dvc.lock").write_text(lock.replace(_md5(first), md5))
        ours.commit()
        ours.tag(f"moderator@v{version}.0.0", "HEAD", version)
    _cached(ours, b"replaced", md5=_md5(other))

    def assign(version: int) -> None:
        ours.tag(f"moderator#prod#{version}", f"moderator@v{version}.0.0^{{commit}}", 10 + version)

    def refused() -> list[str]:
        return [line["event"] for line in bot.log() if "keeps serving" in line["event"]]

    async def judged() -> tuple[str]:
        """The model that a picture is judged by now."""
        sent = await server.post(server.channel, server.user, "", [red()])
        await bot.until(lambda: bot.verdicts(sent))
        (row,) = bot.rows("SELECT model FROM decisions WHERE message_id = ?", sent)
        return row

    stage = ("--model", "moderator#prod", "--poll", "0.2", "--repo", str(ours.folder))
    async with BotProcess(server, tmp_path, *stage) as bot:
        await bot.healthy(model="moderator@v1.0.0")
        assign(2)
        await bot.until(lambda: len(refused()) == 1)
        assert "is no ONNX model" in refused()[0]
        assign(3)
        await bot.until(lambda: len(refused()) == 2)
        assert f"has the md5 {_md5(b'replaced')}, but dvc.lock has" in refused()[1]
        assert await judged() == ("moderator@v1.0.0",)
        _cached(ours, other)
        await bot.healthy(model="moderator@v3.0.0")  # it was tried again
        assert await judged() == ("moderator@v3.0.0",)
        assert len(refused()) == 2, "what was said is not said again"


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def _cached(project: GitProject, data: bytes, md5: str = "") -> str:
    """Put a file into DVC's cache, under its own md5 or a false one, which is returned."""
    md5 = md5 or _md5(data)
    file = project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)  # it may be write-protected, and linked to others
    file.write_bytes(data)
    return md5
