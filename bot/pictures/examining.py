"""One picture of a message -> a finding: a moderator's ruling, cached scores, or the model's scores."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageFilter

from bot.model.serving import LoadedModel, Serving
from bot.pictures.decoding import DecodedPicture
from bot.pictures.fairness import GuildAndAuthor, QueueFullError
from bot.pictures.fetching import Fetcher, NotAPictureError, UnfetchedError
from bot.pictures.judging import Judge, sha256_of
from bot.pictures.memory import Match, Rulings
from bot.pictures.references import Reference
from bot.rules.policy import (
    ALLOWED,
    REFUSED,
    Action,
    GuildPolicy,
    Mode,
    RuleOutcome,
    apply_rules,
    refused_outcome,
)
from bot.storage.database import StoreError
from bot.storage.store import BotStore
from bot.storage.tables import UNJUDGED_ORIGIN, PictureScores
from stages.inference import PictureError
from stages.inference.decoding import Pixels
from stages.inference.sidecar import verdict

log = logging.getLogger(__name__)

THUMBNAIL_SIDE = 160
"""Longer side of a blurred thumbnail, px."""
MIN_RESERVED, DEFAULT_RESERVED = 1_000_000, 4_000_000
"""Bytes of memory to reserve for a picture: at least, and if its size is unknown."""
PICTURE_SECONDS = 60.0
"""For one picture, from its turn in the queue on."""
THUMBNAIL_SECONDS = 10.0
"""For the thumbnail of a picture that is not examined."""
RETRIED = frozenset({"unreachable", "failed"})
"""Verdicts that are not final, whatever they come from."""


@dataclass(frozen=True)
class Finding:
    """What is known about one picture of a message, and what the server's rules ask for."""

    reference: Reference
    verdict: str
    """A label (several joined with "+", or "none"), a key of `UNJUDGED`, or a moderator's `allowed` or `refused`."""
    origin: str
    """model, cache, moderator or unjudged."""
    outcome: RuleOutcome
    version: str
    """Of the model that was serving."""
    scores: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    sha256: str | None = None
    phash: int | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    """Blurred JPEG, only for findings that go to the mod-log."""
    likely: Match | None = None
    """A picture that a moderator decided on, and that this may be a copy of."""
    retry: bool = False
    """Whether another try may bring a verdict: what failed was not the picture's own fault."""


