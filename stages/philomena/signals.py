"""What an answer of a Philomena board's picture host asks of the whole crawl, beyond what HTTP says.

Source: the behaviour of the boards' front proxies towards crawlers.
"""

from __future__ import annotations

from typing import Literal

Signal = Literal["overloaded", "blocked"]


def signal(status: int, empty: bool) -> Signal | None:
    """Read a failed answer, by its status and by whether its body is empty.

    Returns:
        `overloaded`: the board sheds load. `blocked`: it blocks this client for 15 minutes, and each further request
        starts them anew. None: the answer concerns its one picture only.
    """
    if status == 501:
        return "overloaded"
    return "blocked" if status == 500 and empty else None
