"""Pictures that `references` would miss: fields with URLs in Discord's payloads that this code does not know."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)

_MEDIA = ("url", "proxy_url")
KNOWN = frozenset(
    {
        *(f"attachments.{name}" for name in _MEDIA),
        *(f"embeds.{part}.{name}" for part in ("image", "thumbnail", "video") for name in _MEDIA),
        *(f"embeds.{part}.{name}" for part in ("author", "footer") for name in ("icon_url", "proxy_icon_url")),
        *(f"component {place}.{name}" for place in ("11.media", "12.items.media", "13.file") for name in _MEDIA),
        # Links, which show no picture.
        "embeds.url",
        "embeds.author.url",
        "embeds.provider.url",
        "component 2.url",
    }
)
"""Fields of a message that hold URLs and are understood. A component is named by its number, wherever it is nested."""
HIDDEN = frozenset(
    {"referenced_message", "author", "member", "mentions", "interaction", "interaction_metadata", "thread"}
)
"""Fields whose pictures Discord does not show with the message."""
MAX_DEPTH = 20
MAX_REMEMBERED = 200
"""Kinds of fields that are logged."""
MAX_COUNTED = 2_000
"""Messages that are remembered, so that each counts once: it may be edited, and fetched again."""


class CarrierWatch:
    """Logs a field with a URL that it does not know, once for each kind of field, and counts all."""

    def __init__(self, count: Callable[[], None]) -> None:
        """`count` is called for each kind of unknown field of each message, once."""
        self._count = count
        self._logged: set[str] = set()
        self._counted: OrderedDict[str, set[str]] = OrderedDict()

    def look(self, payload: Mapping[str, Any]) -> None:
        """Look through a message as Discord sent it."""
        unknown = set(unknown_carriers(payload))
        if not unknown:
            return
        counted = self._counted.setdefault(str(payload.get("id")), set())
        for place in sorted(unknown - counted):
            counted.add(place)
            self._count()
            if place not in self._logged and len(self._logged) < MAX_REMEMBERED:
                self._logged.add(place)
                log.warning("a message may show a picture in a field that this bot does not know: %s", place)
        while len(self._counted) > MAX_COUNTED:
            self._counted.popitem(last=False)


def unknown_carriers(payload: Mapping[str, Any]) -> Iterator[str]:
    """The places of a message's payload that hold a URL and are not in `KNOWN`, as "component 99.media.url"."""
    return (place for place in _url_fields(payload, "", MAX_DEPTH) if place not in KNOWN)


def _url_fields(value: Any, place: str, depth: int) -> Iterator[str]:
    if depth == 0:
        yield f"{place}... (nested too deep)"
    elif isinstance(value, list):
        for item in value:
            yield from _url_fields(item, place, depth - 1)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _url_fields_of(item, name, place, depth)


def _url_fields_of(item: Any, name: str, place: str, depth: int) -> Iterator[str]:
    inner = f"{place}.{name}".lstrip(".")
    if inner in HIDDEN:
        return
    if isinstance(item, str):
        if item and (name == "url" or name.endswith("_url")):
            yield inner
    elif inner == "message_snapshots.message":  # a forwarded message is built as any other
        yield from _url_fields(item, "", depth - 1)
    elif name in ("components", "component", "accessory"):
        for component in item if isinstance(item, list) else [item]:
            if isinstance(component, Mapping):
                yield from _url_fields(component, f"component {component.get('type')}", depth - 1)
    else:
        yield from _url_fields(item, inner, depth - 1)
