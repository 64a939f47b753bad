"""Parameters of the extract stage: the policy, and which images and picture versions to use."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, Natural, section

Version = Literal["thumb_tiny", "thumb_small", "thumb", "small", "medium", "large", "tall", "full"]
Format = Literal["png", "jpeg", "gif", "svg", "webm", "webp", "avif", "bmp", "tiff"]
"""Formats of a board, and further ones that a folder of pictures may have."""
# Labels become column names, and words of Discord messages.
LABEL = re.compile(r"\w[\w -]{0,63}")
VERDICTS = ("none", "corrupt", "too_large", "unreadable")
"""Verdicts on pictures that get no label, so none of them can be a label's name."""


@section
class TagRule:
    """Which images a label matches: at least one tag of `any` (if given), every tag of `all`, no tag of `none`."""

    any: list[str] = field(default_factory=list)
    all: list[str] = field(default_factory=list)
    none: list[str] = field(default_factory=list)
    rest: bool = False
    """Match every image that no other label matches."""

    def __post_init__(self) -> None:
        if bool(self.any or self.all or self.none) == self.rest:
            raise ValueError("give either tags (any, all, none) or `rest: true`")


@section
class Policy:
    """The labels to tell apart, defined by tags.

    `labels` are in order of severity. In a `binary` (two labels) or `multiclass` policy the last one is the harmless
    one: the verdict when no other reaches its threshold. In a `multilabel` policy an image has any number of labels.
    """

    name: str
    kind: Literal["binary", "multiclass", "multilabel"]
    labels: dict[str, TagRule]
    overlap: Literal["exclude", "first"] = "exclude"
    """An image that two labels match is left out, or gets the first of them. `multilabel` ignores it."""
    min_tags: Annotated[int, Field(ge=0)] = 0
    """Tags that an image needs, not counting ratings, artists and errors: an image without tags may show anything."""

    def __post_init__(self) -> None:
        least, most = {"binary": (2, 2), "multiclass": (3, 1000), "multilabel": (1, 1000)}[self.kind]
        if not least <= len(self.labels) <= most:
            number = f"exactly {least}" if least == most else f"at least {least}"
            raise ValueError(f"a {self.kind} policy has {number} labels; this one has {len(self.labels)}")
        if invalid := [label for label in self.labels if not LABEL.fullmatch(label) or label in VERDICTS]:
            raise ValueError(
                f"{invalid[0]!r} cannot be a label: use letters, digits, spaces, _ and -; "
                f"{', '.join(VERDICTS)} are reserved"
            )
        if sum(rule.rest for rule in self.labels.values()) > 1:
            raise ValueError("only one label can have `rest: true`")


@section
class Extract:
    policy: Policy
    root: Annotated[str, Field(pattern="^https?://")]
    """The address that all picture paths start with, for example https://derpicdn.net/img."""
    version: Version = "medium"
    """Which of the board's sizes to download; an image that is smaller than it is downloaded in full."""
    formats: Annotated[list[Format], Field(min_length=1)] = field(
        default_factory=lambda: ["png", "jpeg", "gif", "svg", "webm"]
    )
    min_side: Count = 1
    """Least length of the shorter side, in px."""
    limit: Count | None = None
    """Most images of each label. A larger limit keeps all images of a smaller one."""
    seed: Natural = 0
    """Which images a `limit` keeps."""
    corrections: str | None = None
    """File of corrections of labels and tags, a dep of the stage. Each source has its own."""
