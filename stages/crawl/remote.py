"""A board's own picture host on the network: there is nothing to start."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping

from stages.config.download import Download
from stages.inference.hosts import is_loopback

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(params: Download) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Yield host name -> the address and port to connect to instead: none, because DNS resolves them."""
    if not params.contact and not all(map(is_loopback, params.hosts)):
        log.warning(
            "download.contact is not set: the staff of %s cannot reach you before they block the crawl; set it to "
            "your e-mail address or web page with -S download.contact=...",
            " and ".join(params.hosts),
        )
    yield {}
