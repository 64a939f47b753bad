"""Which pictures of a message a review button decides: its custom id names them, the entry's menu lists them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import discord

MAX_LISTED = 25
"""Options that Discord takes in a menu."""
REST = "*"
"""Key of the option that stands for all pictures that the menu has no room for."""
PICK = "review:pick:"
"""How a menu's custom id begins."""
MAX_NUMBERS = 8
"""Pictures that a button's label lists one by one."""


@dataclass(frozen=True)
class ListedPicture:
    """A picture in a mod-log entry."""

    key: str
    """As in `Reference.key`, or `REST`."""
    number: int
    """From 1, as the entry numbers it."""
    title: str
    """In the menu, at most 100 characters, with its number in front."""


def list_pictures(described: Iterable[tuple[str, str]]) -> list[ListedPicture]:
    """Number the pictures of an entry. `described`: pairs of key and a description."""
    pictures = [
        ListedPicture(key, number, f"{number}. {text}"[:100]) for number, (key, text) in enumerate(described, 1)
    ]
    if len(pictures) <= MAX_LISTED:
        return pictures
    rest = ListedPicture(REST, MAX_LISTED, f"{MAX_LISTED}. and all others")
    return [*pictures[: MAX_LISTED - 1], rest]


def listed_pictures(entry: discord.Message | None) -> list[ListedPicture]:
    """The pictures in the menu of an entry; none if it has no menu, as with a single picture."""
    rows = entry.components if entry else []
    menus = (item for row in rows if isinstance(row, discord.ActionRow) for item in row.children)
    for menu in menus:
        if isinstance(menu, discord.SelectMenu) and (menu.custom_id or "").startswith(PICK):
            numbers = [int(option.label.partition(".")[0]) for option in menu.options]
            listed = zip(menu.options, numbers, strict=True)
            return [ListedPicture(option.value, number, option.label) for option, number in listed]
    return []


def needs_menu(pictures: Sequence[ListedPicture]) -> bool:
    """Whether there is something to choose, or an option to be spelled out."""
    return len(pictures) > 1 or pictures[0].key == REST


def name_pictures(pictures: Sequence[ListedPicture], chosen: Collection[str]) -> str:
    """The chosen pictures as a short word for a custom id.

    One picture is named by its key. Several are named by their places in the menu, with a digest of the menu: a click
    on an entry as it was before must not decide others.
    """
    if not needs_menu(pictures):
        return f"k{pictures[0].key}"
    places = sum(1 << place for place, picture in enumerate(pictures) if picture.key in chosen)
    return f"m{places:x}.{_digest(pictures)}"


def named_pictures(names: str, listed: Sequence[ListedPicture]) -> set[str] | None:
    """The keys of the pictures that a button names, `REST` among them; None if the entry has changed since.

    Args:
        names: from `name_pictures`.
        listed: the pictures in the entry's menu now.
    """
    if names.startswith("k"):
        return {names[1:]}
    places, _, digest = names[1:].partition(".")
    if digest != _digest(listed):
        return None
    return {picture.key for place, picture in enumerate(listed) if int(places, 16) >> place & 1}


def waiting_pictures(listed: Sequence[ListedPicture], waiting: Collection[str]) -> list[ListedPicture]:
    """Those listed pictures whose keys are in `waiting`, and `REST` if it stands for any of them."""
    unlisted = set(waiting) - {picture.key for picture in listed}
    return [picture for picture in listed if picture.key in waiting or (picture.key == REST and unlisted)]


def describe_choice(pictures: Sequence[ListedPicture], chosen: Collection[str]) -> str:
    """The chosen ones of several pictures, for a button's label."""
    numbers = [picture.number for picture in pictures if picture.key in chosen]
    if len(numbers) == len(pictures):
        return "all"
    return ", ".join(map(str, numbers)) if len(numbers) <= MAX_NUMBERS else f"{len(numbers)} pictures"


def _digest(pictures: Sequence[ListedPicture]) -> str:
    return hashlib.sha256("\n".join(picture.key for picture in pictures).encode()).hexdigest()[:8]
