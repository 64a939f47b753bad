"""Parameters of the extract stage: the policy, and which images and picture versions are taken."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, Natural, section

Version = Literal["thumb_tiny", "thumb_small", "thumb", "small", "medium", "large", "tall", "full"]
Format = Literal["png", "jpeg", "gif", "svg", "webm"]
LABEL = re.compile(r"\w[\w -]{0,63}")
VERDICTS = ("none", "corrupt", "too_large", "unreadable")
"""Of pictures without a label: none of them can be one."""


@section
class TagRule:
    """Which images a label takes: at least one tag of `any` (if given), every tag of `all`, no tag of `none`."""

    any: list[str] = field(default_factory=list)
    all: list[str] = field(default_factory=list)
    none: list[str] = field(default_factory=list)
    rest: bool = False
    """Take every image that no other label takes."""

    def __post_init__(self) -> None:
        if bool(self.any or self.all or self.none) == self.rest:
            raise ValueError("give either tags (any, all, none) or `rest: true`")


@section
class Policy:
    """What to tell apart, by tags.

    `labels` are in order of severity. In a `binary` (two labels) or `multiclass` policy the last one is the harmless
    one: the verdict when no other reaches its threshold. In a `multilabel` policy an image has any number of labels.
    """

    name: str
    kind: Literal["binary", "multiclass", "multilabel"]
    labels: dict[str, TagRule]
    overlap: Literal["exclude", "first"] = "exclude"
    """What becomes of an image that two labels take. Of no meaning in `multilabel`."""
    min_tags: Annotated[int, Field(ge=0)] = 0
    """Usable tags an image must have (rating, artist and error tags do not count): an untagged one says nothing."""

    def __post_init__(self) -> None:
        least, most = {"binary": (2, 2), "multiclass": (3, 1000), "multilabel": (1, 1000)}[self.kind]
        if not least <= len(self.labels) <= most:
            number = f"exactly {least}" if least == most else f"at least {least}"
            raise ValueError(f"a {self.kind} policy has {number} labels; this has {len(self.labels)}")
        if odd := [label for label in self.labels if not LABEL.fullmatch(label) or label in VERDICTS]:
            raise ValueError(
                f"{odd[0]!r} cannot be a label: letters, digits, spaces, _ and - are allowed, and "
                f"{', '.join(VERDICTS)} are verdicts of their own"
            )
        if sum(rule.rest for rule in self.labels.values()) > 1:
            raise ValueError("only one label can take the rest")


@section
class Extract:
    policy: Policy
    root: Annotated[str, Field(pattern="^https?://")]
    """The address that picture paths are under, as https://derpicdn.net/img."""
    version: Version = "medium"
    formats: Annotated[list[Format], Field(min_length=1)] = field(
        default_factory=lambda: ["png", "jpeg", "gif", "svg", "webm"]
    )
    min_side: Count = 1
    """Shorter side, in px."""
    limit: Count | None = None
    """Images a label, at most; a larger one only adds."""
    seed: Natural = 0
