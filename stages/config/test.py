"""Parameters of the test stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.workspace.parameters import Count, Fraction, Natural, section


@section
class Test:
    __test__ = False  # its name makes pytest collect it as a test class
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples, of groups of near-duplicates, for each confidence interval."""
    confidence: Fraction = 0.95
    """Confidence level of the intervals."""
    worst_count: Natural = 24
    """Mistakes to show in the report, as many likely label errors, and a third as many that were right."""
    corruption_count: Count = 128
    """Pictures of each label, and as many without it, that are scored again under each corruption."""
    saliency_count: Natural = 12
    """How many of the mistakes, then of the likely label errors, get a saliency overlay."""
    parity_count: Natural = 256
    """Most pictures whose scores are compared between torch and the ONNX graphs; 0 skips the comparison."""
    threads: Count = 2
    """CPU threads."""
    seed: Natural = 0
