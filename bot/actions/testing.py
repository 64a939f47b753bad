"""A harmless picture through the whole bot, to the mod-log: so that moderators see an entry before they need one."""

from __future__ import annotations

import io
import uuid

import discord
from PIL import Image, ImageDraw

from bot.actions.discord_calls import DISCORD_ERRORS, describe_error
from bot.actions.modlog import Entry, build_entry
from bot.actions.picking import list_pictures
from bot.actions.review import AUTHOR_FIELD, review_view
from bot.actions.telling import modlog_channel, modlog_problem
from bot.pictures.examining import Finding, blurred_jpeg
from bot.pictures.judging import sha256_of
from bot.pictures.references import Reference
from bot.rules.policy import Action, GuildPolicy, apply_rules
from bot.services import Services
from bot.storage.tables import PLANNED, Job
from stages.inference import PictureError
from stages.inference.sidecar import verdict

SIDE = 256
"""Of the picture, px."""
TEST = "Test"
"""How a test's entry begins, and what stands where a real one names the message."""


class TestFailedError(Exception):
    """Why the test did not succeed: a clause."""

    __test__ = False  # pytest takes a class of this name for tests


def draw_picture() -> bytes:
    """A green hill below a blue sky, with a yellow sun: PNG bytes."""
    image = Image.new("RGB", (SIDE, SIDE), (150, 200, 235))
    draw = ImageDraw.Draw(image)
    draw.ellipse((170, 30, 220, 80), fill=(250, 220, 90))
    draw.ellipse((-60, 150, 320, 420), fill=(90, 160, 90))
    draw.text((10, 10), "test picture", fill=(40, 60, 80))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


async def post_test(services: Services, guild: discord.Guild, policy: GuildPolicy, asker: discord.Member) -> str:
    """Score a drawn picture and post its entry to the mod-log. Nothing is stored. Returns a link to the entry.

    Raises:
        TestFailedError: if the picture cannot be scored or the entry cannot be posted.
    """
    channel, problem = modlog_channel(guild, policy), modlog_problem(guild, policy)
    if channel is None or problem:
        raise TestFailedError(problem)
    try:
        finding, thumbnail = await _examine(services, guild, policy)
    except PictureError as error:
        raise TestFailedError(f"the picture could not be checked ({error.reason})") from error
    entry = Entry.of([finding], finding.outcome, Action.LOG, [])
    job = Job(uuid.uuid4().hex, guild.id, channel.id, asker.id, None, PLANNED, 0, 0, entry.to_json(), 0)
    embed, files = build_entry(job, entry, [thumbnail])
    embed.title = f"{TEST}: {embed.title}"
    embed.colour = discord.Colour.light_grey()
    embed.timestamp = discord.utils.utcnow()
    embed.set_field_at(0, name=AUTHOR_FIELD, value=f"the bot, for {asker.mention}")
    embed.set_field_at(1, name="Message", value=f"{TEST}: there is none. The buttons of a real entry work.")
    view = review_view(job.channel_id, job.message_id, list_pictures(entry_pictures(entry)))
    for item in view.children:
        if isinstance(item, discord.ui.DynamicItem):
            item.item.disabled = True
    try:
        posted = await channel.send(
            embed=embed, files=files, view=view, allowed_mentions=discord.AllowedMentions.none()
        )
    except DISCORD_ERRORS as error:
        raise TestFailedError(describe_error(error)) from error
    return posted.jump_url


def entry_pictures(entry: Entry) -> list[tuple[str, str]]:
    """Key and description of each picture."""
    return [(key, text) for key, text in entry.pictures]


async def _examine(services: Services, guild: discord.Guild, policy: GuildPolicy) -> tuple[Finding, bytes]:
    """The finding on the drawn picture, and its blurred thumbnail."""
    judge, model = services.judge, services.serving.current
    sidecar = model.predictor.sidecar
    data = await judge.run_in_thread(draw_picture)
    decoded = await judge.decode(data, model.predictor, sha256_of(data), (guild.id, 0))
    scores = await judge.scores(model.predictor, decoded)
    outcome = apply_rules(scores, policy.server_rules(sidecar))
    reference = Reference("attachment:0", "test picture", "")
    finding = Finding(reference, verdict(scores, sidecar), "model", outcome, model.release.version, scores)
    return finding, await judge.run_in_thread(blurred_jpeg, decoded.thumbnail())
