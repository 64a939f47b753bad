"""Parameters of the split stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Fraction, Natural, NotNegative, section


@section
class Split:
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Natural = 0
    """Which fold is the test split."""
    val: Fraction = 0.15
    """Share of the other folds that is the validation split."""
    group_by: Literal["content", "artist"] = "content"
    """`content`: near-duplicates and series stay together; `artist`: so do all of an artist's pictures."""
    intensity: NotNegative = 0.75
    """Near-duplicates differ by at most this in every corner's intensity (0 to 255) ..."""
    aspect: NotNegative = 0.05
    """... and by at most this in aspect ratio ..."""
    phash_max_distance: Annotated[int, Field(ge=0, le=64)] = 64
    """... and by at most this many bits of their perceptual hashes. 64 is the board's rule to the letter, which on a
    large board links nearly all pictures through one another; 16 undoes that."""
    phash_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Pictures whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates, too."""
    seed: Natural = 0

    def __post_init__(self) -> None:
        if self.fold >= self.folds:
            raise ValueError(f"split.fold must be below split.folds ({self.folds}); it is {self.fold}")