class Examiner:
    """Examines pictures, cheapest source first: rulings, then cached scores, then the model."""

    def __init__(self, fetcher: Fetcher, judge: Judge, serving: Serving, store: BotStore, rulings: Rulings) -> None:
        self._fetcher = fetcher
        self._judge = judge
        self._serving = serving
        self._store = store
        self._rulings = rulings

    def unjudged(
        self, reference: Reference, policy: GuildPolicy, reason: str, detail: str, retry: bool = False
    ) -> Finding:
        """The finding for a picture that cannot be checked. `reason`: a key of `UNJUDGED`, which rules may name."""
        model = self._serving.current
        outcome = apply_rules({reason: 1.0}, policy.effective_rules(model.predictor.sidecar))
        retry = retry or reason in RETRIED
        return Finding(
            reference, reason, UNJUDGED_ORIGIN, outcome, model.release.version, detail=detail[:300], retry=retry
        )

    async def examine(
        self, reference: Reference, guild_id: int, policy: GuildPolicy, author_id: int = 0
    ) -> Finding | None:
        """Examine one picture. None if the file is not a picture. Raises nothing but CancelledError.

        `author_id` is whose turn it takes; 0 stands for the server's moderators.
        """
        owner = (guild_id, author_id)
        # Bytes and decoded frames are what takes memory. The size of an embed is unknown before it is fetched.
        size = min(self._judge.caps.max_bytes, max(MIN_RESERVED, reference.size or DEFAULT_RESERVED))
        try:
            async with self._judge.queue.turn(*owner, size), asyncio.timeout(PICTURE_SECONDS):
                data = await self._fetcher.fetch_picture(reference)
                return await self._examine_shown(reference, data, owner, policy)
        except NotAPictureError:
            return None
        except QueueFullError:
            detail = f"{self._judge.admitted} pictures in the queue"
            return self.unjudged(reference, policy, "overloaded", detail, retry=True)
        except UnfetchedError as error:
            # A slow download is the network's fault, not the picture's.
            return self.unjudged(reference, policy, error.verdict, error.detail, retry=error.verdict == "timed_out")
        except PictureError as error:
            return self.unjudged(reference, policy, error.reason, error.detail)
        except TimeoutError:
            return self.unjudged(reference, policy, "timed_out", f"no verdict within {PICTURE_SECONDS:g} s", retry=True)
        except Exception as error:
            # One bad picture must not keep the others of its message from being checked.
            log.exception("could not check a picture")
            return self.unjudged(reference, policy, "failed", type(error).__name__)

    async def thumbnail(self, reference: Reference, guild_id: int, author_id: int) -> bytes | None:
        """A blurred JPEG of a picture that was not examined; None if there is none in time.

        Raises nothing but CancelledError.
        """
        owner, model = (guild_id, author_id), self._serving.current
        size = min(self._judge.caps.max_bytes, max(MIN_RESERVED, reference.size or DEFAULT_RESERVED))
        try:
            async with asyncio.timeout(THUMBNAIL_SECONDS), self._judge.queue.turn(*owner, size):
                data = await self._fetcher.fetch_picture(reference)
                sha256 = await self._judge.run_in_thread(sha256_of, data)
                decoded = await self._decode(data, model, sha256, owner)
                return await self._judge.run_in_thread(blurred_jpeg, decoded.thumbnail())
        except (UnfetchedError, NotAPictureError, PictureError, QueueFullError, TimeoutError):
            return None
        except Exception:
            log.exception("could not make a thumbnail")
            return None

    async def _examine_shown(
        self, reference: Reference, data: bytes, owner: GuildAndAuthor, policy: GuildPolicy
    ) -> Finding:
        """Examine a file, or, if it cannot be decoded here, the still that Discord shows of it."""
        try:
            return await self._examine_bytes(reference, data, owner, policy)
        except PictureError as error:
            if error.reason != "corrupt":
                raise
            try:
                still = await self._fetcher.fetch_still(reference, "corrupt file")
            except UnfetchedError as failure:
                raise (error if failure.verdict == "unsupported" else failure) from None
        return await self._examine_bytes(reference, still, owner, policy)

    async def _examine_bytes(
        self, reference: Reference, data: bytes, owner: GuildAndAuthor, policy: GuildPolicy
    ) -> Finding:
        guild_id, _ = owner
        model = self._serving.current  # one model throughout, even if another is loaded meanwhile
        sha256 = await self._judge.run_in_thread(sha256_of, data)
        decoded: DecodedPicture | None = None
        # Equal bytes need no decoding, unless moderators are to see a thumbnail, or copies are looked for.
        match = await self._rulings.find(guild_id, sha256)
        cached = await self._store.find_scores(sha256, model.release.md5)
        look_for_copies = match is None and await self._rulings.knows_copies(guild_id)
        if look_for_copies or (match is None and cached is None):
            decoded = await self._decode(data, model, sha256, owner, look_for_copies)
        phash = _first_phash(decoded, cached, match)
        if match is None:
            # Other bytes, but perhaps the same picture, or a part of it.
            sighting = decoded.sighting if decoded else None
            match = await self._rulings.find(guild_id, sha256, sighting, phash, policy.copy_threshold)
        if match is not None and match.sure:
            finding = _from_ruling(reference, match, policy, model)
            await self._count(guild_id, match)
        elif cached is not None:
            finding = _from_scores(reference, cached.scores, "cache", policy, model)
        else:
            assert decoded is not None  # noqa: S101
            finding = await self._from_model(reference, decoded, policy, model)
        if match is not None and not match.sure:
            finding = _with_likely(finding, match)
        finding = replace(finding, sha256=sha256, phash=phash)
        if policy.mode is not Mode.SHADOW and finding.outcome.action >= Action.FLAG:
            if decoded is None or decoded.fingerprint is None:
                decoded = await self._decode(data, model, sha256, owner, describe=True)
            thumbnail = await self._judge.run_in_thread(blurred_jpeg, decoded.thumbnail())
            # For the moderator's decision, when the picture itself may be gone.
            if decoded.fingerprint is not None:
                await self._store.save_fingerprint(sha256, decoded.fingerprint)
            finding = replace(finding, thumbnail=thumbnail)
        return finding

    async def describe(self, reference: Reference, guild_id: int) -> DecodedPicture:
        """Fetch a picture that a moderator decides on, and decode it for `Ruling.fingerprint`.

        Raises:
            PictureError, UnfetchedError, NotAPictureError, QueueFullError: if there is no such picture.
        """
        size = min(self._judge.caps.max_bytes, max(MIN_RESERVED, reference.size or DEFAULT_RESERVED))
        async with self._judge.queue.turn(guild_id, 0, size), asyncio.timeout(PICTURE_SECONDS):
            data = await self._fetcher.fetch_picture(reference)
            sha256 = await self._judge.run_in_thread(sha256_of, data)
            return await self._decode(data, self._serving.current, sha256, (guild_id, 0), describe=True)

    async def _count(self, guild_id: int, match: Match) -> None:
        """Count how often a picture was met. A count is not worth a verdict."""
        if match.source:
            return
        with contextlib.suppress(StoreError):
            await self._store.count_meeting(guild_id, match.ruling.sha256)

    async def _decode(
        self, data: bytes, model: LoadedModel, sha256: str, owner: GuildAndAuthor, describe: bool = False
    ) -> DecodedPicture:
        return await self._judge.decode(data, model.predictor, sha256, owner, describe)

    async def _from_model(
        self, reference: Reference, decoded: DecodedPicture, policy: GuildPolicy, model: LoadedModel
    ) -> Finding:
        scores = await self._judge.scores(model.predictor, decoded)
        finding = _from_scores(reference, scores, "model", policy, model)
        missed = decoded.seen.missed
        if not missed:  # scores of a part of an animation must not be reused for all of it
            row = PictureScores(decoded.sha256, model.release.md5, decoded.phash, scores)
            await self._store.save_scores(row)
        elif finding.outcome.action is Action.LOG:
            # The frames that were decoded are harmless, but others were not reached in time.
            detail = f"{missed} frames could not be decoded in time"
            return replace(self.unjudged(reference, policy, "timed_out", detail), scores=scores)
        return finding


