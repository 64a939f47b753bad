"""Picture bytes -> the model's scores, in processes and worker threads behind a queue: the event loop never blocks."""

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

from bot.pictures.decoding import DecodedPicture, Decoder
from bot.pictures.fairness import FairQueue, GuildAndAuthor
from stages.inference.decoding import Caps, Pixels
from stages.inference.predictor import Predictor
from stages.inference.sidecar import decided

Result = TypeVar("Result")

PLACES = 16
"""Pictures that are downloaded, or held in memory, at a time."""


@dataclass(frozen=True)
class JudgeCaps:
    """Limits of the queue and of one picture in it."""

    max_bytes: int = 25_000_000
    max_pixels: int = 25_000_000
    """Of one frame. Its memory has a limit of its own, see `bot.pictures.decoding`."""
    frames: int = 8
    """Of an animation that are scored."""
    seconds: float = 3.0
    """CPU time for decoding one picture; what an animation has left then is not scored."""
    queue: int = 128
    """Pictures in progress, from before the download to the verdict. More are refused."""
    budget: int = 64_000_000
    """Bytes of pictures in memory at a time."""
    threads: int = 2
    """That score, and processes that decode."""
    batch: int = 2
    """Frames scored at once. More are not faster, and each costs another 15 MB per thread for good."""


def sha256_of(data: bytes) -> str:
    """SHA-256 of a file's bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def worst_frame_scores(rows: NDArray[np.float32], predictor: Predictor) -> dict[str, float]:
    """A picture's scores from those of its frames: one bad frame makes a bad picture.

    Args:
        rows: float32 [frames, labels].
        predictor: the model that scored them.

    Returns:
        Label -> the highest score of any frame; for the harmless label, which has no threshold, the lowest.
    """
    sidecar = predictor.sidecar
    thresholded = decided(sidecar.kind, sidecar.labels)
    return {
        label: float(rows[:, place].max() if label in thresholded else rows[:, place].min())
        for place, label in enumerate(sidecar.labels)
    }


class Judge:
    """The queue and its worker threads. It has no task while there is nothing to do."""

    def __init__(self, caps: JudgeCaps = JudgeCaps()) -> None:
        self.caps = caps
        self.queue = FairQueue(min(PLACES, caps.queue), caps.queue, caps.budget)
        """Turns to download a picture and to hold it in memory."""
        self._score_queue: deque[tuple[Predictor, Pixels, asyncio.Future[NDArray[np.float32]]]] = deque()
        self._drain_tasks: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(caps.threads, "judge", initializer=_lower_priority)
        decoding_caps = Caps(caps.max_bytes, caps.max_pixels)
        self._decoder = Decoder(decoding_caps, caps.frames, caps.seconds, caps.threads)

    @property
    def admitted(self) -> int:
        """Pictures in progress."""
        return self.queue.length

    async def run_in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a slow function in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def decode(
        self, data: bytes, predictor: Predictor, sha256: str, owner: GuildAndAuthor, describe: bool = False
    ) -> DecodedPicture:
        """Decode a picture for `predictor`, in a process of its own, when its owner has a turn.

        With `describe` there is what recognises copies, too.

        Raises:
            PictureError: if it cannot be decoded within the limits.
        """
        return await self._decoder.decode(data, predictor.sidecar, sha256, owner, describe)

    async def scores(self, predictor: Predictor, decoded: DecodedPicture) -> dict[str, float]:
        """A picture's probability for each label, by its worst frame."""
        # Through a queue of its own, so that frames of several pictures are scored in one batch.
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._score_queue.append((predictor, decoded.seen.frames, future))
        if len(self._drain_tasks) < self.caps.threads:
            self._drain_tasks.add(asyncio.create_task(self._drain()))
        return worst_frame_scores(await future, predictor)

    async def _drain(self) -> None:
        """Score the queued pictures, batch by batch, until the queue is empty."""
        try:
            while self._score_queue:
                await self._score(*self._batch())
        finally:
            # Here and not in a done callback: a call of `scores` before that callback would count on this task.
            self._drain_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _score(
        self, predictor: Predictor, batch: list[Pixels], futures: list[asyncio.Future[NDArray[np.float32]]]
    ) -> None:
        try:
            rows = await self.run_in_thread(_score_frames, predictor, np.concatenate(batch), self.caps.batch)
        except asyncio.CancelledError:  # the worker threads were shut down
            for future in (*futures, *(future for *_, future in self._score_queue)):
                future.cancel()
            self._score_queue.clear()
            raise
        except Exception as error:  # any of ONNX Runtime's
            for future in futures:
                if not future.done():  # its picture may have timed out
                    future.set_exception(error)
            return
        start = 0
        for pixels, future in zip(batch, futures, strict=True):
            if not future.done():
                future.set_result(rows[start : start + len(pixels)])
            start += len(pixels)

    def _batch(self) -> tuple[Predictor, list[Pixels], list[asyncio.Future[NDArray[np.float32]]]]:
        """Take the next pictures for the same model off the queue, up to `batch` frames or one picture."""
        predictor, first, future = self._score_queue.popleft()
        batch, futures = [first], [future]
        while self._score_queue and self._score_queue[0][0] is predictor:
            if sum(map(len, batch)) + len(self._score_queue[0][1]) > self.caps.batch:
                break
            _, pixels, future = self._score_queue.popleft()
            batch.append(pixels)
            futures.append(future)
        return predictor, batch, futures

    def close(self) -> None:
        """Stop the worker threads after their current work, and the processes at once."""
        self._decoder.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _score_frames(predictor: Predictor, frames: Pixels, batch: int) -> NDArray[np.float32]:
    """Scores of frames uint8 [frames, side, side, 3], `batch` at a time: float32 [frames, labels]."""
    return np.concatenate([predictor.score(frames[start : start + batch]) for start in range(0, len(frames), batch)])


def _lower_priority() -> None:
    """Give the event loop's thread precedence: its work is short, and Discord's heartbeats depend on it."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux this affects only this thread
    except (AttributeError, OSError):
        pass
