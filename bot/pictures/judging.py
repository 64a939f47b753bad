"""Picture bytes -> what the model says, in worker threads behind a bounded queue; the event loop only waits."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from stages.inference.decoding import Caps, Pixels
from stages.inference.frames import Seen, frames
from stages.inference.phash import inside, phash
from stages.inference.predictor import Predictor
from stages.inference.sidecar import decided

Result = TypeVar("Result")


@dataclass(frozen=True)
class JudgeCaps:
    """What judging may cost."""

    max_bytes: int = 25_000_000
    max_pixels: int = 25_000_000
    """Of one frame: decoded it takes four bytes a pixel, and as much again while it is scaled."""
    frames: int = 8
    """Looked at of an animated picture."""
    seconds: float = 5.0
    """For decoding one picture."""
    queue: int = 128
    """Pictures on their way, from before the fetch to the verdict; further ones are turned away."""
    budget: int = 64_000_000
    """Bytes of pictures that are held at a time."""
    threads: int = 2
    batch: int = 2
    """Frames scored in one go: more would not be faster, and each one more costs 15 MB a thread for good."""


class FullError(Exception):
    """The queue is full: the picture is turned away, and its asker decides what that means."""


@dataclass(frozen=True)
class Look:
    """What was seen of one picture, before any score."""

    sha256: str
    """Of its bytes, hex."""
    phash: int
    """Perceptual hash of its first frame, 64 bits, unsigned."""
    seen: Seen

    def thumbnail(self) -> Pixels:
        """The first frame, uint8 [height, width, 3], without borders."""
        return inside(self.seen.frames[0], self.seen.width, self.seen.height)


def digest(data: bytes) -> str:
    """SHA-256 of a picture's bytes, hex: equal bytes are the same picture."""
    return hashlib.sha256(data).hexdigest()


def look(data: bytes, predictor: Predictor, caps: JudgeCaps, sha256: str) -> Look:
    """Decode what `predictor` is to judge.

    Raises:
        PictureError: if it cannot be decoded.
    """
    sidecar = predictor.sidecar
    limits = Caps(caps.max_bytes, caps.max_pixels)
    seen = frames(data, sidecar.size, sidecar.background, limits, caps.frames, caps.seconds)
    return Look(sha256, phash(inside(seen.frames[0], seen.width, seen.height)), seen)


def worst(rows: NDArray[np.float32], predictor: Predictor) -> dict[str, float]:
    """Scores of a picture from those of its frames, [frames, labels]: each label's highest, the harmless one's lowest.

    One bad frame makes a bad picture.
    """
    sidecar = predictor.sidecar
    ruled = decided(sidecar.kind, sidecar.labels)
    return {
        label: float(rows[:, place].max() if label in ruled else rows[:, place].min())
        for place, label in enumerate(sidecar.labels)
    }


class Judge:
    """The queue and its threads. No task of it lives while there is nothing to do."""

    def __init__(self, caps: JudgeCaps = JudgeCaps()) -> None:
        self.caps = caps
        self.admitted = 0
        """Pictures on their way."""
        self._held = 0
        self._room: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._waiting: deque[tuple[Predictor, Pixels, asyncio.Future[NDArray[np.float32]]]] = deque()
        self._drains: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(caps.threads, "judge", initializer=_yield_to_the_loop)

    def admit(self) -> Admission:
        """A place in the queue, given back when the block ends.

        Raises:
            FullError: if there is none.
        """
        if self.admitted >= self.caps.queue:
            raise FullError
        return Admission(self)

    async def thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run something slow in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def scores(self, predictor: Predictor, found: Look) -> dict[str, float]:
        """Probabilities of the labels of a picture, of its worst frame."""
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((predictor, found.seen.frames, future))
        if len(self._drains) < self.caps.threads:
            self._drains.add(asyncio.create_task(self._drain()))
        return worst(await future, predictor)

    async def _drain(self) -> None:
        """Score what waits, batch by batch, until nothing does."""
        try:
            while self._waiting:
                await self._score(*self._batch())
        finally:
            # At once, not when the loop comes to it: whoever asks meanwhile would count on this task.
            self._drains.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _score(
        self, predictor: Predictor, batch: list[Pixels], futures: list[asyncio.Future[NDArray[np.float32]]]
    ) -> None:
        try:
            rows = await self.thread(_scored, predictor, np.concatenate(batch), self.caps.batch)
        except asyncio.CancelledError:  # the threads were ended
            for future in (*futures, *(future for *_, future in self._waiting)):
                future.cancel()
            self._waiting.clear()
            raise
        except Exception as error:  # of ONNX Runtime: each asker is told
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for pixels, future in zip(batch, futures, strict=True):
            if not future.done():
                future.set_result(rows[start : start + len(pixels)])
            start += len(pixels)

    def _batch(self) -> tuple[Predictor, list[Pixels], list[asyncio.Future[NDArray[np.float32]]]]:
        """The next few that wait for the same model."""
        predictor, first, future = self._waiting.popleft()
        batch, futures = [first], [future]
        while self._waiting and self._waiting[0][0] is predictor:
            if sum(map(len, batch)) + len(self._waiting[0][1]) > self.caps.batch:
                break
            _, pixels, future = self._waiting.popleft()
            batch.append(pixels)
            futures.append(future)
        return predictor, batch, futures

    async def hold(self, size: int) -> None:
        """Wait until `size` more bytes may be held; one picture may always be."""
        if self._room or (self._held and self._held + size > self.caps.budget):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append((size, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.cancelled():
                    self._room = deque(each for each in self._room if each[1] is not future)
                    self.release(0)  # it may have stood before smaller ones
                else:
                    self.release(size)
                raise
        else:
            self._held += size

    def release(self, size: int) -> None:
        """Give back what `hold` took, and let the next ones in."""
        self._held -= size
        while self._room:
            wanted, future = self._room[0]
            if self._held and self._held + wanted > self.caps.budget:
                break
            self._room.popleft()
            if not future.cancelled():
                self._held += wanted
                future.set_result(None)

    def close(self) -> None:
        """End the threads, after what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Admission:
    """One picture's place in the queue."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        judge.admitted += 1

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        self._judge.admitted -= 1


def _scored(predictor: Predictor, frames: Pixels, batch: int) -> NDArray[np.float32]:
    """Scores of frames, a few at a time."""
    return np.concatenate([predictor.score(frames[start : start + batch]) for start in range(0, len(frames), batch)])


def _yield_to_the_loop() -> None:
    """Let the event loop's thread go first: what it has to do is short, and heartbeats wait for it."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux, of this thread alone
    except (AttributeError, OSError):
        pass
