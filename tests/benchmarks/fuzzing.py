"""Mutated files, decoded as the bot does: python tests/benchmarks/fuzzing.py [--files 1000000] [--workers 2].

Each file is a small picture of one of the formats with bytes changed, cut or doubled, or with a number in it set to an
extreme. Files are decoded in the bot's processes, under the slow lane's limits. The exit code is 1 if a decoder
crashed, a file took longer than its limit or more memory, or anything but a `PictureError` was raised.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "bot"))

from containers import drawing, encoded

from stages.inference.decoding import FORMATS, Caps
from stages.inference.frames import frames
from stages.inference.phash import inside, phash
from stages.inference.processes import Limits, Processes
from stages.workspace.errors import PictureError

BATCH = 200
"""Files that one call decodes."""
CAPS = Caps(25_000_000, 25_000_000, 130_000_000)
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)


def seeds() -> list[bytes]:
    """Small files of every format, still and animated, of every mode."""
    still, moving = drawing(1, 24, 16), [drawing(seed, 24, 16) for seed in range(3)]
    modes = [still.convert(mode) for mode in ("1", "L", "LA", "RGBA", "I;16")] + [still.quantize(16)]
    return [
        *(encoded([still], kind) for kind in FORMATS),
        *(encoded([image], "PNG") for image in modes),
        *(encoded([still.convert(mode)], "JPEG", progressive=mode == "RGB") for mode in ("L", "RGB", "CMYK")),
        *(encoded(moving, kind) for kind in ("PNG", "GIF", "WEBP", "AVIF")),
        encoded([still], "WEBP", lossless=False),
        encoded([still], "TIFF", compression="tiff_lzw"),
        encoded([still], "TIFF", compression="jpeg"),
        encoded([still.convert("1")], "TIFF", compression="group4"),
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The file with a few changes."""
    file = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not file:
            break
        at = chance.randrange(len(file)) if chance.random() < 0.6 else chance.randrange(min(64, len(file)))
        end = min(len(file), at + chance.choice((1, 1, 2, 4, 16, 64)))
        change = chance.randrange(6)
        if change == 0:
            file[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            file[at:end] = chance.randbytes(end - at)
        elif change == 2:
            value, width = chance.choice(EXTREMES), chance.choice("BHI")
            number = value & ((1 << 8 * struct.calcsize(width)) - 1)
            packed = struct.pack(chance.choice("<>") + width, number)
            file[at : at + len(packed)] = packed
        elif change == 3:
            file[at:at] = file[at:end] * chance.choice((1, 2, 50))
        elif change == 4:
            del file[at:end]
        else:
            del file[max(1, at) :]
    return bytes(file)


def decode_many(data: bytes, number: int) -> tuple[Counter[str], float]:
    """Decode `BATCH` mutations of a file: outcomes, and the longest time in seconds."""
    chance, outcomes, longest = random.Random(number), Counter[str](), 0.0
    for _ in range(BATCH):
        file, start = mutated(data, chance), time.process_time()
        try:
            seen = frames(file, 32, caps=CAPS, seconds=2)
            phash(inside(seen.frames[0], seen.width, seen.height))
            outcomes["decoded"] += 1
        except PictureError as error:
            outcomes[error.reason] += 1
        except Exception as error:
            outcomes[f"raised {type(error).__name__}: {error}"[:100]] += 1
        longest = max(longest, time.process_time() - start)
    return outcomes, longest


async def fuzz(files: int, workers: int) -> int:
    """Decode that many; the exit code."""
    processes = Processes(Limits(seconds=60, memory=204_000_000), workers)
    sources, outcomes, longest, started = seeds(), Counter[str](), [0.0], time.monotonic()
    numbers = iter(range(files // BATCH))

    async def work() -> None:
        for number in numbers:
            try:
                counts, seconds = await processes.run(decode_many, sources[number % len(sources)], number)
            except PictureError as error:  # of the whole batch: its process was ended
                counts, seconds = Counter({f"batch {number}: {error}": 1}), 0.0
            outcomes.update(counts)
            longest[0] = max(longest[0], seconds)
            if number % 500 == 499:
                print(f"{outcomes.total()} files, {dict(outcomes)}", file=sys.stderr, flush=True)  # noqa: T201

    try:
        await asyncio.gather(*(work() for _ in range(workers)))
    finally:
        processes.close()
    bad = {name: count for name, count in outcomes.items() if name.startswith(("raised", "batch"))}
    minutes = (time.monotonic() - started) / 60
    rate = f"{outcomes.total()} files in {minutes:.1f} minutes"
    print(f"{rate}: {dict(outcomes)}; longest {longest[0]:.2f} s of CPU time")  # noqa: T201
    return int(bool(bad) or longest[0] > 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000, help="to decode [1000000]")
    parser.add_argument("--workers", type=int, default=2, help="processes [2]")
    options = parser.parse_args()
    return asyncio.run(fuzz(options.files, options.workers))


if __name__ == "__main__":
    sys.exit(main())
