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

INTENTS = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True, members=True)


def picture(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


class RecordingBot(commands.AutoShardedBot):
    def __init__(self, intents=INTENTS, **more):
        super().__init__("!", intents=intents, guild_ready_timeout=0.05, **more)
        self.seen, self.edits, self.gone, self.resumed, self.came = [], [], [], 0, asyncio.Event()

    async def on_ready(self):
        self.came.set()

    async def before_identify_hook(self, shard_id, *, initial=False):
        """Not five seconds a shard."""

    async def on_message(self, message):
        self.seen.append(message)

    async def on_raw_message_edit(self, payload):
        self.edits.append(payload.message)

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
    await reply.edit(content="got it again")
    assert server.messages[reply.id]["content"] == "got it again"

    await message.delete()
    await server.until(
        lambda: bot.gone == [sent] and len(bot.seen) == 2 and bot.edits
    )  # it also hears of its own doing
    assert sent in server.deleted
    assert server.asked("DELETE", f"/channels/{server.channel}/messages/{sent}") == [204]
    assert [m.id async for m in bot.get_channel(server.channel).history()] == [reply.id]
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


async def test_what_was_missed_comes_with_the_resume(server, bot):
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
    await server.reconnect()
    await server.until(lambda: bot.resumed == 3)
    await server.post(server.channel, server.user, "four")
    await server.until(lambda: "four" in bot.contents())
    assert bot.contents() == ["before", "one", "two", "after", "three", "four"]
    assert (server.identifies, server.resumes, len(server.sessions)) == (1, 3, 1)

    await server.drop(forget=True)
    await server.post(server.channel, server.user, "lost")
    await server.until(lambda: server.identifies == 2)
    await server.until(lambda: server.sessions)
    await server.post(server.channel, server.user, "found")
    await server.until(lambda: "found" in bot.contents())
    assert "lost" not in bot.contents()
    assert server.invalid == 1


class Form(discord.ui.Modal, title="Why?"):
    reason = discord.ui.TextInput(label="Reason", custom_id="reason")

    async def on_submit(self, interaction):
        await interaction.response.send_message(f"because {self.reason.value}", ephemeral=True)


class Buttons(discord.ui.View):
    @discord.ui.button(label="Approve", custom_id="approve")
    async def approve(self, interaction, button):
        button.disabled = True
        await interaction.response.edit_message(content=f"approved by {interaction.user.name}", view=self)

    @discord.ui.button(label="Why", custom_id="why")
    async def why(self, interaction, _):
        await interaction.response.send_modal(Form())


async def test_buttons_and_forms(server, bot):
    message = await bot.get_channel(server.channel).send("judge", view=Buttons())
    form = await server.click(message.id, "why", server.owner)
    assert (await server.answer(form))["type"] == 9
    answer = await server.answer(await server.submit(form, {"reason": "art"}))
    assert (answer["content"], answer["flags"]) == ("because art", 64)
    answer = await server.answer(await server.click(message.id, "approve", server.owner))
    assert (answer["id"], answer["content"]) == (str(message.id), "approved by owner")
    with pytest.raises(LookupError):
        await server.click(message.id, "approve", server.owner)


async def test_slash_commands_and_menus(server, bot):
    group = app_commands.Group(name="policy", description="Rules", default_permissions=discord.Permissions(8))

    @group.command(name="set", description="Set a threshold")
    async def set_(interaction: discord.Interaction, axis: str, value: float, where: discord.TextChannel | None = None):
        await interaction.response.defer(thinking=True, ephemeral=True)
        allowed = interaction.permissions.administrator
        await interaction.followup.send(f"{axis} {value} {where} {interaction.user.name} {allowed}")
        await interaction.followup.send("and more", file=discord.File(io.BytesIO(b"a,b"), "rows.csv"))

    @app_commands.context_menu(name="Check")
    async def check(interaction: discord.Interaction, message: discord.Message):
        await interaction.response.send_message(f"{len(message.attachments)} in {message.content}")
        await interaction.edit_original_response(content=(await interaction.original_response()).content + "!")

    bot.tree.add_command(group)
    bot.tree.add_command(check)
    assert {command.name for command in await bot.tree.sync()} == {"policy", "Check"}
    options = {"axis": "sexual", "value": 0.5, "where": server.channel}
    used = await server.slash("policy set", options, server.owner, server.channel)
    await server.until(lambda: used.followups)
    assert server.messages[used.original]["content"] == "sexual 0.5 general owner True"
    assert server.messages[used.original]["flags"] == 64
    assert (await server.answer(used))["attachments"][0]["filename"] == "rows.csv"
    seen = await server.post(server.channel, server.user, "this", [picture(), picture()])
    used = await server.menu("Check", seen, server.user, server.channel)
    await server.until(lambda: server.messages.get(used.original, {}).get("content") == "2 in this!")
    with pytest.raises(LookupError):
        await server.slash("policy set", {"axis": "sexual"}, server.owner, server.channel)


async def test_members_threads_and_direct_messages(server, bot):
    guild = bot.get_guild(server.guild)
    assert {member.id for member in guild.members} == {server.bot, server.owner, server.user}  # by chunks
    member = guild.get_member(server.user)
    await member.timeout(discord.utils.utcnow() + discord.utils.datetime.timedelta(minutes=5), reason="spam")
    assert server.guilds[server.guild]["members"][server.user]["communication_disabled_until"]
    await server.until(lambda: guild.get_member(server.user).is_timed_out())
    with pytest.raises(discord.Forbidden):
        await guild.get_member(server.owner).timeout(discord.utils.utcnow() + discord.utils.datetime.timedelta(1))
    await member.send("stop that")
    assert "guild_id" not in server.posted()[-1]
    new = server.add_channel(server.guild, "adults", nsfw=True)
    thread = server.add_thread(new, "inside")
    await server.post(thread, server.add_member(server.guild, "bob"), "<@1> hello", [picture()])
    await server.until(lambda: len(bot.seen) == 2)
    assert isinstance(bot.seen[1].channel, discord.Thread)
    assert bot.seen[1].channel.is_nsfw()
    server.add_guild("later")
    await server.until(lambda: len(bot.guilds) == 2)


async def test_an_embed_comes_with_an_edit(server, bot):
    sent = await server.post(server.channel, server.user, "https://example.org/a.png")
    await server.edit(sent, embeds=[server.embed(picture())])
    await server.until(lambda: bot.edits)
    assert await bot.http.get_from_cdn(bot.edits[0].embeds[0].thumbnail.url) == picture()
    sticker = {"id": "77", "name": "wave", "format_type": 1}
    server.host(picture("green"), "/stickers/77.png")
    await server.post(server.channel, server.user, sticker_items=[sticker])
    await server.until(lambda: len(bot.seen) == 2)
    assert await bot.seen[1].stickers[0].read() == picture("green")


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


async def test_who_may_come_in():
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
