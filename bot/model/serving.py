"""The model that is serving, and replacing it without a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from bot.model.release import Release, Repository
from stages.inference import ModelError
from stages.inference.predictor import Predictor

log = logging.getLogger(__name__)

MIN_RETRY, MAX_RETRY = 1.0, 600.0
"""Seconds before a refused model is tried again: at first, and at most."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is loaded and warmed up, and the release that it is from."""

    release: Release
    predictor: Predictor

    @classmethod
    def load(cls, release: Release) -> LoadedModel:
        """Load a release and warm it up.

        Raises:
            ModelError: if this code cannot use its files.
        """
        try:
            return cls(release, Predictor(release.model, release.sidecar))
        except ModelError:
            raise
        except Exception as error:  # whatever a file can make ONNX Runtime, numpy or the parser of the side-car raise
            text = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{release.version} cannot be used ({type(error).__name__}: {text}); train and push it again"
            ) from error


class Serving:
    """The current model. Pictures in progress finish with the model that they began with."""

    def __init__(self, repository: Repository, asked: str, model: LoadedModel) -> None:
        self.repository = repository
        self.asked = asked
        """As on the command line: a stage, a version, a git revision or `workspace`."""
        self.current = model
        self.listeners: list[Callable[[], None]] = []
        """Called after each switch to another model, in the thread that made it."""
        self._refused_commit = ""
        self._last_error = ""
        self._retry_at = 0.0
        self._retry_pause = MIN_RETRY
        self._lock = asyncio.Lock()

    @property
    def version(self) -> str:
        """Of the current model, for people and logs."""
        return self.current.release.version

    async def reload(self) -> bool:
        """Load the model that the tag points to now. Returns False if it is the current one.

        Raises:
            ModelError: if the new model cannot be loaded; the old one keeps serving.
        """
        async with self._lock:  # `/model reload` and the poll may come at once
            release = await asyncio.to_thread(self.repository.release, self.asked)
            if release == self.current.release:
                return False
            await asyncio.to_thread(self.switch_to, release)
            return True

    def switch_to(self, release: Release) -> None:
        """Load another release and serve it from now on.

        Raises:
            ModelError: if it cannot be loaded; the old one keeps serving.
        """
        model, previous = LoadedModel.load(release), self.version
        self.current = model  # one assignment, so that no picture sees half of the change
        log.info("model %s replaces %s", self.version, previous)
        for listener in self.listeners:
            listener()

    async def poll(self) -> bool:
        """Load a new model if there is one.

        A refused model is retried with growing pauses: its files may still be on their way to the remote.

        Raises:
            ModelError: as `reload`, once for each different error.
        """
        latest = await asyncio.to_thread(self.repository.latest, self.asked)
        refused = latest == self._refused_commit
        if latest == self.current.release.commit or (refused and time.monotonic() < self._retry_at):
            return False
        if not refused:
            self._refused_commit, self._last_error, self._retry_pause = latest, "", MIN_RETRY
        try:
            changed = await self.reload()
        except ModelError as error:
            self._retry_at = time.monotonic() + self._retry_pause
            self._retry_pause = min(2 * self._retry_pause, MAX_RETRY)
            if str(error) == self._last_error:
                return False
            self._last_error = str(error)
            raise
        self._refused_commit = ""
        return changed
