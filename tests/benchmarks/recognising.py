"""Recognising re-posted pictures: python tests/benchmarks/recognising.py --shards FOLDER --split FOLDER [--set report].

Remembers some pictures of the sample board, changes others of them as people do who post them again, and looks them up:
recall by change, before (the 64-bit pHash within 4 bits) and now. A stranger is a picture of no group of a remembered
one; its share that is recognised all the same is printed for the thresholds of `bot.pictures.recognising`.

The method was chosen on the changes and pictures of `--set choose`; `--set report` has other pictures and changes.
`--sizes 1000 100000` measures a look-up instead: milliseconds and memory with so many pictures remembered.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

sys.path.insert(0, str(Path(__file__).parents[2]))

from bot.pictures import copies, recognising
from bot.pictures.copies import Sighting
from bot.pictures.copy_index import CopyIndex
from stages.inference.decoding import UNCAPPED, first_frame, letterbox
from stages.inference.phash import inside, phash

BEFORE_BITS = 4
BACKGROUND = 128
MAX_SIDE = 1024
Change = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def scaled(share: float, across: float = 1.0) -> Change:
    return lambda image: image.resize(
        (max(1, round(image.width * share * across)), max(1, round(image.height * share))), Image.Resampling.LANCZOS
    )


def cropped(left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Change:
    """Shares of each side that are cut off."""

    def change(image: Image.Image) -> Image.Image:
        x, y = round(image.width * left), round(image.height * top)
        return image.crop(
            (x, y, max(x + 1, round(image.width * (1 - right))), max(y + 1, round(image.height * (1 - bottom))))
        )

    return change


def bordered(colour: tuple[int, int, int], share: float) -> Change:
    return lambda image: ImageOps.expand(image, max(1, round(max(image.size) * share)), colour)


def screenshot(back: tuple[int, int, int], front: tuple[int, int, int]) -> Change:
    """Bars above and below as a phone shows a picture, with words and buttons."""

    def change(image: Image.Image) -> Image.Image:
        bar, side = max(8, image.height // 4), max(2, image.width // 20)
        framed = ImageOps.expand(image, (side, bar, side, bar), back)
        draw = ImageDraw.Draw(framed)
        for button in range(4):
            left = framed.width * (button + 1) // 5
            draw.ellipse((left, framed.height - bar // 2, left + bar // 4, framed.height - bar // 4), fill=front)
        draw.text((side, bar // 4), "someone  12:41", front, font=ImageFont.load_default(size=max(8, bar // 4)))
        return framed

    return change


def chat(image: Image.Image) -> Image.Image:
    """The picture across a tall phone's screen, below a message."""
    width, height = (
        image.width + 2 * max(2, image.width // 25),
        max(round(image.width * 1.5), round(image.height * 1.3)),
    )
    screen, size, top = (
        Image.new("RGB", (width, height), (49, 51, 56)),
        max(8, width // 18),
        (height - image.height) // 2,
    )
    screen.paste(image, ((width - image.width) // 2, top))
    draw, font = ImageDraw.Draw(screen), ImageFont.load_default(size=size)
    draw.rectangle((0, 0, width, size * 2), fill=(30, 31, 34))
    draw.text((size, size // 2), "# general", (240, 240, 240), font=font)
    draw.text((3 * size, top - round(1.7 * size)), "Alice 21:03", (235, 235, 235), font=font)
    draw.rounded_rectangle(
        (size // 2, height - 2 * size, width - size // 2, height - size // 2), size // 2, (56, 58, 64)
    )
    return screen


def banner(text: str, above: bool, colour: tuple[int, int, int], share: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        bar = max(10, round(image.height * share))
        whole = Image.new("RGB", (image.width, image.height + bar), colour)
        whole.paste(image, (0, bar if above else 0))
        ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
        font = ImageFont.load_default(size=max(8, min(bar // 2, image.width // 10)))
        middle = (image.width // 2, bar // 2 if above else image.height + bar // 2)
        ImageDraw.Draw(whole).text(middle, text, ink, font=font, anchor="mm")
        return whole

    return change


def written(text: str, height: float, colour: tuple[int, int, int], parts: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        captioned, font = image.copy(), ImageFont.load_default(size=max(10, image.height / parts))
        outline = (255 - colour[0], 255 - colour[1], 255 - colour[2])
        place = (image.width // 2, round(image.height * height))
        ImageDraw.Draw(captioned).text(place, text, colour, font=font, anchor="mm", stroke_width=2, stroke_fill=outline)
        return captioned

    return change


def turned(degrees: float, colour: tuple[int, int, int], expand: bool = False) -> Change:
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, expand=expand, fillcolor=colour)


def hue(degrees: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        values = np.array(image.convert("HSV"))
        values[..., 0] = (values[..., 0].astype(int) + round(degrees / 360 * 256)) % 256
        return Image.fromarray(values, "HSV").convert("RGB")

    return change


def chain(*changes: Change) -> Change:
    def change(image: Image.Image) -> Image.Image:
        for each in changes:
            image = each(image)
        return image

    return change


DARK, LIGHT = ((24, 25, 28), (220, 220, 225)), ((250, 250, 252), (40, 42, 48))
CHOOSE: dict[str, Change] = {
    "none": lambda image: image,
    "JPEG 30": jpeg(30),
    "half size": scaled(0.5),
    "crop to 80 %": cropped(0.1, 0.1, 0.1, 0.1),
    "5 % off the left": cropped(left=0.05),
    "5 % off the bottom": cropped(bottom=0.05),
    "black border 6 %": bordered((0, 0, 0), 0.06),
    "screenshot, dark": screenshot(*DARK),
    "screenshot of a chat": chat,
    "banner above": banner("WHEN YOU SEE IT", True, (255, 255, 255), 0.2),
    "banner below": banner("FOLLOW FOR MORE", False, (20, 20, 20), 0.2),
    "line of text": written("when you see it", 0.75, (255, 255, 255), 14),
    "mirrored": ImageOps.mirror,
    "turned by 5°": turned(5, (128, 128, 128)),
    "turned by -3°": turned(-3, (255, 255, 255)),
    "hue +60°": hue(60),
    "saturation 0.3": lambda image: ImageEnhance.Color(image).enhance(0.3),
    "brightness 1.4": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "brightness 0.6": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "grey": lambda image: image.convert("L").convert("RGB"),
}
REPORT: dict[str, Change] = {
    "JPEG 20": jpeg(20),
    "0.4 of its size": scaled(0.4),
    "a corner, 80 % each side": cropped(right=0.2, bottom=0.2),
    "5 % off the right": cropped(right=0.05),
    "5 % off the top": cropped(top=0.05),
    "white border 10 %": bordered((255, 255, 255), 0.1),
    "coloured border 4 %": bordered((180, 30, 90), 0.04),
    "screenshot, light": screenshot(*LIGHT),
    "banner above, 30 %": banner("LOOK AT THIS", True, (0, 0, 0), 0.3),
    "banner below, yellow": banner("subscribe", False, (255, 220, 40), 0.15),
    "red text": written("who made this?", 0.3, (255, 40, 40), 12),
    "mirrored, 5 % off each side": chain(ImageOps.mirror, cropped(0.05, 0.05, 0.05, 0.05)),
    "turned by -5°, larger": turned(-5, (0, 0, 0), True),
    "turned by 4°": turned(4, (255, 255, 255)),
    "hue -90°": hue(-90),
    "saturation 2": lambda image: ImageEnhance.Color(image).enhance(2),
    "brightness 1.25": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "brightness 0.5": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "contrast 0.6": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "sepia": lambda image: ImageOps.colorize(image.convert("L"), (40, 20, 0), (255, 240, 200)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 250)),
    "mirrored, text, half, JPEG 50": chain(
        ImageOps.mirror, written("lol same", 0.2, (255, 230, 0), 14), scaled(0.5), jpeg(50)
    ),
    "90 %, screenshot, JPEG 60": chain(cropped(0.05, 0.05, 0.05, 0.05), screenshot(*LIGHT), jpeg(60)),
    "wider by a tenth": scaled(1, 1.1),
}
SETS = {"choose": CHOOSE, "report": REPORT}


def say(*cells: str) -> None:
    print(*cells, sep="  ", flush=True)  # noqa: T201 - the command's answer


def opaque(data: bytes) -> Image.Image:
    """A picture of the board on the model's background, at most `MAX_SIDE`."""
    image = first_frame(data, MAX_SIDE, UNCAPPED, BACKGROUND)
    side = min(MAX_SIDE, max(image.size))
    return Image.fromarray(inside(letterbox(image, side, BACKGROUND), *image.size))


def seen(task: tuple[bytes, str, str]) -> tuple[Sighting, int]:
    """What the bot makes of a changed picture: as `bot.pictures.decoding` does, after lossless encoding."""
    data, chosen, name = task
    image = (SETS[chosen][name] if name else CHOOSE["none"])(opaque(data)).convert("RGB")
    frame = inside(letterbox(image, copies.SIDE, BACKGROUND), *image.size)
    return copies.sight(frame), phash(inside(letterbox(image, 224, BACKGROUND), *image.size))


def board(shards: Path, split: Path) -> dict[int, tuple[int, bytes]]:
    """Id -> group and bytes."""
    groups: dict[int, int] = {}
    for file in sorted(split.glob("*.parquet")):
        table = pq.read_table(file, columns=["image_id", "group"])
        groups.update(zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    pictures = {}
    for file in sorted(shards.glob("*.parquet")):
        table = pq.read_table(file, columns=["image_id", "bytes"])
        for number, data in zip(table["image_id"].to_pylist(), table["bytes"].to_pylist(), strict=True):
            if number in groups:
                pictures[number] = (groups[number], data)
    return pictures


def recall(options: argparse.Namespace) -> None:
    pictures = board(options.shards, options.split)
    groups = sorted({group for group, _ in pictures.values()})
    random.Random(7).shuffle(groups)
    mine = set(groups[: len(groups) // 2] if options.set == "choose" else groups[len(groups) // 2 :])
    pool = sorted(number for number, (group, _) in pictures.items() if group in mine)
    random.Random(3).shuffle(pool)
    remembered = pool[: options.remembered]
    known = {pictures[number][0] for number in remembered}
    strangers = [number for number in pool[options.remembered :] if pictures[number][0] not in known]
    strangers = strangers[: options.strangers]
    names = list(SETS[options.set])
    asked = remembered[: options.pictures]
    tasks = [(number, "") for number in [*remembered, *strangers]] + [(n, name) for name in names for n in asked]
    with ProcessPoolExecutor(options.processes) as pool_of_processes:
        jobs = [(pictures[number][1], options.set, name) for number, name in tasks]
        sightings = dict(zip(tasks, pool_of_processes.map(seen, jobs, chunksize=8), strict=True))
    index = CopyIndex()
    prints = [sightings[number, ""][0].fingerprint for number in remembered]
    index.extend(prints)
    by_row = dict(enumerate(prints))
    hashes = np.array([sightings[number, ""][1] for number in remembered], np.uint64)
    recognising.LIKELY = 0.0

    def look_up(number: int, name: str) -> tuple[float, float, bool]:
        """Similarity to the most similar of its group, and of others; whether the old way finds it."""
        sighting, old = sightings[number, name]
        same = other = 0.0
        for proposal in index.propose(sighting):
            match = recognising.recognise(sighting, [proposal], by_row)
            if match is not None and pictures[remembered[match.row]][0] == pictures[number][0]:
                same = max(same, match.similarity)
            elif match is not None:
                other = max(other, match.similarity)
        near = np.bitwise_count(hashes ^ np.uint64(old)) <= BEFORE_BITS if 16 <= old.bit_count() <= 48 else []
        found = {pictures[remembered[row]][0] for row in np.flatnonzero(near)}
        group = pictures[number][0]
        return same, other, group in found if name else bool(found - {group})

    start = time.process_time()
    unknown = np.array([look_up(number, "") for number in strangers])
    say(f"{(time.process_time() - start) / max(1, len(strangers)) * 1e3:.1f} ms a look-up of {len(remembered)}")
    results = {name: np.array([look_up(number, name) for number in asked]) for name in names}
    levels = [0.85, 0.9, 0.94, 0.96, 0.97, 0.98, 0.99]
    say("change".ljust(32), "before", *(f"{level:.2f}" for level in levels))
    for name, rows in results.items():
        shares = [(rows[:, 0] >= level).mean() for level in levels]
        say(name.ljust(32), f"{rows[:, 2].mean():6.2f}", *(f"{share:.2f}" for share in shares))
    shares = [100 * (unknown[:, 1] >= level).mean() for level in levels]
    say("% of strangers".ljust(32), f"{100 * unknown[:, 2].mean():6.2f}", *(f"{each:4.1f}" for each in shares))
    if options.keep:
        np.savez(options.keep, unknown=unknown, **results)


def sizes(options: argparse.Namespace) -> None:
    """Milliseconds and memory with generated pictures remembered: the board's features, in other combinations."""
    pictures = board(options.shards, options.split)
    chosen = sorted(pictures)[:: max(1, len(pictures) // 150)][:150]
    start = time.process_time()
    sightings = [seen((pictures[number][1], "choose", ""))[0] for number in chosen]
    say(f"{(time.process_time() - start) / len(chosen) * 1e3:.1f} ms to decode a picture and describe it")
    features = [each.fingerprint for each in sightings if len(each.fingerprint.words)]
    words, signs = (np.concatenate([getattr(each, name) for each in features]) for name in ("words", "signs"))
    rng = np.random.default_rng(0)
    index, by_row = CopyIndex(), {}
    say("remembered", "MB", "ms a look-up, median", "ms, 95 %")
    for size in options.sizes:
        while len(index) < size:
            batch = []
            for _ in range(min(20_000, size - len(index))):
                base = features[int(rng.integers(len(features)))]
                taken = rng.integers(0, len(words), len(base.words))
                # Nearly every feature is in some bits another one.
                noise = np.uint64(1) << rng.integers(0, 64, (8, len(taken))).astype(np.uint64)
                others = signs[taken] ^ np.bitwise_xor.reduce(noise, axis=0)
                batch.append(replace(base, words=words[taken], signs=others, pdq=rng.bytes(32)))
            first = index.extend(batch)
            by_row.update((first + place, each) for place, each in enumerate(batch) if place < 50)
        took = []
        for sighting in sightings:
            start = time.process_time()
            proposals = index.propose(sighting)
            fingerprints = {each.row: by_row.get(each.row, features[0]) for each in proposals}
            recognising.recognise(sighting, proposals, fingerprints)
            took.append((time.process_time() - start) * 1e3)
        say(f"{size:,}", f"{index.nbytes / 1e6:.1f}", f"{np.median(took):.2f}", f"{np.percentile(took, 95):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, default=Path("data/download/shards"))
    parser.add_argument("--split", type=Path, default=Path("data/split"))
    parser.add_argument("--set", choices=list(SETS), default="choose")
    parser.add_argument("--remembered", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=100, help="remembered ones that are changed")
    parser.add_argument("--strangers", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="file for all similarities")
    parser.add_argument("--sizes", type=int, nargs="*", help="measure look-ups with so many remembered, ascending")
    options = parser.parse_args()
    sizes(options) if options.sizes else recall(options)


if __name__ == "__main__":
    main()
