"""Picture bytes -> decoded frames and hashes, in processes that a hostile file can neither hold up nor blow up.

There are two lanes. Nearly every picture is decoded in the fast one, within little time and memory. What needs more
goes to the slow lane, which has one process, and so takes one large picture at a time: its memory is bounded, and no
other picture waits for it. What exceeds the slow lane's limits, too, is `timed_out` or `too_large`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bot.pictures import copies
from bot.pictures.copies import Sighting
from bot.pictures.fairness import FairQueue, GuildAndAuthor
from stages.inference import PictureError
from stages.inference.decoding import Caps, Pixels, picture_errors
from stages.inference.frames import Seen, frames
from stages.inference.phash import inside, phash
from stages.inference.processes import Limits, Processes
from stages.inference.sidecar import Sidecar

FAST_BYTES, FAST_MEMORY, FAST_SECONDS = 4_000_000, 24_000_000, 0.25
"""Of a picture in the fast lane: the file's size, the memory of decoding (a PNG of 6 megapixels), and the CPU time."""
SLOW_MEMORY = 130_000_000
"""Of decoding in the slow lane: a transparent PNG of 25 megapixels takes 100 MB."""
SLOW_AFTER = 1.0
"""Seconds in the fast lane after which an author's next pictures leave a process of it to others."""
OVERHEAD = 64_000_000
"""Memory that a process may take beside a picture's file, copied once, and its decoded frames: SIFT takes 30 MB."""
FRAMES_SHARE = 0.7
"""Of a lane's time, for the frames of an animation: then those that are decoded count."""
FAST_NICENESS, SLOW_NICENESS = 2, 5
"""The event loop goes first, as Discord's heartbeats depend on it, and the slow lane last."""
PRELOAD = ["bot.pictures.copies"]
"""Modules that the processes have at once, before their memory is limited."""


@dataclass(frozen=True)
class DecodedPicture:
    """A picture's hashes and frames, ready to be scored."""

    sha256: str
    """Of the file's bytes, hex."""
    phash: int
    """Perceptual hash of the first frame, 64 bits, unsigned."""
    seen: Seen
    sighting: Sighting | None = None
    """What recognises copies, of the first frame, if that was asked for."""

    @classmethod
    def of(cls, sha256: str, seen: Seen, sighting: Sighting | None = None) -> DecodedPicture:
        """With the hash of the first frame."""
        return cls(sha256, phash(inside(seen.frames[0], seen.width, seen.height)), seen, sighting)

    @property
    def fingerprint(self) -> bytes | None:
        """What is remembered to recognise copies, if it was described."""
        return None if self.sighting is None else self.sighting.fingerprint.to_bytes()

    def thumbnail(self) -> Pixels:
        """The first frame, uint8 [height, width, 3], without borders."""
        return inside(self.seen.frames[0], self.seen.width, self.seen.height)


class Decoder:
    """The two lanes. Their processes start with the first picture."""

    def __init__(self, caps: Caps, frame_count: int, seconds: float, workers: int) -> None:
        """Start nothing yet.

        Args:
            caps: what is refused.
            frame_count: frames of an animation to decode at most.
            seconds: CPU time for one picture.
            workers: processes of the fast lane.
        """
        self._frame_count = frame_count
        self._fast_caps = replace(caps, max_bytes=min(caps.max_bytes, FAST_BYTES), max_memory=FAST_MEMORY)
        self._slow_caps = replace(caps, max_memory=SLOW_MEMORY)
        self._fast_turns, self._slow_turns = FairQueue(workers, slow_after=SLOW_AFTER), FairQueue(1)
        fast_seconds = min(seconds, FAST_SECONDS)
        self._fast = Processes(
            Limits(fast_seconds, 2 * FAST_BYTES + FAST_MEMORY + OVERHEAD, FAST_NICENESS), workers, PRELOAD
        )
        limits = Limits(seconds, 2 * caps.max_bytes + SLOW_MEMORY + OVERHEAD, SLOW_NICENESS)
        self._slow = Processes(limits, preload=PRELOAD)

    async def decode(
        self, data: bytes, sidecar: Sidecar, sha256: str, owner: GuildAndAuthor, describe: bool = False
    ) -> DecodedPicture:
        """Decode a picture for a model and hash it, when its owner has a turn.

        Args:
            data: the file's bytes.
            sidecar: of the model.
            sha256: of the bytes, hex.
            owner: the server and the author.
            describe: whether copies are to be recognised, which takes as long as all else.

        Raises:
            PictureError: `corrupt`, `too_large` or `timed_out`.
        """
        async with self._fast_turns.turn(*owner):
            found = await self._in_fast_lane(data, sidecar, describe)
        if found is None:
            async with self._slow_turns.turn(*owner):
                found = await self._in_lane(self._slow, self._slow_caps, data, sidecar, describe)
        return DecodedPicture.of(sha256, *found)

    async def _in_fast_lane(self, data: bytes, sidecar: Sidecar, describe: bool) -> tuple[Seen, Sighting | None] | None:
        """None if the picture needs the slow lane."""
        if len(data) > self._fast_caps.max_bytes:
            return None
        try:
            found = await self._in_lane(self._fast, self._fast_caps, data, sidecar, describe)
        except PictureError as error:
            if error.reason == "corrupt":
                raise
            return None
        return None if found[0].missed else found

    async def _in_lane(
        self, lane: Processes, caps: Caps, data: bytes, sidecar: Sidecar, describe: bool
    ) -> tuple[Seen, Sighting | None]:
        seconds = FRAMES_SHARE * lane.limits.seconds
        return await lane.run(
            frames_and_sighting, data, sidecar.size, sidecar.background, caps, self._frame_count, seconds, describe
        )

    def close(self) -> None:
        """End the processes."""
        self._fast.close()
        self._slow.close()


def frames_and_sighting(
    data: bytes, size: int, background: int, caps: Caps, count: int, seconds: float, describe: bool
) -> tuple[Seen, Sighting | None]:
    """`frames`, and with `describe` what recognises copies of the first one. Runs in a process.

    Raises:
        PictureError: as `frames`.
    """
    seen = frames(data, size, background, caps, count, seconds, copies.SIDE if describe else 0)
    if seen.larger is None:
        return seen, None
    with picture_errors():
        sighting = copies.sight(seen.larger)
    return replace(seen, larger=None), sighting
