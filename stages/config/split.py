"""Parameters of the split stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Fraction, Natural, NotNegative, section


@section
class Split:
    folds: Annotated[int, Field(ge=2)] = 5
    """Cross-validation folds that the groups of near-duplicates are assigned to."""
    fold: Natural = 0
    """The fold that is the test split."""
    val: Fraction = 0.15
    """Share of the remaining folds that is the validation split."""
    group_by: Literal["content", "artist", "origin"] = "content"
    """`content` keeps near-duplicates and series in one split; `artist` also keeps each artist's pictures in one.
    `origin` tests pictures of origins (collections, by their `origin:` tags) that neither training nor validation has;
    these two share theirs."""
    intensity: NotNegative = 0.75
    """Images are near-duplicates if the intensity of each corner (0 to 255) differs by at most this much, ..."""
    aspect: NotNegative = 0.05
    """... their aspect ratios differ by at most this much, ..."""
    phash_max_distance: Annotated[int, Field(ge=0, le=64)] = 64
    """... and their 64-bit perceptual hashes by at most this many bits. 64 applies the board's own rule, which uses
    corners and aspect ratio only; on a large board it chains nearly all images into one group, and 16 prevents that."""
    phash_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Pictures are also near-duplicates if their perceptual hashes alone differ by at most this many bits."""
    seed: Natural = 0

    def __post_init__(self) -> None:
        if self.fold >= self.folds:
            raise ValueError(f"split.fold must be below split.folds ({self.folds}); it is {self.fold}")
