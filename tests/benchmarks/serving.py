"""The bot under load: python tests/benchmarks/serving.py [--rate 50] [--seconds 60] [--messages 10000].

This process is Discord (API, gateway and CDN on loopback) and the posters; the bot is a process of its own, with the
model of the working tree and SQLite. Both share the machine. The exit code is 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import random
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "bot"))
sys.path.insert(0, str(Path(__file__).parents[1] / "bot/attacks"))

from bot_process import ROOT, BotProcess
from discord_server import DiscordServer
from hostile import KINDS as HOSTILE
from hostile import different

LAG_MS, IDLE_MB, GROWTH_MB, QUIET_MS = 20, 300, 5, 2000
ATTACKED_MB, ATTACKED_SECONDS = 500, 2
DECISION = re.compile(r'"event": "decision".*?"message_id": (\d+).*?"verdict": "(\w+)".*?"timestamp": "([^"]+)"')


def drawn(rng: np.random.Generator) -> Iterator[bytes]:
    """The sample board's pictures at 1000 px as people post them: PNG, or JPEG with a camera's grain; 100 to 300 kB."""
    kinds = itertools.cycle(("PNG", "JPEG"))
    kind = next(kinds)
    for shard in sorted((ROOT / "data/download/shards").glob("*.parquet")):
        for data in pq.read_table(shard, columns=["bytes"])["bytes"]:
            image = Image.open(io.BytesIO(data.as_py())).convert("RGBA")
            scale = 1000 / max(image.size)
            image = image.resize([max(1, round(side * scale)) for side in image.size])
            sheet = Image.new("RGB", image.size, "white")
            sheet.paste(image, mask=image.getchannel("A"))
            if kind == "JPEG":
                grain = rng.normal(0, 5, (*sheet.size[::-1], 1))
                sheet = Image.fromarray(np.clip(np.asarray(sheet) + grain, 0, 255).astype(np.uint8))
            out = io.BytesIO()
            sheet.save(out, kind, quality=90)
            if 100_000 < out.tell() < 300_000:
                kind = next(kinds)
                yield out.getvalue()


def small(count: int, rng: np.random.Generator) -> list[bytes]:
    """Pictures of 128 px."""
    made = []
    for _ in range(count):
        out = io.BytesIO()
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8))).save(out, "PNG")
        made.append(out.getvalue())
    return made


def renewed(data: bytes, number: int) -> bytes:
    """The same picture with a comment of its own, so that its bytes are new to the bot and the work is the same."""
    note = b"number\0%d" % number
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + data[2:]
    chunk = b"tEXt" + note
    return data[:-12] + struct.pack(">I", len(note)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]


class Load:
    """What is posted to one bot, and what became of it."""

    def __init__(self, bot: BotProcess, server: DiscordServer, pictures: list[bytes], channel: int = 0) -> None:
        self.bot, self.server, self.pictures = bot, server, pictures
        self.channel = channel or server.channel
        self.count = 0
        """Pictures that were ever posted."""
        self.posted: dict[int, float] = {}
        self.latency: dict[int, float] = {}
        self.verdicts: Counter[str] = Counter()
        self.memory: list[float] = []
        """Resident MB, second by second."""
        self._offset = 0
        self._part = ""

    async def post(self, channel: int | None = None) -> int:
        """One message with one picture that was never posted before. Returns its id."""
        data = renewed(self.pictures[self.count % len(self.pictures)], self.count)
        self.count += 1
        now = time.time()
        message = await self.server.post(channel or self.channel, self.server.user, "", [data])
        self.posted[message] = now
        return message

    def read(self) -> int:
        """Read on in the bot's log; how many pictures are under way."""
        with self.bot.output.open() as log:
            log.seek(self._offset)
            *lines, self._part = (self._part + log.read()).split("\n")
            self._offset = log.tell()
        for line in lines:
            if found := DECISION.search(line):
                message, verdict, stamp = int(found[1]), found[2], datetime.fromisoformat(found[3]).timestamp()
                if message not in self.posted:
                    continue  # another load's
                self.latency[message] = stamp - self.posted[message]
                self.verdicts[verdict] += 1
        return len(self.posted) - len(self.latency)

    def _tree(self) -> list[psutil.Process]:
        """The bot and all its processes."""
        bot = psutil.Process(self.bot.process.pid)
        return [bot, *bot.children(recursive=True)]

    def resident(self) -> float:
        """MB of the whole tree; what several of its processes share counts once."""
        total = 0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 2**20

    def cpu(self) -> float:
        """Seconds that the tree has worked, but for processes that have ended."""
        total = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    async def watch(self, seconds: float = 1) -> None:
        """Note its memory, as often as that."""
        while True:
            self.memory.append(self.resident())
            await asyncio.sleep(seconds)

    async def settled(self, most: int = 0) -> None:
        """Wait until no more than so many pictures are under way."""
        while self.read() > most:
            assert self.bot.process.returncode is None, self.bot.text()[-2000:]
            await asyncio.sleep(0.02)

    async def lost(self) -> int:
        """Pictures without a decision in the database, where it comes a little later than in the log."""
        for _ in range(20):
            (stored,) = self.bot.rows("SELECT count(DISTINCT message_id) FROM decisions")[0]
            if stored == self.count:
                break
            await asyncio.sleep(0.25)
        return self.count - int(stored)

    async def closed(self, seconds: float, at_a_time: int) -> float:
        """Pictures a second, if the next is posted when one is done."""
        start, before = time.monotonic(), len(self.latency)
        while (took := time.monotonic() - start) < seconds:
            while self.read() < at_a_time:
                await self.post()
            await asyncio.sleep(0.01)
        return (len(self.latency) - before) / took

    async def open(self, rate: float, seconds: float, rng: random.Random) -> None:
        """Post at that mean rate, as independent people do, whatever becomes of it."""
        due = start = time.monotonic()
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.post()
            due += rng.expovariate(rate)


