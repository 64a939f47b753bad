"""Renders the pictures of the READMEs: `python tests/pictures/render.py [--only review]`, after `dvc repro`.

report.webp is the top of `data/test/report.html`. review.webp is an entry of the mod-log: the real bot flags a picture
of the sample board in a simulated Discord, and a small page draws the message that it sent there. wave.webp is an entry
about the same picture in several channels. All need Chromium
(`apt-get install chromium chromium-driver`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import html
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import discord
import pyarrow.parquet as pq
import pytest
import simcord.backend.cdn
from aiohttp import web
from PIL import Image
from selenium import webdriver
from simcord.env import Env

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(ROOT / "tests/bot/simulated"), str(ROOT / "tests/bot")]

from world import SimulatedCdn, SimulatedServer  # noqa: E402

from bot.rules.policy import Mode  # noqa: E402
from bot.rules.shield import ShieldPolicy  # noqa: E402
from bot.rules.strikes import StrikePolicy  # noqa: E402
from stages.workspace import paths, shards  # noqa: E402

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
WIDTH = 1280
"""Of the browser's window, px."""
MARGIN = 32
"""Around what is cut out of the page, px."""
MOST_BYTES = 150_000
PICTURE = 5451
"""The image of the sample board that is posted: a playing card, which the policy `house` flags."""
ROOMS = ("art", "games", "music", "help")
"""Channels of the wave, besides the first."""
STYLES = {1: "#5865f2", 2: "#4e5058", 3: "#248046", 4: "#da373c"}
"""Colours of Discord's button styles: primary, secondary, success, danger."""


@contextmanager
def browser(scale: float = 1.0) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--force-device-scale-factor={scale:g}"):
        options.add_argument(flag)
    chromium, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver_program):
        raise SystemExit("Chromium is missing: apt-get install chromium chromium-driver")
    options.binary_location = chromium
    # Named, or Selenium would look for one on the network.
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_program))
    try:
        yield driver
    finally:
        driver.quit()


