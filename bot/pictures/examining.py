"""One picture of a message -> what is known of it: a moderator's ruling, scores of before, or the model's."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageFilter

from bot.model.serving import Served, Serving
from bot.pictures.fetching import Fetcher, NotAPictureError, UnfetchedError
from bot.pictures.judging import FullError, Judge, Look, digest, look
from bot.pictures.memory import Rulings
from bot.pictures.references import Reference
from bot.rules.policy import ALLOWED, REFUSED, Action, GuildPolicy, Mode, Outcome, outcome, refused
from bot.storage.store import Store
from bot.storage.tables import Ruling, Scored
from stages.inference import PictureError
from stages.inference.decoding import Pixels
from stages.inference.sidecar import verdict

log = logging.getLogger(__name__)

SIDE = 160
"""Of a blurred thumbnail, px."""
LEAST, USUAL = 1_000_000, 4_000_000
"""Bytes that a picture is taken to need at least, and if its size is not known."""
SECONDS = 60.0
"""For all of one picture, waiting included."""


@dataclass(frozen=True)
class Finding:
    """What is known of one picture of a message, and what the guild's rules make of it."""

    reference: Reference
    verdict: str
    """A label (several joined with "+", "none"), one of `UNJUDGED`, or `allowed` or `refused` by a moderator."""
    origin: str
    """model, cache, moderator or unjudged."""
    outcome: Outcome
    version: str
    """Of the model that was served."""
    scores: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    sha256: str | None = None
    phash: int | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    """Blurred, JPEG; only where moderators are to be told."""


class Examiner:
    """Knows all that can be asked about a picture."""

    def __init__(self, fetcher: Fetcher, judge: Judge, serving: Serving, store: Store, rulings: Rulings) -> None:
        self._fetcher = fetcher
        self.judge = judge
        self._serving = serving
        self._store = store
        self._rulings = rulings

    def unjudged(self, reference: Reference, policy: GuildPolicy, reason: str, detail: str) -> Finding:
        """A picture that cannot be judged, as the guild's rules see it."""
        served = self._serving.current
        made = outcome({reason: 1.0}, policy.effective(served.predictor.sidecar))
        return Finding(reference, reason, "unjudged", made, served.release.version, detail=detail[:300])

    async def examine(self, reference: Reference, guild: int, policy: GuildPolicy) -> Finding | None:
        """Everything about one picture; None if it is none. Never raises, but when cancelled."""
        try:
            with self.judge.admit():
                async with asyncio.timeout(SECONDS):
                    return await self._examine(reference, guild, policy)
        except NotAPictureError:
            return None
        except FullError:
            return self.unjudged(reference, policy, "overloaded", f"{self.judge.admitted} pictures are on their way")
        except UnfetchedError as error:
            return self.unjudged(reference, policy, error.verdict, error.detail)
        except PictureError as error:
            return self.unjudged(reference, policy, error.reason, error.detail)
        except TimeoutError:
            return self.unjudged(reference, policy, "timed_out", f"no verdict within {SECONDS:g} s")
        except Exception as error:
            log.exception("a picture could not be judged")
            return self.unjudged(reference, policy, "failed", type(error).__name__)

    async def _examine(self, reference: Reference, guild: int, policy: GuildPolicy) -> Finding:
        # Its bytes and its decoded frames are what takes memory; an embed's size is known only once it is here.
        held = min(self.judge.caps.max_bytes, max(LEAST, reference.size or USUAL))
        await self.judge.hold(held)
        try:
            data = await self._fetcher.picture(reference)
            return await self._judged(reference, data, guild, policy)
        finally:
            self.judge.release(held)

    async def _judged(self, reference: Reference, data: bytes, guild: int, policy: GuildPolicy) -> Finding:
        served = self._serving.current
        sha256 = await self.judge.thread(digest, data)
        found: Look | None = None
        ruling = await self._rulings.find(guild, sha256)
        scored = await self._store.scored(sha256, served.release.md5)
        if ruling is None and scored is None:
            found = await self.judge.thread(look, data, served.predictor, self.judge.caps, sha256)
        phash = found.phash if found else scored.phash if scored else ruling.phash if ruling else None
        if ruling is None:
            ruling = await self._rulings.find(guild, sha256, phash)
        if ruling is not None:
            finding = _ruled(reference, ruling, policy, served)
        elif scored is not None:
            finding = _scored(reference, scored.scores, "cache", policy, served)
        else:
            assert found is not None  # noqa: S101
            scores = await self.judge.scores(served.predictor, found)
            finding = await self._scores(reference, found, scores, policy, served)
        finding = replace(finding, sha256=sha256, phash=phash)
        if policy.mode is not Mode.SHADOW and finding.outcome.action >= Action.FLAG:
            if found is None:
                found = await self.judge.thread(look, data, served.predictor, self.judge.caps, sha256)
            finding = replace(finding, thumbnail=await self.judge.thread(blurred, found.thumbnail()))
        return finding

    async def _scores(
        self, reference: Reference, found: Look, scores: dict[str, float], policy: GuildPolicy, served: Served
    ) -> Finding:
        finding = _scored(reference, scores, "model", policy, served)
        if not found.seen.missed:
            await self._store.keep_scores(Scored(found.sha256, served.release.md5, found.phash, scores))
        elif finding.outcome.action is Action.LOG:  # nothing bad in what was seen, but not all of it was
            detail = f"{found.seen.missed} frames could not be looked at"
            return replace(self.unjudged(reference, policy, "timed_out", detail), scores=scores)
        return finding


def _ruled(reference: Reference, ruling: Ruling, policy: GuildPolicy, served: Served) -> Finding:
    rules = policy.effective(served.predictor.sidecar)
    if ruling.allowed:
        made, verdict_ = Outcome(label=ruling.label), ALLOWED
    else:
        made, verdict_ = refused(ruling.label, rules), REFUSED
    detail = "a moderator decided on this picture before"
    return Finding(reference, verdict_, "moderator", made, served.release.version, detail=detail)


def _scored(
    reference: Reference, scores: dict[str, float], origin: str, policy: GuildPolicy, served: Served
) -> Finding:
    sidecar = served.predictor.sidecar
    made = outcome(scores, policy.effective(sidecar))
    return Finding(reference, verdict(scores, sidecar), origin, made, served.release.version, scores)


def blurred(picture: Pixels) -> bytes:
    """A thumbnail that shows moderators which picture it is, but no details of it: JPEG."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(SIDE / 16)).save(out, "JPEG", quality=70)
    return out.getvalue()
