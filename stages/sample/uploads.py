"""The Open Clip Art Library -> the sample board's images, with the mess that a real board has.

Everything follows from the library's contents alone: ids, dates and whatever else a board adds are drawn by hash.
"""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from stages.sample.openclipart import Contents, Picture, Work

ALIASES = {
    "children": "child",
    "drink_alcohol": "alcohol",
    "etoile": "étoile",
    "flags": "flag",
    "gijon": "gijón",
    "girls": "girl",
    "hand_grenade": "grenade",
    "swords": "sword",
    "weapons": "weapon",
}
"""Tags that the staff took for another; some images still carry them."""
IMPLICATIONS = {
    "baby": "child",
    "beer": "alcohol",
    "casino": "gambling",
    "champagne": "wine",
    "cigarette": "tobacco",
    "grenade": "weapon",
    "gun": "weapon",
    "katana": "sword",
    "knife": "weapon",
    "man": "people",
    "missile": "weapon",
    "pipe": "tobacco",
    "poker": "gambling",
    "rifle": "gun",
    "roulette": "gambling",
    "sword": "weapon",
    "wine": "alcohol",
    "woman": "people",
}
"""Tags that imply another. The staff prepared some that no image has yet."""
UNTAGGED = "tagme"
RATING = "safe"
PREFIX = "artist:"
NAMELESS = re.compile(r"(none|unknown|anonymous|hash\(0x.*)?")
JUNK = re.compile(r"hash(\(0x.*)?")
"""What the library's own software put in place of a list of tags."""
PUBLIC_DOMAIN = re.compile(r"public ?domain", re.IGNORECASE)
NO_LICENCE = "Not stated to be in the public domain"
FIRST_DAY = datetime(2005, 1, 1)  # noqa: DTZ001 (a board's times are UTC without saying so)


@dataclass(frozen=True)
class Image:
    """A row of `images`, and what hangs on it."""

    id: int
    created_at: datetime
    picture: Picture
    name: str
    """The uploaded file's: the last part of the picture's name."""
    format: str
    work: Work
    tags: tuple[str, ...]
    """Sorted."""
    merged_into: int | None = None
    removed: str | None = None
    """Why."""

    @property
    def hidden(self) -> bool:
        """Whether the board no longer shows it."""
        return self.removed is not None or self.merged_into is not None


def draw(*words: object) -> int:
    """A whole number of 64 bits that follows from the words."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8])


def images(contents: Contents) -> list[Image]:
    """Every image that was ever uploaded to the sample board, by ascending id."""
    pictures = {picture.name: picture for picture in contents.pictures}
    works = {name: picture.work for name, picture in pictures.items()}
    works |= {each.name: each.work for each in contents.duplicates}
    originals = {each.name: each.of for each in contents.duplicates}
    tags = {name: _tags(work) for name, work in works.items()}
    for name, into in originals.items():  # as the staff merges images, so it merges their tags
        tags[into] |= tags[name]

    # The uploads come in an order that has nothing to do with what they show.
    order = sorted(works, key=lambda name: (draw("order", name), name))
    ids: dict[str, int] = {}
    last = 0
    for name in order:
        last += 1 + (draw("gap", name) % 5 == 0)  # a few uploads are gone without a trace
        ids[name] = last
    moment = FIRST_DAY
    found = []
    for name in order:
        moment += timedelta(seconds=draw("pause", name) % 100_000)
        original = originals.get(name)
        found.append(
            Image(
                id=ids[name],
                created_at=moment,
                picture=pictures[original or name],
                name=name.rpartition("/")[2],
                format="PNG" if draw("format", name) % 20 == 0 else "png",
                work=works[name],
                tags=tuple(sorted((tags[name] or {UNTAGGED}) | _artists(works[name]) | {RATING})),
                merged_into=ids[original] if original else None,
                removed=None if original or _is_public_domain(works[name]) else NO_LICENCE,
            )
        )
    return found


def _is_public_domain(work: Work) -> bool:
    return bool(work.licences) and all(PUBLIC_DOMAIN.search(licence) for licence in work.licences)


def _tags(work: Work) -> set[str]:
    """Tags as the board takes them: lower case, one space at a time, commas between them; without junk."""
    names = {" ".join(part.split()) for tag in work.tags for part in html.unescape(tag).lower().split(",")}
    return {name for name in names if name and not JUNK.fullmatch(name)}


def _artists(work: Work) -> set[str]:
    names = {part.strip() for creator in work.creators for part in _without_address(creator).split(",")}
    return {f"{PREFIX}{name}" for name in names if not NAMELESS.fullmatch(name)}


def _without_address(creator: str) -> str:
    """A creator's name in lower case: an e-mail address is no part of it."""
    name = html.unescape(creator).lower().removeprefix("mailto:")
    bare = re.sub(r"[\s(<\[-]*\S+@\S+", "", name).strip()
    return bare or name.partition("@")[0]
