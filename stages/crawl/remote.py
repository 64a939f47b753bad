"""A board's own picture host on the network: there is nothing to start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from stages.config.download import Download


@contextlib.contextmanager
def opened(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Yield host name -> the address and port to connect to instead: none, because DNS resolves them."""
    yield {}
