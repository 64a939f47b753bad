"""The tests' Discord server, under a bare client that knows nothing of it."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager

import discord
import pytest
from discord import app_commands
from discord.ext import commands
from discord_server import DiscordServer
from PIL import Image

INTENTS = discord.Intents(guilds=True, guild_messages=True, message_content=True)


def picture(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


class RecordingBot(commands.AutoShardedBot):
    def __init__(self, intents=INTENTS, **more):
        super().__init__("!", intents=intents, guild_ready_timeout=0.05, **more)
        self.seen, self.gone, self.resumed, self.came = [], [], 0, asyncio.Event()

    async def on_ready(self):
        self.came.set()

    async def before_identify_hook(self, shard_id, *, initial=False):
        """Not five seconds a shard."""

    async def on_message(self, message):
        self.seen.append(message)

    async def on_raw_message_delete(self, payload):
        self.gone.append(payload.message_id)

    async def on_resumed(self):
        self.resumed += 1

    def contents(self):
        return [message.content for message in self.seen]


@asynccontextmanager
async def running(server, bot):
    with pytest.MonkeyPatch.context() as patch:
        server.point(patch)
        task = asyncio.create_task(bot.start(server.token))
        ready = asyncio.create_task(bot.came.wait())
        try:
            await asyncio.wait([task, ready], timeout=120, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield bot
        finally:
            ready.cancel()
            await bot.close()
            await asyncio.wait([task], timeout=120)


@pytest.fixture
async def server():
    async with DiscordServer() as server:
        yield server


@pytest.fixture
async def bot(server):
    async with running(server, RecordingBot()) as bot:
        yield bot
    assert not server.errors


async def test_a_picture_is_fetched_answered_and_deleted(server, bot):
    sent = await server.post(server.channel, server.user, "look", [("it's red.png", picture())])
    await server.until(lambda: bot.seen)
    message = bot.seen[0]
    attachment = message.attachments[0]
    assert (message.id, message.content, message.author.id) == (sent, "look", server.user)
    assert isinstance(message.author, discord.Member)
    assert (attachment.filename, attachment.content_type) == ("it_s_red.png", "image/png")
    assert (attachment.width, attachment.height, attachment.size) == (8, 6, len(picture()))
    assert await attachment.read() == picture()

    embed = discord.Embed(title="seen").set_image(url="attachment://copy.png")
    reply = await message.reply("got it", file=discord.File(io.BytesIO(picture("blue")), "copy.png"), embed=embed)
    posted = server.posted()[-1]
    assert posted["message_reference"]["message_id"] == str(sent)
    assert posted["embeds"][0]["image"]["url"] == reply.attachments[0].url
    assert await reply.attachments[0].read() == picture("blue")

    await message.delete()
    await server.until(lambda: bot.gone == [sent] and len(bot.seen) == 2)  # it also hears of its own doing
    assert sent in server.deleted
    assert server.asked("DELETE", f"/channels/{server.channel}/messages/{sent}") == [204]
    assert [int(message["id"]) for message in server.posted(server.channel)] == [reply.id]
    assert not server.unknown


async def test_limits_and_failures_are_waited_out(server, bot):
    channel = bot.get_channel(server.channel)
    path = f"/channels/{server.channel}/messages"
    server.fail("POST", "/channels/*/messages", 429, retry_after=0.3)
    before = asyncio.get_running_loop().time()
    await channel.send("slowly")
    assert asyncio.get_running_loop().time() - before >= 0.3
    assert server.asked("POST", path) == [429, 200]

    server.fail("POST", "/channels/*/messages", 500, after=True)  # the message is there, only the answer is not
    server.fail("POST", "/channels/*/messages", 502, body="<html>Bad gateway</html>")
    await channel.send("once")
    assert server.asked("POST", path)[2:] == [500, 502, 200]
    assert [message["content"] for message in server.posted()] == ["slowly", "once"]

    server.fail("DELETE", "*", 429, retry_after=0.05, global_=True)
    server.fail("DELETE", "*", 403)
    with pytest.raises(discord.Forbidden):
        await channel.get_partial_message(int(server.posted()[-1]["id"])).delete()
    with pytest.raises(discord.HTTPException, match="empty message"):
        await channel.send("")
    with pytest.raises(discord.NotFound):
        await bot.http.request(discord.http.Route("GET", "/nowhere"))
    assert server.unknown == [("GET", "/nowhere")]


async def test_missed_events_arrive_after_a_resume(server, bot):
    await server.post(server.channel, server.user, "before")
    await server.drop(away=0.3)
    for text in ("one", "two"):
        await server.post(server.channel, server.user, text)
    await server.until(lambda: bot.resumed == 1)
    await server.post(server.channel, server.user, "after")
    await server.until(lambda: "after" in bot.contents())
    await server.drop(None)  # the line goes dead
    await server.post(server.channel, server.user, "three")
    await server.until(lambda: bot.resumed == 2)
    await server.until(lambda: "three" in bot.contents())
    assert bot.contents() == ["before", "one", "two", "after", "three"]
    assert (server.identifies, server.resumes, len(server.sessions)) == (1, 2, 1)

    await server.drop(forget=True)
    await server.post(server.channel, server.user, "lost")
    await server.until(lambda: server.identifies == 2)
    await server.until(lambda: server.sessions)
    await server.post(server.channel, server.user, "found")
    await server.until(lambda: "found" in bot.contents())
    assert "lost" not in bot.contents()
    assert server.invalid == 1


class Buttons(discord.ui.View):
    @discord.ui.button(label="Approve", custom_id="approve")
    async def approve(self, interaction, button):
        button.disabled = True
        await interaction.response.edit_message(content=f"approved by {interaction.user.name}", view=self)


async def test_buttons(server, bot):
    message = await bot.get_channel(server.channel).send("judge", view=Buttons())
    answer = await server.answer(await server.click(message.id, "approve", server.owner))
    assert (answer["id"], answer["content"]) == (str(message.id), "approved by owner")
    with pytest.raises(LookupError):
        await server.click(message.id, "approve", server.owner)


async def test_slash_commands(server, bot):
    group = app_commands.Group(name="policy", description="Rules", default_permissions=discord.Permissions(8))

    @group.command(name="set", description="Set a threshold")
    async def set_(interaction: discord.Interaction, axis: str, value: float, where: discord.TextChannel | None = None):
        await interaction.response.defer(thinking=True, ephemeral=True)
        allowed = interaction.permissions.administrator
        await interaction.followup.send(f"{axis} {value} {where} {interaction.user.name} {allowed}")
        await interaction.followup.send("and more", file=discord.File(io.BytesIO(b"a,b"), "rows.csv"))

    bot.tree.add_command(group)
    assert {command.name for command in await bot.tree.sync()} == {"policy"}
    options = {"axis": "sexual", "value": 0.5, "where": server.channel}
    used = await server.slash("policy set", options, server.owner, server.channel)
    await server.until(lambda: used.followups)
    assert server.messages[used.original]["content"] == "sexual 0.5 general owner True"
    assert server.messages[used.original]["flags"] == 64
    assert (await server.answer(used))["attachments"][0]["filename"] == "rows.csv"
    with pytest.raises(LookupError):
        await server.slash("policy set", {"axis": "sexual"}, server.owner, server.channel)


async def test_shards_and_what_the_intents_leave_out():
    few = discord.Intents(guilds=True, guild_messages=True)
    async with DiscordServer(guilds=4, shards=2, keep=False, window=20) as server:
        async with running(server, RecordingBot(few)) as bot:  # it asks how many shards to start
            assert bot.shard_count == server.identifies == 2
            channels = [next(iter(guild["channels"])) for guild in server.guilds.values()]
            for number in range(400):
                await server.post(channels[number % 4], server.user, f"n {number}", [picture()])
            await server.post(channels[0], server.user, f"hi <@{server.bot}>")
            await server.until(lambda: len(bot.seen) == 401)
            assert [guild.shard_id for guild in sorted(bot.guilds, key=lambda guild: guild.id)].count(0) == 2
        assert {m.content for m in bot.seen[:-1]} | {bot.seen[-1].content} == {"", f"hi <@{server.bot}>"}
        assert not any(message.attachments for message in bot.seen)
        assert (len(server.messages), len(server.uploads), server.counts["MESSAGE_CREATE"]) == (20, 20, 401)
        assert not server.sessions  # it left for good


async def test_a_login_needs_the_token_and_the_intents():
    async with DiscordServer(privileged=False) as server:
        with pytest.MonkeyPatch.context() as patch:
            server.point(patch)
            with pytest.raises(discord.PrivilegedIntentsRequired):
                await RecordingBot().start(server.token)
        server.token = "another"
        with pytest.MonkeyPatch.context() as patch:
            server.point(patch)
            async with RecordingBot() as bot:
                with pytest.raises(discord.LoginFailure):
                    await bot.login("wrong")
