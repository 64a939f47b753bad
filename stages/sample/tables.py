"""The written tables of `origins/`: which pictures of a Debian package the sample board gets, and with which tags."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from stages.sample.debian import Package

FOLDER = Path(__file__).with_name("origins")
STRICT = ConfigDict(extra="forbid")
Reader = Literal["files", "crossfire", "decks", "emoji", "freeciv", "glyphs"]
"""How a package keeps its pictures: a module of `readers`."""


@checked(frozen=True, config=STRICT)
class Rule:
    """Pictures by their names, and the tags that they get."""

    names: tuple[str, ...]
    """Regular expressions for whole names. A picture's name is its path in the package, without the ending."""
    tags: tuple[str, ...]
    """Without tags, the pictures are left out."""
    most: int | None = None
    """Take at most so many, chosen by hash."""

    def matches(self, name: str) -> bool:
        return re.fullmatch("|".join(f"(?:{pattern})" for pattern in self.names), name) is not None


@checked(frozen=True, config=STRICT)
class Origin:
    """A package's table."""

    package: str
    version: str
    sha256: str
    creator: str
    licence: str
    homepage: str
    reader: Reader
    inside: str
    """Folder of the package that names are relative to."""
    first_id: int
    """The board's id of its first picture. Each origin has a thousand ids of its own, so one that a machine cannot
    download leaves a gap, and moves nothing."""
    rules: tuple[Rule, ...]
    """The first rule that matches a name decides."""
    name: str = ""
    """Of the origin's tag: the table's file name."""

    @property
    def debian(self) -> Package:
        return Package(self.package, self.version, self.sha256)


@dataclass(frozen=True)
class Chosen:
    """A picture to upload."""

    name: str
    tags: tuple[str, ...]


TABLE = TypeAdapter(Origin)


def read(folder: Path = FOLDER) -> tuple[Origin, ...]:
    """All tables of a folder, by name."""
    return tuple(
        TABLE.validate_python({**yaml.safe_load(file.read_bytes()), "name": file.stem})
        for file in sorted(folder.glob("*.yaml"))
    )


def choose(origin: Origin, names: Iterable[str]) -> list[Chosen]:
    """The pictures that the origin's rules take, sorted by name."""
    # By hash, so that what a rule takes at most is spread over the package, and the same in each run.
    order = sorted(names, key=lambda name: hashlib.sha256(f"{origin.name}/{name}".encode()).digest())
    taken: Counter[Rule] = Counter()
    chosen = []
    for name in order:
        rule = next((rule for rule in origin.rules if rule.matches(name)), None)
        if rule is None or not rule.tags or (rule.most is not None and taken[rule] >= rule.most):
            continue
        taken[rule] += 1
        chosen.append(Chosen(name, rule.tags))
    return sorted(chosen, key=lambda picture: picture.name)