def _first_phash(decoded: DecodedPicture | None, cached: PictureScores | None, match: Match | None) -> int | None:
    """The perceptual hash from whichever is at hand."""
    ruling = match.ruling if match is not None else None
    return next((source.phash for source in (decoded, cached, ruling) if source is not None), None)


def _from_ruling(reference: Reference, match: Match, policy: GuildPolicy, model: LoadedModel) -> Finding:
    ruling = match.ruling
    if ruling.allowed:
        outcome, verdict_ = RuleOutcome(label=ruling.label), ALLOWED
    else:
        rules = policy.effective_rules(model.predictor.sidecar)
        outcome, verdict_ = refused_outcome(ruling.label, rules), REFUSED
    detail = "a moderator decided on this picture before"
    if match.source:
        detail = f"the list {match.source} has this picture"
    if match.similarity < 1:
        detail += f" ({match.similarity:.0%} similar)"
    return Finding(reference, verdict_, "moderator", outcome, model.release.version, detail=detail)


def _with_likely(finding: Finding, match: Match) -> Finding:
    """A finding on what may be a copy of a picture with a ruling: a moderator is to look at it, and no more is done."""
    outcome = finding.outcome
    if not match.ruling.allowed:
        label = match.ruling.label if outcome.action < Action.FLAG else outcome.label
        score = match.similarity if outcome.action < Action.FLAG else outcome.score
        outcome = replace(outcome, action=max(outcome.action, Action.FLAG), label=label, score=score)
    elif outcome.action > Action.FLAG:
        outcome = replace(outcome, action=Action.FLAG)
    verb = "allowed" if match.ruling.allowed else "blocked"
    detail = f"{match.similarity:.0%} similar to a picture that was {verb}"
    return replace(finding, outcome=outcome, likely=match, detail="; ".join(filter(None, (finding.detail, detail))))


def _from_scores(
    reference: Reference, scores: dict[str, float], origin: str, policy: GuildPolicy, model: LoadedModel
) -> Finding:
    sidecar = model.predictor.sidecar
    outcome = apply_rules(scores, policy.effective_rules(sidecar))
    return Finding(reference, verdict(scores, sidecar), origin, outcome, model.release.version, scores)


def blurred_jpeg(pixels: Pixels) -> bytes:
    """A thumbnail that lets moderators recognise a picture without showing its details.

    Args:
        pixels: uint8 [height, width, 3].

    Returns:
        JPEG bytes, at most `THUMBNAIL_SIDE` px a side.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    out = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(THUMBNAIL_SIDE / 16)).save(out, "JPEG", quality=70)
    return out.getvalue()
