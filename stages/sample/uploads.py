"""The Open Clip Art Library and pictures by other hands -> the sample board's images, as messy as a real board's.

Everything is a function of the library's contents: ids, dates and all else that a board adds come from hashes. Each
origin has ids of its own, so what one has says nothing of the others' ids.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from stages.philomena.tags import ARTIST, LICENCE, ORIGIN
from stages.sample.openclipart import Contents, Picture
from stages.sample.works import Work

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
NAMELESS = re.compile(r"(none|unknown|anonymous|hash\(0x.*)?")
JUNK = re.compile(r"hash(\(0x.*)?")
"""What a bug of the library's own software wrote in place of a list of tags."""
PUBLIC_DOMAIN = re.compile(r"public ?domain", re.IGNORECASE)
NO_LICENCE = "Not stated to be in the public domain"
OPENCLIPART = Work().origin
FIRST_DAY = datetime(2005, 1, 1)  # noqa: DTZ001 (a board's times are UTC without a zone)
PAUSE = 100_000
"""Longest time between two uploads, in seconds."""


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

    moments = _moments(works | dict.fromkeys(contents.withdrawn, Work()))
    ids = {name: number for name, (number, _) in moments.items()}
    uploaded = []
    for name, (_, moment) in moments.items():
        if name not in works:  # withdrawn
            continue
        original = originals.get(name)
        uploaded.append(
            Upload(
                id=ids[name],
                created_at=moment,
                picture=pictures[original or name],
                name=name.rpartition("/")[2],
                format="PNG" if draw("format", name) % 20 == 0 else "png",
                work=works[name],
                tags=tuple(
                    sorted((tags[name] or {UNTAGGED}) | _artists(works[name]) | _provenance(works[name]) | {RATING})
                ),
                merged_into=ids[original] if original else None,
                removed=None if original or _is_allowed(works[name]) else NO_LICENCE,
            )
        )
    return uploaded


def _moments(works: Mapping[str, Work]) -> dict[str, tuple[int, datetime]]:
    """Each picture's id and time, by ascending id. Those of withdrawn pictures count: no id depends on what stays."""
    moments = {}
    for first_id in sorted({work.first_id for work in works.values()}):
        number, moment = first_id - 1, FIRST_DAY + timedelta(seconds=(first_id - 1) * PAUSE // 2)
        names = [name for name, work in works.items() if work.first_id == first_id]
        # Shuffled by hash: a library is sorted by subject, but a board's ids say nothing about content.
        for name in sorted(names, key=lambda name: (draw("order", name), name)):
            number += 1 + (draw("gap", name) % 5 == 0)  # a gap is an upload of which no trace is left
            moment += timedelta(seconds=draw("pause", name) % PAUSE)
            moments[name] = number, moment
    return moments


def _is_allowed(work: Work) -> bool:
    """Whether the picture may be shown: the licences of other origins were read when their tables were written."""
    return work.origin != OPENCLIPART or _is_public_domain(work)


def _is_public_domain(work: Work) -> bool:
    return bool(work.licences) and all(PUBLIC_DOMAIN.search(licence) for licence in work.licences)


def _provenance(work: Work) -> set[str]:
    """The tags that name the picture's origin and licence."""
    licences = {"public domain"} if _is_public_domain(work) else {licence.lower() for licence in work.licences}
    return {f"{ORIGIN}{work.origin}", *(f"{LICENCE}{licence}" for licence in licences)}


def _tags(work: Work) -> set[str]:
    """Tags as a board stores them: split at commas, in lower case, with single spaces and without junk."""
    names = {" ".join(part.split()) for tag in work.tags for part in html.unescape(tag).lower().split(",")}
    return {name for name in names if name and not JUNK.fullmatch(name)}


def _artists(work: Work) -> set[str]:
    names = {part.strip() for creator in work.creators for part in _without_address(creator).split(",")}
    return {f"{ARTIST}{name}" for name in names if not NAMELESS.fullmatch(name)}


def _without_address(creator: str) -> str:
    """A creator's name in lower case, without the e-mail address."""
    name = html.unescape(creator).lower().removeprefix("mailto:")
    bare = re.sub(r"[\s(<\[-]*\S+@\S+", "", name).strip()
    return bare or name.partition("@")[0]
