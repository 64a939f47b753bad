"""The sample board's images -> the rows of a Philomena board's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from stages.philomena import board, tags
from stages.philomena.board import Row
from stages.sample.uploads import ALIASES, IMPLICATIONS, UNTAGGED, Upload, draw

ROOT = "http://sample.localhost/img"
USERS = 40
REMARKS = ("Lovely.", "What a fine line.", "Is there a larger one?", "I drew this on paper first.", "First!")


def tables(uploaded: Sequence[Upload]) -> dict[str, list[Row]]:
    """Table -> its rows, in an order that satisfies the foreign keys."""
    numbers = tag_numbers(uploaded)
    users = [
        {"id": number, "name": f"User {number}", "slug": f"User+{number}", "created_at": uploaded[0].created_at}
        for number in range(1, USERS + 1)
    ]
    faves = [
        {"image_id": image.id, "user_id": user, "created_at": image.created_at + timedelta(days=user)}
        for image in uploaded
        for user in sorted({draw("fave", image.id, turn) % USERS + 1 for turn in range(draw("faves", image.id) % 4)})
    ]
    commented = [image for image in uploaded if draw("commented", image.id) % 5 == 0]
    comments = [
        {
            "id": number,
            "image_id": image.id,
            "user_id": draw("author", image.id) % USERS + 1,
            "created_at": image.created_at + timedelta(hours=number % 90),
            "body": REMARKS[draw("remark", image.id) % len(REMARKS)],
        }
        for number, image in enumerate(commented, 1)
    ]
    faved = Counter(row["image_id"] for row in faves)
    discussed = {image.id for image in commented}
    return {
        "users": users,
        "images": [image_row(image, faved[image.id], int(image.id in discussed)) for image in uploaded],
        "tags": tag_rows(uploaded, numbers),
        "image_taggings": [{"image_id": image.id, "tag_id": numbers[tag]} for image in uploaded for tag in image.tags],
        "image_intensities": [
            {"image_id": image.id, **dict(zip(INTENSITIES, image.picture.statistics.corners, strict=True))}
            for image in uploaded
        ],
        "image_duplicates": [
            {"image_id": image.id, "target_id": image.merged_into} for image in uploaded if image.merged_into
        ],
        "image_hides": [{"image_id": image.id, "reason": image.removed} for image in uploaded if image.removed],
        "image_sources": [{"image_id": image.id, "source": image.work.homepage} for image in uploaded],
        "image_faves": faves,
        "tag_aliases": [{"tag_id": numbers[tag], "target_tag_id": numbers[of]} for tag, of in ALIASES.items()],
        "tag_implications": [
            {"tag_id": numbers[tag], "target_tag_id": numbers[implied]} for tag, implied in IMPLICATIONS.items()
        ],
        "comments": comments,
    }


INTENSITIES = ("nw_intensity", "ne_intensity", "sw_intensity", "se_intensity")


def image_row(image: Upload, faves: int, comments: int) -> Row:
    """A row of `images`."""
    created, statistics = image.created_at, image.picture.statistics
    sha512 = None if draw("hash", image.id) % 500 == 0 else statistics.sha512  # some old rows of a real board lack it
    # On a board, a favourite is also an upvote.
    upvotes, downvotes = faves + draw("up", image.id) % 20, draw("down", image.id) % 3
    work = image.work
    return {
        "id": image.id,
        "created_at": created,
        "updated_at": created + timedelta(hours=draw("update", image.id) % 5000),
        "image_width": statistics.width,
        "image_height": statistics.height,
        "image_size": statistics.size,
        "comment_count": comments,
        "score": upvotes - downvotes,
        "favorites": faves,
        "upvotes": upvotes,
        "downvotes": downvotes,
        "hides": draw("hides", image.id) % 2,
        "image_aspect_ratio": statistics.width / statistics.height,
        "user_id": draw("uploader", image.id) % USERS + 1 if draw("anonymous", image.id) % 4 else None,
        "hidden_from_users": image.hidden,
        "image_mime_type": "image/png",
        "image_format": image.format,
        "image_name": image.name,
        "version_path": f"{ROOT}/{created.year}/{created.month}/{created.day}/{image.id}/",
        "image_sha512_hash": sha512,
        "image_orig_sha512_hash": sha512,
        "description": "\n\n".join(filter(None, (work.title, work.description))) or None,
    }


def tag_numbers(uploaded: Sequence[Upload]) -> dict[str, int]:
    """Tag -> its id, with gaps: first the ratings and the staff's tags, then the others by first use."""
    # Staff define ratings, aliases and implications before any image has them.
    staff_tags = [
        *tags.RATINGS,
        UNTAGGED,
        *sorted({*ALIASES, *ALIASES.values(), *IMPLICATIONS, *IMPLICATIONS.values()}),
    ]
    numbers: dict[str, int] = {}
    last = 0
    for tag in dict.fromkeys([*staff_tags, *(tag for image in uploaded for tag in image.tags)]):
        last += 1 + draw("tag", tag) % 3
        numbers[tag] = last
    return numbers


def tag_rows(uploaded: Sequence[Upload], numbers: dict[str, int]) -> list[Row]:
    """The rows of `tags`; `image_count` counts visible images only."""
    counts = Counter(tag for image in uploaded if not image.hidden for tag in image.tags)
    return [
        {
            "id": number,
            "image_count": counts[tag],
            "name": tag,
            "slug": board.slug(tag),
            "category": category(tag),
            "short_description": f"The artist {tag.removeprefix(tags.ARTIST)}" if tag.startswith(tags.ARTIST) else None,
        }
        for tag, number in numbers.items()
    ]


def category(tag: str) -> str | None:
    """A tag's category on a board; most tags have none."""
    if tag in tags.RATINGS:
        return "rating"
    return (
        "origin" if tag.startswith((tags.ARTIST, tags.ORIGIN, tags.LICENCE)) else "error" if tag == UNTAGGED else None
    )
