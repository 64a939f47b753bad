"""The model that is served: loaded from a release, and exchanged for another one without a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from bot.model.release import Release, Repository
from stages.inference import ModelError
from stages.inference.predictor import Predictor

log = logging.getLogger(__name__)

PAUSE, LONGEST = 1.0, 600.0
"""Seconds before a refused model is tried again, at first and at most."""


@dataclass(frozen=True)
class Served:
    """A loaded, warmed-up model and where it comes from."""

    release: Release
    predictor: Predictor

    @classmethod
    def load(cls, release: Release) -> Served:
        """Load and warm up.

        Raises:
            ModelError: if the files cannot be used by this code.
        """
        return cls(release, Predictor(release.model, release.sidecar))


class Serving:
    """Which model judges from now on. Pictures that are under way finish with the one they began with."""

    def __init__(self, repository: Repository, asked: str, served: Served) -> None:
        self.repository = repository
        self.asked = asked
        """As on the command line: a stage, a version, a git rev or `workspace`."""
        self.current = served
        self._refused = self._told = ""
        self._again = 0.0
        self._pause = PAUSE
        self._lock = asyncio.Lock()

    @property
    def version(self) -> str:
        """Of the model that is served, for people and logs."""
        return self.current.release.version

    async def reload(self) -> bool:
        """Take up what the tag names now; False if that is what is served already.

        Raises:
            ModelError: if the new model cannot be had or used; the old one keeps serving.
        """
        async with self._lock:
            release = await asyncio.to_thread(self.repository.release, self.asked)
            if release == self.current.release:
                return False
            await asyncio.to_thread(self.take, release)
            return True

    def take(self, release: Release) -> None:
        """Serve another release from now on.

        Raises:
            ModelError: if it cannot be used; the old one keeps serving.
        """
        served, before = Served.load(release), self.version
        self.current = served
        log.info("model %s is served in place of %s", self.version, before)

    async def poll(self) -> bool:
        """Take up a new model if there is one. One that is refused is tried again, ever less often: its files may be on
        their way to the remote.

        Raises:
            ModelError: as `reload`, but not for what was told before.
        """
        latest = await asyncio.to_thread(self.repository.latest, self.asked)
        if latest == self.current.release.commit or (latest == self._refused and time.monotonic() < self._again):
            return False
        if latest != self._refused:
            self._refused, self._told, self._pause = latest, "", PAUSE
        try:
            done = await self.reload()
        except ModelError as error:
            self._again = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST)
            if str(error) == self._told:
                return False
            self._told = str(error)
            raise
        self._refused = ""
        return done
