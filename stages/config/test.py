"""Parameters of the test stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.workspace.parameters import Count, Fraction, Natural, section


@section
class Test:
    __test__ = False  # not a test class, whatever pytest makes of the name
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of groups behind each interval."""
    confidence: Fraction = 0.95
    worst_count: Natural = 24
    """Mistakes shown in the report, and as many pictures whose labels are likely wrong."""
    corruption_count: Count = 128
    """Pictures of each label, and as many others, that are judged again under each change of theirs."""
    saliency_count: Natural = 12
    """Of the mistakes shown, those with an overlay of what the score hangs on."""
    parity_count: Natural = 256
    """Pictures, at most, whose scores by torch are compared with those of the graphs; 0: compare nothing."""
    threads: Count = 2
    seed: Natural = 0