def lags(metrics: dict[str, float]) -> dict[float, float]:
    """Cumulated counts by ms of the loop's lag."""
    found = {}
    for name, value in metrics.items():
        if edge := re.fullmatch(r'mlpy_loop_lag_seconds_bucket\{le="(.+)"\}', name):
            found[float(edge[1]) * 1000] = value
    return found


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The bucket's edge, in ms, that this share of what came between is below."""
    counts = {edge: after[edge] - before[edge] for edge in after}
    return min(edge for edge, count in counts.items() if count >= share * max(counts.values()))


class Report:
    """A table of figures and their bounds."""

    def __init__(self) -> None:
        self.missed: list[str] = []
        self._say("| what | figure | bound |\n|---|---|---|")

    def _say(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201 - the command's answer

    def row(self, what: str, figure: str, bound: str = "", *, met: bool = True) -> None:
        self._say(f"| {what} | {figure} | {bound if met else f'**{bound}: missed**'} |")
        if not met:
            self.missed.append(what)


@asynccontextmanager
async def started(
    given: argparse.Namespace, folder: Path, guilds: int = 1, window: int = 300, limited: bool = False
) -> AsyncIterator[tuple[BotProcess, DiscordServer]]:
    """A bot and its Discord, where its guilds are in shadow mode, as at first."""
    words = ("--model", given.model, "--threads", str(given.threads), *(("--repo", given.repo) if given.repo else ()))
    async with (
        DiscordServer(guilds=guilds, keep=False, window=window, limited=limited) as server,
        BotProcess(server, folder, *words) as bot,
    ):
        await bot.healthy()
        yield bot, server
        code = await bot.stopped()
        assert code == 0, bot.text()[-2000:]


async def messages(given: argparse.Namespace, folder: Path, report: Report) -> None:
    """Many messages, each with a small picture: does memory grow once the bot remembers as much as it ever does?"""
    made = small(500, np.random.default_rng(1))
    async with started(given, folder) as (bot, server):
        load = Load(bot, server, made)
        for number in range(given.messages):
            await load.post()
            await load.settled(32)
            if number and number % (given.messages // 10) == 0:
                load.memory.append(load.resident())
        await load.settled()
        load.memory.append(load.resident())
        lost = await load.lost()
        report.row(f"of {given.messages} messages, without a decision in the database", str(lost), "0", met=not lost)
        shown = ", ".join(f"{each:.0f}" for each in load.memory)
        growth = load.memory[-1] - load.memory[1]
        report.row("resident after each tenth of them", f"{shown} MB", "")
        bound = f"< {GROWTH_MB} MB"
        report.row("growth from the second tenth to the last", f"{growth:.1f} MB", bound, met=growth < GROWTH_MB)


async def attack(given: argparse.Namespace, folder: Path, report: Report) -> None:
    """One server posts hostile pictures of every kind, some at a time; another one ordinary pictures, two a second."""
    ordinary = list(itertools.islice(drawn(np.random.default_rng(0)), 50))
    hostile = {name: make() for name, make in HOSTILE.items() if not given.only or name in given.only}
    async with started(given, folder, guilds=2) as (bot, server):
        victim = Load(bot, server, ordinary)
        attacker = Load(bot, server, [], channel=list(server.channels)[1])
        await victim.open(2, 10, random.Random(0))
        await victim.settled()
        shown = np.percentile(list(victim.latency.values()), [50, 95]) * 1000
        report.row(
            "before the attack: post to decision, p50 / p95", " / ".join(f"{each:.0f}" for each in shown) + " ms"
        )
        victim.latency.clear()
        victim.posted.clear()
        before = await bot.metrics()
        tasks = [
            asyncio.create_task(victim.watch(0.2)),
            asyncio.create_task(keep_posting(attacker, hostile, given.hostile)),
        ]
        await victim.open(2, given.seconds, random.Random(0))
        await victim.settled()
        for task in tasks:
            task.cancel()
        after = await bot.metrics()
        p50, p95, longest = np.percentile(list(victim.latency.values()), [50, 95, 100])
        verdicts = ", ".join(f"{count} {name}" for name, count in attacker.verdicts.most_common())
        report.row("hostile pictures", f"{len(attacker.posted)} posted, {given.hostile} at a time: {verdicts}")
        shown_verdicts = ", ".join(f"{count} {name}" for name, count in victim.verdicts.most_common())
        report.row("the other server's pictures", f"{len(victim.posted)}: {shown_verdicts}")
        figure = f"{p50 * 1000:.0f} / {p95 * 1000:.0f} / {longest * 1000:.0f} ms"
        bound = f"p95 < {ATTACKED_SECONDS} s"
        report.row("its post to decision, p50 / p95 / longest", figure, bound, met=p95 < ATTACKED_SECONDS)
        p99 = quantile(lags(before), lags(after), 0.99)
        report.row("event loop's lag, p99", f"< {p99:g} ms", f"< {LAG_MS} ms", met=p99 <= LAG_MS)
        most = max(victim.memory)
        report.row("memory of all processes, most", f"{most:.0f} MB", f"< {ATTACKED_MB} MB", met=most < ATTACKED_MB)


async def keep_posting(attacker: Load, hostile: dict[str, bytes], at_a_time: int) -> None:
    """Keep so many hostile pictures under way."""
    for _, data in different(hostile):
        await attacker.settled(at_a_time - 1)
        now = time.time()
        message = await attacker.server.post(attacker.channel, attacker.server.user, "", [("a.png", data)])
        attacker.posted[message] = now


async def pictures(given: argparse.Namespace, folder: Path, report: Report) -> None:
    """Idle, then as fast as it goes, then at the rate."""
    rng = np.random.default_rng(0)
    made = list(itertools.islice(drawn(rng), given.pictures))
    sizes = [len(data) / 1000 for data in made]
    async with started(given, folder) as (bot, server):
        load = Load(bot, server, made)
        await asyncio.sleep(3)
        idle = load.resident()
        report.row("resident, idle", f"{idle:.0f} MB", f"< {IDLE_MB} MB", met=idle < IDLE_MB)
        await load.closed(5, 8)
        limits = [await load.closed(given.probe / 3, 32) for _ in range(3)]
        await load.settled()
        report.row("limit, 32 at a time, three times", f"{', '.join(f'{each:.1f}' for each in limits)} pictures/s")
        rate = given.rate if given.beyond else min(given.rate, 0.9 * min(limits))
        seen = f"{len(made)}, {min(sizes):.0f} to {max(sizes):.0f} kB, mean {np.mean(sizes):.0f}; no bytes twice"
        report.row("different pictures", seen)
        for each in (load.latency, load.posted, load.verdicts):
            each.clear()
        before, cpu, own = await bot.metrics(), load.cpu(), time.process_time()
        watching = asyncio.create_task(load.watch())
        await load.open(rate, given.seconds, random.Random(0))
        await load.settled()
        watching.cancel()
        after, number = await bot.metrics(), len(load.posted)
        cpu, own = load.cpu() - cpu, time.process_time() - own
        lost = await load.lost()
        turned = number - load.verdicts["flagged"] - load.verdicts["clean"]
        report.row("posted", f"{number} in {given.seconds:.0f} s, {number / given.seconds:.1f}/s")
        report.row("of all posted, without a decision in the database", str(lost), "0", met=not lost)
        report.row("overloaded, or not judged for another reason", str(turned), "0", met=given.beyond or not turned)
        took = np.percentile(list(load.latency.values()), [50, 99, 100]) * 1000
        report.row("post to decision, p50 / p99 / longest", " / ".join(f"{each:.0f}" for each in took) + " ms")
        p50, p99 = (quantile(lags(before), lags(after), share) for share in (0.5, 0.99))
        report.row("event loop's lag, p50 / p99", f"< {p50:g} / < {p99:g} ms", f"p99 < {LAG_MS} ms", met=p99 <= LAG_MS)
        parts = [float(np.mean(part)) for part in np.array_split(load.memory[len(load.memory) // 6 :], 5)]
        growth = parts[-1] - parts[0]
        shown = ", ".join(f"{part:.0f}" for part in parts)
        report.row("resident, a sixth of the time each after the first", f"{shown} MB")
        report.row("growth between these", f"{growth:.1f} MB", f"< {GROWTH_MB} MB", met=growth < GROWTH_MB)
        report.row("CPU a picture, bot + Discord", f"{1000 * cpu / number:.1f} + {1000 * own / number:.1f} ms")


async def flood(given: argparse.Namespace, folder: Path, report: Report) -> None:
    """One author posts hundreds of pictures in one server: how long do those of another server take?"""
    made = list(itertools.islice(drawn(np.random.default_rng(0)), given.pictures))
    async with started(given, folder, guilds=2, window=4 * given.flood) as (bot, server):
        load = Load(bot, server, made)
        quiet = next(int(id) for id, channel in server.channels.items() if int(channel["guild_id"]) != server.guild)
        await load.closed(5, 8)
        await load.settled()
        for _ in range(given.flood):
            await load.post()
        others, rng = [], random.Random(0)
        while len(others) < given.flood // 10:
            await asyncio.sleep(rng.expovariate(2))
            others.append(await load.post(quiet))
        await load.settled()
        took = np.percentile([load.latency[message] for message in others], [50, 95, 100])
        shown = " / ".join(f"{1000 * each:.0f}" for each in took)
        report.row(
            f"{given.flood} pictures at once in one server, of which at first refused", str(load.verdicts["overloaded"])
        )
        bound = f"p95 < {QUIET_MS} ms"
        what = f"{len(others)} pictures of another server, post to decision, p50 / p95 / longest"
        report.row(what, f"{shown} ms", bound, met=1000 * took[1] < QUIET_MS)


async def wave(given: argparse.Namespace, folder: Path, report: Report) -> None:
    """Hijacked accounts post one picture in every channel at once, under Discord's rate limits.

    Each account posts in the next channel after a quarter of a second, as long as it is not timed out.
    """
    for action in ("timeout", "delete"):
        (folder / action).mkdir()
        report.row(f"**action {action}**: accounts, channels", f"{given.accounts}, {given.rooms}")
        await hijacked(given, folder / action, report, action)


async def hijacked(given: argparse.Namespace, folder: Path, report: Report, action: str) -> None:
    """One wave, and what the shield with this action makes of it."""
    (picture,) = small(1, np.random.default_rng(0))
    async with started(given, folder, window=5000, limited=True) as (bot, server):
        guild = server.guild
        hidden = [{"id": str(guild), "type": 0, "allow": "0", "deny": str(1 << 10)}]
        modlog = server.add_channel(guild, "mod-log", permission_overwrites=hidden)
        rooms = [server.channel, *(server.add_channel(guild, f"room-{number}") for number in range(given.rooms - 1))]
        accounts = [server.add_member(guild, f"hijacked-{number}") for number in range(given.accounts)]
        for name, options in (
            ("channel modlog", {"channel": modlog}),
            ("policy set", {"mode": "enforce"}),
            ("shield set", {"on": True, "action": action}),
        ):
            await server.answer(await server.slash(name, options, server.owner, server.channel))
        before, start = server.counts.copy(), time.monotonic()
        times: dict[int, float] = {}

        async def attack(account: int) -> int:
            for done, room in enumerate(rooms):
                if server.guilds[guild]["members"][account]["communication_disabled_until"]:
                    return len(rooms) - done
                times[await server.post(room, account, "free nitro", [("win.png", picture)])] = time.monotonic()
                await asyncio.sleep(0.25)
            return 0

        stopped = sum(await asyncio.gather(*map(attack, accounts)))
        await bot.until(lambda: times.keys() <= server.deleted.keys())
        gone = time.monotonic()
        await bot.until(lambda: len(server.posted(modlog)) >= given.accounts)
        told = time.monotonic() - start
        counts = server.counts - before
        report.row("copies posted; not posted, for the author was timed out", f"{len(times)}; {stopped}")
        report.row("from the first copy until the last is gone", f"{gone - start:.1f} s", "")
        report.row("from the last copy until the last is gone", f"{gone - max(times.values()):.1f} s", "")
        for what, route in (
            ("single deletions", "DELETE /channels/{channel}/messages/{message} 204"),
            ("deletions of several messages at once", "POST /channels/{channel}/messages/bulk-delete 204"),
            ("time-outs", "PATCH /guilds/{guild}/members/{user} 200"),
        ):
            report.row(what, str(counts[route]))
        refused = sum(count for route, count in counts.items() if route.endswith(" 429"))
        report.row("requests that Discord refused as too many", str(refused))
        report.row("until the last of the entries is posted, one an account", f"{told:.1f} s")
        entries = len(server.posted(modlog))
        report.row("entries", str(entries), str(given.accounts), met=entries == given.accounts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50, help="pictures a second, at most 90 % of the limit [50]")
    parser.add_argument("--beyond", action="store_true", help="post at that rate even if it is above the limit")
    parser.add_argument("--model", default="workspace", help="as the bot takes it [workspace]", metavar="NAME")
    parser.add_argument("--repo", help="git repository with the model [this one]", metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=60, help="at that rate [60]")
    parser.add_argument("--probe", type=float, default=30, help="seconds that the limit is measured for [30]")
    parser.add_argument("--pictures", type=int, default=300, help="different ones [300]")
    parser.add_argument("--messages", type=int, default=10_000, help="of the second part, for memory [10000]")
    parser.add_argument("--threads", type=int, default=2, help="of the bot that judge [2]")
    parser.add_argument("--flood", type=int, default=500, help="pictures at once in one server [500]")
    parser.add_argument("--hostile", type=int, default=10, help="hostile pictures under way in the last part [10]")
    parser.add_argument("--only", action="append", metavar="KIND", help="of hostile pictures [every kind]")
    parser.add_argument("--accounts", type=int, default=10, help="of the wave [10]")
    parser.add_argument("--rooms", type=int, default=12, help="channels of the wave [12]")
    names = ("pictures", "messages", "flood", "attack", "wave")
    parser.add_argument("--part", choices=names, action="append", help="only that [all]")
    given = parser.parse_args()
    report = Report()
    parts: dict[str, Callable[..., Awaitable[None]]] = dict(
        zip(names, (pictures, messages, flood, attack, wave), strict=True)
    )
    for name in given.part or parts:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(parts[name](given, Path(folder), report))
    return int(bool(report.missed))


if __name__ == "__main__":
    sys.exit(main())
