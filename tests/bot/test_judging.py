"""The queue before the model, with a real one: scores, limits, failures, and an event loop that is never held up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from containers import drawing, encoded
from tinted import KINDS, SIZE, file, predictor
from waiting import until

from bot.pictures.decoding import DecodedPicture, frames_and_sighting
from bot.pictures.judging import Judge, JudgeCaps, sha256_of, worst_frame_scores
from stages.inference.decoding import Caps, pixels
from stages.inference.phash import phash
from stages.inference.predictor import Predictor
from stages.workspace.errors import PictureError

CAPS = JudgeCaps(queue=4, threads=2, batch=8)
Models = dict[str, Predictor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("tinted")
    return {kind: predictor(folder, kind) for kind in KINDS}


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Judge]]:
    """Makes a judge; when the test is over, no task of it may be left."""
    judges: list[Judge] = []

    def made(**caps: Any) -> Judge:
        judges.append(Judge(replace(CAPS, **caps)))
        return judges[-1]

    before = asyncio.all_tasks()
    async with asyncio.timeout(1800):
        yield made
    for judge in judges:
        judge.close()
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}
    assert not any(judge.admitted for judge in judges)


def seen(model: Predictor, data: bytes) -> DecodedPicture:
    return DecodedPicture.of(
        sha256_of(data), *frames_and_sighting(data, model.sidecar.size, 128, Caps(), 8, 5.0, describe=True)
    )


def shade(number: int) -> tuple[int, int, int]:
    return (number * 37 % 256, number * 101 % 256, number * 59 % 256)


async def test_a_picture_is_decoded_and_hashed(models: Models, make: Any) -> None:
    data = encoded([drawing(0, 80, 40)], "PNG")
    decoded = await make().decode(data, models["binary"], sha256_of(data), (1, 1))
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    assert (decoded.seen.frames == pixels(data, SIZE)[None]).all()
    assert decoded.thumbnail().shape == (SIZE // 2, SIZE, 3)
    assert decoded.phash == phash(decoded.thumbnail())


@pytest.mark.parametrize(
    ("caps", "data"),
    [
        ({"max_bytes": 100}, encoded([drawing()], "PNG")),
        ({"max_pixels": 59_999}, encoded([drawing()], "PNG")),
        ({}, b"<html>"),
    ],
)
async def test_the_caps_hold(models: Models, caps: dict[str, int], data: bytes, make: Any) -> None:
    with pytest.raises(PictureError, match="too_large" if caps else "corrupt"):
        await make(**caps).decode(data, models["binary"], "", (1, 1))


async def test_the_number_of_frames_is_limited(models: Models, make: Any) -> None:
    data = file(*map(shade, range(9)), kind="GIF")
    assert len((await make(frames=3).decode(data, models["binary"], "", (1, 1))).seen.frames) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_the_score_of_a_still_picture_is_the_predictors(models: Models, kind: str, make: Any) -> None:
    for data in (file("red"), file("blue", kind="JPEG"), file("white", kind="WEBP")):
        results = await make().scores(models[kind], seen(models[kind], data))
        assert results == pytest.approx(models[kind].judge([data])[0].scores, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "risen", "sunk"),
    [("binary", ["red"], ["blue"]), ("multiclass", ["red", "green"], ["blue"]), ("multilabel", ["red", "blue"], [])],
)
@pytest.mark.parametrize("order", [("red", "blue", "lime"), ("blue", "lime", "red"), ("lime", "red", "blue")])
async def test_the_worst_frame_counts(
    models: Models, kind: str, risen: list[str], sunk: list[str], order: tuple[str, ...], make: Any
) -> None:
    model = models[kind]
    frames = [model.judge([file(colour)])[0].scores for colour in order]
    results = await make().scores(model, seen(model, file(*order, kind="GIF")))
    assert results.keys() == frames[0].keys()
    for label in risen:
        assert results[label] == pytest.approx(max(each[label] for each in frames), abs=1e-6)
    for label in sunk:
        assert results[label] == pytest.approx(min(each[label] for each in frames), abs=1e-6)
    assert all(isinstance(score, float) for score in results.values()), "they go into JSON"


def test_the_worst_of_one_frame_is_itself(models: Models) -> None:
    assert worst_frame_scores(np.array([[0.25, 0.75]], np.float32), models["binary"]) == {"red": 0.25, "blue": 0.75}


class Counting(Predictor):
    """Notes how many pictures it is given at a time."""

    batches: list[int]

    def score(self, pictures: Any) -> Any:
        self.__dict__.setdefault("batches", []).append(len(pictures))
        return super().score(pictures)


async def test_a_batch_gives_the_scores_of_one_by_one(models: Models, tmp_path: Path, make: Any) -> None:
    predictor(tmp_path)
    model, judge = Counting(tmp_path / "binary.onnx"), make()
    model.batches.clear()
    files = [file(*(shade(number + each) for each in range(number % 4 + 1)), kind="GIF") for number in range(40)]
    looks = [seen(models["binary"], data) for data in files]
    together = await asyncio.gather(*(judge.scores(model, each) for each in looks))
    assert sum(model.batches) == sum(len(each.seen.frames) for each in looks)
    assert max(model.batches) <= CAPS.batch
    assert len(model.batches) < 25
    alone = [await judge.scores(model, each) for each in looks]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


async def test_pictures_for_different_models_are_kept_apart(models: Models, make: Any) -> None:
    judge = make()
    asked = [(models[KINDS[number % 3]], file(shade(number))) for number in range(30)]
    results = await asyncio.gather(*(judge.scores(model, seen(model, data)) for model, data in asked))
    for (model, data), scores in zip(asked, results, strict=True):
        assert scores == pytest.approx(model.judge([data])[0].scores, abs=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
async def test_every_picture_is_scored_in_any_order_of_arrival(models: Models, threads: int, make: Any) -> None:
    judge, model = make(threads=threads, batch=2), models["binary"]
    one = seen(model, file("red"))

    async def ask(times: int) -> None:
        for _ in range(times):
            await judge.scores(model, one)  # the next one is asked for in the moment that the queue runs empty

    async with asyncio.timeout(1800):
        await ask(30)
        await asyncio.gather(*(ask(20) for _ in range(threads)))
        await asyncio.gather(*(ask(10) for _ in range(30)))


async def test_a_failure_reaches_all_callers_and_later_pictures_are_scored(models: Models, make: Any) -> None:
    judge, model = make(threads=1), models["binary"]
    good = seen(model, file("red"))
    bad = replace(good, seen=replace(good.seen, frames=np.zeros((1, 16, 16, 3), np.uint8)))
    assert await judge.scores(model, good)
    failed = await asyncio.gather(*(judge.scores(model, bad) for _ in range(3)), return_exceptions=True)
    assert [type(each).__name__ for each in failed] == ["InvalidArgument"] * 3
    mixed = await asyncio.gather(judge.scores(model, bad), *(judge.scores(model, good) for _ in range(20)),
                                 return_exceptions=True)  # fmt: skip
    assert isinstance(mixed[0], Exception)
    assert mixed[-1] == await judge.scores(model, good)


async def test_a_cancelled_caller_does_not_affect_others(models: Models, make: Any) -> None:
    judge, model = make(threads=1, batch=3), models["binary"]
    looks = [seen(model, file(shade(number))) for number in range(12)]
    tasks = [asyncio.create_task(judge.scores(model, each)) for each in looks]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, scores in enumerate(results):
        assert isinstance(scores, asyncio.CancelledError) if number % 2 == 0 else scores["red"] >= 0


async def test_closing_the_judge_ends_waiting_calls(models: Models, make: Any) -> None:
    judge, model = make(threads=1, batch=1), models["binary"]
    started, release = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(1800)

    blocked = asyncio.create_task(judge.run_in_thread(block))
    await until(started.is_set)
    tasks = [asyncio.create_task(judge.scores(model, seen(model, file("red")))) for _ in range(5)]
    await until(lambda: len(judge._score_queue) == 4)  # the thread's next work holds the first one
    judge.close()
    async with asyncio.timeout(1800):
        results = await asyncio.gather(*tasks, judge.scores(model, seen(model, file("red"))), return_exceptions=True)
        release.set()
        await blocked
    assert all(isinstance(each, (asyncio.CancelledError, RuntimeError)) for each in results)


def children_time() -> float:
    """CPU time of the decoding processes."""
    return sum(child.cpu_times().user for child in psutil.Process().children(recursive=True))


async def test_the_event_loop_is_never_blocked(models: Models, make: Any) -> None:
    judge, model = make(queue=50), models["binary"]
    data = encoded([drawing(0, 1300, 900)], "PNG")
    bursts: list[float] = []

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.005)
            bursts.append(time.thread_time() - last)
            last = time.thread_time()

    async def judged(number: int) -> dict[str, float]:
        async with judge.queue.turn(1, number):
            mine = data + bytes([number])
            sha256 = await judge.run_in_thread(sha256_of, mine)
            return await judge.scores(model, await judge.decode(mine, model, sha256, (1, number)))

    ticking = asyncio.create_task(tick())
    start, start_below = time.process_time(), children_time()
    assert len(await asyncio.gather(*map(judged, range(50)))) == 50
    took = time.process_time() - start + children_time() - start_below
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    # Of the processor's time, which other processes on the machine do not change.
    assert max(bursts) < took / 10, "in the loop's own thread, one burst would be nearly all of it"
    assert sum(bursts) < took / 2, "the worker threads do most of it"
    assert len(bursts) > 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_worker_threads_have_a_lower_priority(make: Any) -> None:
    def priority() -> tuple[int, int]:
        return threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    mine, before = priority()
    worker, lower = await make().run_in_thread(priority)
    assert worker != mine
    assert lower == min(19, 10)
    assert priority()[1] == before
