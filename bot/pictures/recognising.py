"""A picture and those that are remembered -> the one that it is a copy of, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bot.pictures.copies import SIDE, Affine, Agreement, Fingerprint, Luma, Sighting, agreement
from bot.pictures.copy_index import Proposal, placements

LIKELY, SURE = 0.9, 0.97
"""Similarities from which a picture is taken for a copy: flagged, and acted on. See bot/README.md for their errors."""
ERRORS = "Of 600 other pictures, 2.3 % reached 0.90, 1.2 % reached 0.94, and 0.3 % reached 0.97, with 300 remembered."
"""What was measured, for whoever changes the threshold."""
MIN_OVERLAP, MIN_COVERAGE, MIN_EDGES = 0.5, 0.27, 4.0
"""Of the remembered picture that is seen, of the other that it covers, and of edges to compare."""
WORTH_REFINING, REFINED = 0.55, 0.97
"""Similarities between which a better place is looked for nearby."""
STEPS = (3.0, 1.5, 0.75)
"""In pixels of the remembered picture, at its edge."""
MOVES = np.concatenate([np.eye(4), -np.eye(4)]) * np.array([1, 1, 2, 2])
"""Across, down, larger, turned."""
CONFIRMED = 5
"""Places that are compared in detail."""


@dataclass(frozen=True)
class Recognised:
    """A remembered picture that another one shows."""

    row: int
    similarity: float
    """0 to 1."""


def recognise(seen: Sighting, proposals: list[Proposal], fingerprints: Mapping[int, Fingerprint]) -> Recognised | None:
    """The remembered picture that `seen` is most likely a copy of; None if it is none.

    Args:
        seen: the picture.
        proposals: of the index.
        fingerprints: those of the proposed pictures, by number.
    """
    lumas: dict[bool, Luma] = {}
    guesses = [
        (number, proposal, place)
        for proposal in proposals
        if (kept := fingerprints.get(proposal.row)) is not None
        for number, place in placements(proposal, kept, seen)
    ]
    by_features = sorted((guess for guess in guesses if guess[0]), key=lambda guess: -guess[0])[:CONFIRMED]
    best: tuple[float, Proposal, Affine] | None = None
    for _, proposal, place in [*by_features, *(guess for guess in guesses if not guess[0])]:
        if proposal.mirrored not in lumas:
            lumas[proposal.mirrored] = Luma(seen.luma[:, ::-1] if proposal.mirrored else seen.luma)
        similarity = similarity_of(agreement(fingerprints[proposal.row], lumas[proposal.mirrored], place))
        if best is None or similarity > best[0]:
            best = (similarity, proposal, place)
    if best is None or best[0] < WORTH_REFINING:
        return None
    similarity, proposal, place = best
    if similarity < REFINED:
        similarity = _refined(similarity, fingerprints[proposal.row], lumas[proposal.mirrored], place)
    return Recognised(proposal.row, similarity) if similarity >= LIKELY else None


def _refined(similarity: float, kept: Fingerprint, luma: Luma, place: Affine) -> float:
    """The similarity in the best place near `place`: features say where to within some pixels."""
    centre = np.array([kept.width / 2, kept.height / 2])
    for step in STEPS:
        for move in MOVES * step:
            turn, shift = place
            along, across = 1 + move[2] / SIDE, move[3] / SIDE
            turned = turn @ np.array([[along, -across], [across, along]])
            scale = abs(turn[0, 0] * turn[1, 1] - turn[0, 1] * turn[1, 0]) ** 0.5
            moved = (turned, shift + (turn - turned) @ centre + move[:2] * scale)
            tried = similarity_of(agreement(kept, luma, moved))
            if tried > similarity:
                similarity, place = tried, moved
    return similarity


def similarity_of(compared: Agreement) -> float:
    """One figure; 0 if too little is there to compare."""
    if compared.overlap < MIN_OVERLAP or compared.coverage < MIN_COVERAGE or compared.edges < MIN_EDGES:
        return 0.0
    return compared.similarity
