"""The Open Clip Art Library -> the sample board's images, as messy as a real board's.

Everything is a function of the library's contents: ids, dates and all else that a board adds come from hashes.
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
"""Tags that the staff replaced by another; some images still have them."""
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
"""Tags that imply another. Some of them are on no image."""
UNTAGGED = "tagme"
RATING = "safe"
PREFIX = "artist:"
NAMELESS = re.compile(r"(none|unknown|anonymous|hash\(0x.*)?")
JUNK = re.compile(r"hash(\(0x.*)?")
"""What a bug of the library's own software wrote in place of a list of tags."""
PUBLIC_DOMAIN = re.compile(r"public ?domain", re.IGNORECASE)
NO_LICENCE = "Not stated to be in the public domain"
FIRST_DAY = datetime(2005, 1, 1)  # noqa: DTZ001 (a board's times are UTC without a zone)


@dataclass(frozen=True)
class Upload:
    """A row of the board's table `images`, and the rows of other tables that belong to it."""

    id: int
    created_at: datetime
    picture: Picture
    name: str
    """The uploaded file's name: the last part of the picture's."""
    format: str
    work: Work
    tags: tuple[str, ...]
    """Sorted."""
    merged_into: int | None = None
    """The id of the image that it duplicates."""
    removed: str | None = None
    """The reason, if the staff removed it."""

    @property
    def hidden(self) -> bool:
        """Whether the board no longer shows it."""
        return self.removed is not None or self.merged_into is not None


def draw(*words: object) -> int:
    """A pseudorandom integer of 64 bits, determined by the words."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8])


def uploads(contents: Contents) -> list[Upload]:
    """All images ever uploaded to the sample board, hidden ones included, by ascending id."""
    pictures = {picture.name: picture for picture in contents.pictures}
    works = {name: picture.work for name, picture in pictures.items()}
    works |= {duplicate.name: duplicate.work for duplicate in contents.duplicates}
    originals = {duplicate.name: duplicate.of for duplicate in contents.duplicates}
    tags = {name: _tags(work) for name, work in works.items()}
    for name, into in originals.items():  # merging two images also merges their tags
        tags[into] |= tags[name]

    # Shuffled by hash: the library is sorted by subject, but a board's ids say nothing about content.
    order = sorted(works, key=lambda name: (draw("order", name), name))
    ids: dict[str, int] = {}
    last = 0
    for name in order:
        last += 1 + (draw("gap", name) % 5 == 0)  # a gap is an upload of which no trace is left
        ids[name] = last
    moment = FIRST_DAY
    uploaded = []
    for name in order:
        moment += timedelta(seconds=draw("pause", name) % 100_000)
        original = originals.get(name)
        uploaded.append(
            Upload(
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
    return uploaded


def _is_public_domain(work: Work) -> bool:
    return bool(work.licences) and all(PUBLIC_DOMAIN.search(licence) for licence in work.licences)


def _tags(work: Work) -> set[str]:
    """Tags as a board stores them: split at commas, in lower case, with single spaces and without junk."""
    names = {" ".join(part.split()) for tag in work.tags for part in html.unescape(tag).lower().split(",")}
    return {name for name in names if name and not JUNK.fullmatch(name)}


def _artists(work: Work) -> set[str]:
    names = {part.strip() for creator in work.creators for part in _without_address(creator).split(",")}
    return {f"{PREFIX}{name}" for name in names if not NAMELESS.fullmatch(name)}


def _without_address(creator: str) -> str:
    """A creator's name in lower case, without the e-mail address."""
    name = html.unescape(creator).lower().removeprefix("mailto:")
    bare = re.sub(r"[\s(<\[-]*\S+@\S+", "", name).strip()
    return bare or name.partition("@")[0]
