"""Pictures that the bot could not look at: posted while it was away, in a flood, or while the CDN was down."""

from __future__ import annotations

from pathlib import Path

import pytest
from bot_process import BotProcess
from discord_server import DiscordServer
from room import Room
from tiny import blue, red

pytestmark = pytest.mark.asyncio(loop_scope="module")


def waiting(bot: BotProcess) -> int:
    ((count,),) = bot.rows("SELECT count(*) FROM retries") or [(0,)]
    return int(count)


async def test_what_was_posted_while_the_bot_was_away_is_caught_up(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        before = await room.post(red(1))
        await bot.until(lambda: room.entries)
        assert await bot.stopped() == 0
    missed = [await room.post(red(2)), *[await room.post(blue(number)) for number in range(5)]]
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.until(lambda: all(map(bot.verdicts, missed)))
        await bot.until(lambda: len(room.entries) == 2)
        assert {before, missed[0]} <= server.deleted.keys()

        # A lost session: Discord does not deliver what came meanwhile.
        await server.drop(4000, away=0.5, forget=True)
        lost = [await room.post(red(3)), await room.post(blue(9))]
        await bot.until(lambda: all(map(bot.verdicts, lost)))
        later = await room.post(blue(10))
        await bot.until(lambda: bot.verdicts(later))
        await bot.until(lambda: len(room.entries) == 3)
        assert (await bot.metrics())['mlpy_recovered_total{kind="message",result="checked"}'] >= 8
        assert [bot.verdicts(message) for message in (*missed, *lost)] == [
            ["flagged"], *[["clean"]] * 5, ["flagged"], ["clean"]
        ]  # fmt: skip
        assert server.invalid == 1, "the session was not resumed"


async def test_of_a_flood_everything_is_judged_in_the_end_and_others_do_not_wait(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    """The flood fills the queue at once; the other server's pictures come last, and none of them is refused."""
    server = discord_
    quiet = next(guild for guild in server.guilds if guild != server.guild)
    channel = next(iter(server.guilds[quiet]["channels"]))
    async with BotProcess(server, tmp_path, "--queue", "16", *workspace) as bot:
        await bot.healthy()
        flood = [await server.post(server.channel, server.user, "", [blue(number)]) for number in range(300)]
        ben = server.add_user("ben")
        server.guilds[quiet]["members"][ben] = server._member(ben, [])
        others = [await server.post(channel, ben, "", [blue(1000 + number)]) for number in range(5)]
        await bot.until(lambda: all(map(bot.verdicts, others)))
        assert [bot.verdicts(message) for message in others] == [["clean"]] * 5
        unjudged = sum(line.get("verdict") == "overloaded" for line in bot.log())
        assert unjudged > 200, "the flood was refused meanwhile"
        await bot.until(lambda: all(bot.verdicts(message) == ["clean"] for message in flood))
        await bot.until(lambda: not waiting(bot))
        assert (await bot.metrics())['mlpy_recovered_total{kind="picture",result="judged"}'] >= unjudged


async def test_a_picture_that_could_not_be_fetched_is_tried_again_even_after_a_restart(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        room = await Room.furnished(server, server.guild)
        down = server.fail("GET", f"/attachments/{room.channel}/*", 503, times=10**6)
        sent, gone = await room.post(red(1)), await room.post(red(2))
        await bot.until(lambda: bot.verdicts(sent) == bot.verdicts(gone) == ["unreachable"])
        await bot.until(lambda: waiting(bot) == 2)
        assert await bot.stopped() == 0
    server.remove(gone)
    down["times"] = 0
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.until(lambda: sent in server.deleted and room.entries)
        assert bot.verdicts(sent) == ["flagged"]
        await bot.until(lambda: not waiting(bot))
        assert len(room.entries) == 1


async def test_an_event_that_cannot_be_parsed_is_counted_and_the_bot_goes_on(
    discord_: DiscordServer, workspace: tuple[str, ...], tmp_path: Path
) -> None:
    server = discord_
    async with BotProcess(server, tmp_path, *workspace) as bot:
        await bot.healthy()
        place = {"guild_id": str(server.guild), "channel_id": str(server.channel)}
        nobody = {"author": {"id": "not a number"}, "mentions": []}
        events = [
            ("MESSAGE_CREATE", {"id": "7", **place, **nobody}),
            ("MESSAGE_UPDATE", {**place, **nobody}),
            ("CHANNEL_CREATE", {"id": None, "type": 0, **place}),
            ("GUILD_ROLE_CREATE", {**place, "role": []}),
        ]
        for event, data in events:
            server.emit(event, data)
        sent = await server.post(server.channel, server.user, "", [blue(1)])
        await bot.until(lambda: bot.verdicts(sent) == ["clean"])
        assert (await bot.metrics())['mlpy_errors_total{where="event"}'] >= 3
        assert server.identifies == 1, "it kept its session"