def report(page: Path) -> Image.Image:
    """The report from its title to the first row of curves."""
    with browser() as driver:
        driver.set_window_size(WIDTH, 4000)
        driver.get(page.resolve().as_uri())
        left, right, bottom = driver.execute_script(
            "const [title, curve] = [document.querySelector('h1'), document.querySelector('svg, img')]"
            ".map(element => element.getBoundingClientRect());"
            "return [title.left, innerWidth - title.left, curve.bottom]"
        )
        screen = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
    return screen.crop((round(left) - MARGIN, 0, round(right) + MARGIN, round(bottom) + MARGIN // 2))


def review(model: Path, folder: Path, wave: bool = False) -> Image.Image:
    """The entry that the bot posts for `PICTURE`, or for a wave of it, as Discord's dark theme shows it."""
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "entry.html"
        page.write_text(asyncio.run(posted(model, picture(folder, PICTURE), Path(scratch), wave)), encoding="utf-8")
        with browser(scale=2) as driver:
            driver.set_window_size(WIDTH, 1200)
            driver.get(page.as_uri())
            element = driver.find_element("id", "message")
            return Image.open(io.BytesIO(element.screenshot_as_png))


def picture(folder: Path, image_id: int) -> bytes:
    """The bytes of one image of the downloaded shards."""
    for shard in shards.files(folder):
        rows = pq.read_table(shard, filters=[("image_id", "=", image_id)], columns=["bytes"])
        if len(rows):
            data: bytes = rows["bytes"][0].as_py()
            return data
    raise SystemExit(f"image {image_id} is not in {folder}; run `dvc repro download`")


async def posted(model: Path, data: bytes, scratch: Path, wave: bool = False) -> str:
    """Post a picture in a simulated server; the bot's entry in the mod-log as a page of HTML.

    Once, in review mode; or as a wave, in five channels at once in enforce mode.
    """
    cdn = SimulatedCdn()
    app = web.Application()
    app.router.add_get("/{path:.*}", cdn.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cdn.base = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simcord.backend.cdn, "CDN_BASE", cdn.base)
        world = SimulatedServer(cdn, model, scratch)
        await world.parts()
        env = Env(world.bot, shard_count=1, settle_timeout=60)
        await env.start()
        world.furnish(env)
        patch.setattr("bot.actions.shielding.QUIET", 0.0)
        rooms = [world.general, *(world.guild.create_text_channel(name) for name in ROOMS if wave)]
        await env.settle()
        if wave:
            await world.policy(Mode.ENFORCE, rules=(), shield=ShieldPolicy(on=True), strikes=StrikePolicy(ban=3))
            for room in rooms:
                files = env.backend.store_attachments(room.id, [("win.png", data)])
                env.backend.create_message(room.id, world.alice.id, "", attachments=files)
        else:
            await world.policy(Mode.REVIEW)
            await world.post(data)
        await env.settle()
        (entry,) = world.entries()
        names = {str(member.id): f"@{member.name}" for member in (world.alice, world.mod)}
        names |= {str(channel.id): f"#{channel.name}" for channel in (*rooms, world.modlog)}
        thumbnails = [env.backend.cdn.get(attachment.url) or b"" for attachment in entry.attachments]
        text = page(entry, names, thumbnails)
        await env.shutdown()
        await world.close()
    await runner.cleanup()
    return text


def page(message: discord.Message, names: dict[str, str], thumbnails: list[bytes]) -> str:
    """A message of the bot's as HTML. `names` of users and channels by id stand for mentions and links."""
    embed = message.embeds[0]
    fields = "".join(
        f"<div class='{'inline' if field.inline else 'field'}'><b>{html.escape(field.name or '')}</b>"
        f"<div>{marked(field.value or '', names)}</div></div>"
        for field in embed.fields
    )
    colour = embed.colour.value if embed.colour else 0x202225
    images = "".join(
        f"<div class='spoiler'><img src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'></div>"
        for data in thumbnails
    )
    buttons = "".join(
        f"<span class='button' style='background: {STYLES[button.style.value]}'>{button.label}</span>"
        for row in message.components
        if isinstance(row, discord.ActionRow)
        for button in row.children
        if isinstance(button, discord.Button)
    )
    content = f"<div>{marked(message.content, names)}</div>" if message.content else ""
    return f"""<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #313338 }}
#message {{ width: 600px; padding: 16px; box-sizing: border-box; background: #313338; color: #dbdee1; display: grid;
  grid-template-columns: 40px 1fr; column-gap: 16px; font: 15px/1.35 "Noto Sans", "DejaVu Sans", sans-serif }}
.avatar {{ width: 40px; height: 40px; border-radius: 50%; background: #5865f2; color: #fff; display: grid;
  place-items: center; font-weight: 600 }}
.author {{ color: #f2f3f5; font-weight: 600 }}
.app {{ background: #5865f2; color: #fff; font-size: 10px; font-weight: 600; border-radius: 3px; padding: 1px 5px;
  margin-left: 4px; vertical-align: 2px }}
.embed {{ background: #2b2d31; border-left: 4px solid #{colour:06x}; border-radius: 4px; padding: 10px 16px 14px 12px;
  margin-top: 4px; max-width: 480px; font-size: 14px }}
.title {{ color: #f2f3f5; font-weight: 600; font-size: 16px; margin-bottom: 6px }}
.fields {{ display: flex; flex-wrap: wrap; gap: 8px 24px; margin-top: 8px }}
.fields b {{ color: #f2f3f5; font-size: 13px }}
.field {{ flex-basis: 100% }}
.footer {{ color: #b5bac1; font-size: 12px; margin-top: 8px }}
.mention {{ background: #3c4270; color: #c9cdfb; border-radius: 3px; padding: 0 2px }}
.spoiler {{ display: inline-block; position: relative; margin-top: 6px; border-radius: 8px; overflow: hidden }}
.spoiler img {{ display: block; height: 160px }}
.button {{ display: inline-block; color: #fff; border-radius: 4px; padding: 7px 14px; margin: 8px 8px 0 0;
  font-size: 14px; font-weight: 500 }}
</style>
<div id="message"><div class="avatar">ML</div><div>
<div><span class="author">MLpy</span><span class="app">APP</span></div>
{content}{f"<div>{images}</div>" if images else ""}
<div class="embed"><div class="title">{marked(embed.title or "", names)}</div>
<div>{marked(embed.description or "", names)}</div>
<div class="fields">{fields}</div>
<div class="footer">{html.escape(embed.footer.text or "")}</div></div>
<div>{buttons}</div></div></div>"""


def marked(text: str, names: dict[str, str]) -> str:
    """Discord's markdown of an entry as HTML: bold, mentions, links to messages, lines."""
    text = html.escape(text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(
        r"&lt;(?:@!?|#)(\d+)&gt;",
        lambda match: f"<span class='mention'>{names.get(match[1], match[1])}</span>",
        text,
    )
    text = re.sub(
        r"https://discord\.com/channels/\d+/(\d+)/\d+",
        lambda match: f"<span class='mention'>{names.get(match[1], match[1])} › message</span>",  # noqa: RUF001
        text,
    )
    return text.replace("\n", "<br>")


def save(image: Image.Image, target: Path) -> None:
    """Write WebP, at the best quality that keeps the file below `MOST_BYTES`."""
    for quality in (92, 85, 75, 60):
        image.convert("RGB").save(target, "WEBP", quality=quality, method=6)
        if target.stat().st_size < MOST_BYTES:
            break
    print(  # noqa: T201 - the command's answer
        f"{target.relative_to(ROOT)}: {image.width}x{image.height}, {target.stat().st_size // 1000} kB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["report", "review", "wave"], help="render one of them [both]")
    parser.add_argument("--report", type=Path, default=ROOT / paths.REPORT)
    parser.add_argument("--model", type=Path, default=ROOT / paths.MODEL, help="with its side-car beside it")
    parser.add_argument("--shards", type=Path, default=ROOT / paths.SHARDS)
    options = parser.parse_args()
    if options.only in (None, "report"):
        save(report(options.report), HERE / "report.webp")
    for name in ("review", "wave"):
        if options.only in (None, name):
            save(review(options.model, options.shards, name == "wave"), HERE / f"{name}.webp")


if __name__ == "__main__":
    main()
