"""A decoder that never ends for one picture: 41 px wide."""

from __future__ import annotations

import faults


def endless(data: bytes, caps: object) -> tuple[str, int, int]:
    """In place of `stages.inference.decoding.check`."""
    while data == faults.png(41, 30, shade=1):
        pass
    return "png", 40, 30
