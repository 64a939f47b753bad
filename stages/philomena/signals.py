"""Signals of a Philomena board's picture host to crawlers that HTTP does not define.

Source: the observed behaviour of the boards' reverse proxies.
"""

from __future__ import annotations

from typing import Literal

Signal = Literal["overloaded", "blocked"]


def signal(status: int, empty: bool) -> Signal | None:
    """Interpret a failed response by its status and by whether its body is empty.

    Returns:
        `overloaded` if the board sheds load; `blocked` if it blocks this client for 15 minutes, which each further
        request restarts; None if the response concerns the requested picture only.
    """
    if status == 501:
        return "overloaded"
    return "blocked" if status == 500 and empty else None
