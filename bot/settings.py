"""What the operator sets: flags for what may be seen, the environment or files for what may not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from bot.pictures.fetching import DISCORD, FetchCaps
from bot.pictures.judging import JudgeCaps
from stages.inference import MLpyError

ENVIRONMENT = """environment:
  MLPY_DISCORD_TOKEN        the bot's token, or
  MLPY_DISCORD_TOKEN_FILE   a file that holds it
  MLPY_BOT_DATABASE         SQLAlchemy URL, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, or
  MLPY_BOT_DATABASE_FILE    a file that holds it  [SQLite in the user's data folder]
  MLPY_DISCORD_API, MLPY_DISCORD_GATEWAY, MLPY_DISCORD_CDN
                            another server that speaks Discord's protocol
  MLPY_CACHE                where models are kept  [the user's cache folder]
  MLPY_LOG                  level of the log  [INFO]
"""


class SettingsError(MLpyError):
    """A setting is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """All of it, checked."""

    token: str = field(repr=False)
    database: str = field(repr=False)
    model: str
    """A gto stage or version, a git rev, or `workspace`."""
    repo: str | None = field(default=None, repr=False)
    """Git repository that has the model; None: that of the current folder."""
    check: bool = False
    poll: float = 0.0
    """Seconds between looks for a new tag; 0: none."""
    retention: int = 90
    """Days that decisions, rulings and scores are kept."""
    port: int = 0
    """Of /healthz and /metrics on loopback; 0: neither."""
    grace: float = 20.0
    """Seconds that what is under way has to finish after SIGTERM."""
    shard_ids: tuple[int, ...] | None = None
    shard_count: int | None = None
    origins: frozenset[str] = DISCORD
    """Of the CDN and media proxy."""
    api: str = ""
    gateway: str = ""
    judge: JudgeCaps = field(default_factory=JudgeCaps)
    fetch: FetchCaps = field(default_factory=FetchCaps)

    def __post_init__(self) -> None:
        if not self.token:
            raise SettingsError("no token: set MLPY_DISCORD_TOKEN, or MLPY_DISCORD_TOKEN_FILE to a file that holds it")
        if self.shard_ids is not None:
            if self.shard_count is None:
                raise SettingsError("--shard-ids needs --shard-count, the number of shards of all processes together")
            if wrong := [each for each in self.shard_ids if not 0 <= each < self.shard_count]:
                raise SettingsError(f"--shard-ids: {wrong[0]} is not below --shard-count {self.shard_count}")
        if self.retention < 1:
            raise SettingsError("--retention: keep decisions for at least one day")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be written anywhere."""
        return tuple(filter(None, (self.token, _password(self.database), _password(self.repo or ""))))


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        SettingsError: if one is missing or cannot be used.
    """
    options = _parser().parse_args(arguments)
    cdn = environment.get("MLPY_DISCORD_CDN", "")
    return Settings(
        token=_secret(environment, "MLPY_DISCORD_TOKEN"),
        database=_secret(environment, "MLPY_BOT_DATABASE") or _sqlite(),
        model=options.model,
        repo=options.repo,
        check=options.check,
        poll=options.poll,
        retention=options.retention,
        port=options.port,
        grace=options.grace,
        shard_ids=options.shard_ids,
        shard_count=options.shard_count,
        origins=frozenset(cdn.split(",")) if cdn else DISCORD,
        api=environment.get("MLPY_DISCORD_API", ""),
        gateway=environment.get("MLPY_DISCORD_GATEWAY", ""),
        judge=JudgeCaps(
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            frames=options.frames,
            queue=options.queue,
            threads=options.threads,
        ),
        fetch=FetchCaps(max_bytes=options.max_bytes, seconds=options.seconds),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bot",
        description="Moderate pictures in Discord with the model that a git tag names.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    caps, fetch = JudgeCaps(), FetchCaps()
    parser.add_argument(
        "--model", required=True, help="moderator#prod, moderator@v1.2.0, any git rev, or workspace", metavar="NAME"
    )
    parser.add_argument("--repo", help="git repository that has the model [that of this folder]", metavar="URL")
    parser.add_argument("--check", action="store_true", help="do all but connect to Discord; the exit code tells")
    parser.add_argument("--poll", type=_seconds, default=0.0, help="look for a new tag this often [never]", metavar="S")
    parser.add_argument("--retention", type=int, default=90, help="keep decisions this long [90]", metavar="DAYS")
    parser.add_argument("--port", type=_port, default=0, help="serve /healthz and /metrics on 127.0.0.1 [off]")
    parser.add_argument("--grace", type=_seconds, default=20.0, help="time to finish at a stop [20]", metavar="S")
    parser.add_argument("--shard-ids", type=_ids, help="this process's shards, such as 0,1 or 0-3 [all]", metavar="IDS")
    parser.add_argument("--shard-count", type=int, help="shards of all processes together [Discord says]", metavar="N")
    costs = parser.add_argument_group("what a picture may cost")
    costs.add_argument("--max-bytes", type=int, default=caps.max_bytes, help=f"[{caps.max_bytes}]", metavar="N")
    costs.add_argument("--max-pixels", type=int, default=caps.max_pixels, help=f"[{caps.max_pixels}]", metavar="N")
    costs.add_argument("--frames", type=int, default=caps.frames, help=f"of an animation [{caps.frames}]", metavar="N")
    costs.add_argument("--seconds", type=_seconds, default=fetch.seconds, help=f"to fetch it [{fetch.seconds:g}]")
    costs.add_argument("--queue", type=int, default=caps.queue, help=f"pictures at a time [{caps.queue}]", metavar="N")
    costs.add_argument("--threads", type=int, default=caps.threads, help=f"that judge [{caps.threads}]", metavar="N")
    return parser


def _secret(environment: Mapping[str, str], name: str) -> str:
    if file := environment.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{name}_FILE: {file} cannot be read ({type(error).__name__})") from None
    return environment.get(name, "").strip()


def _sqlite() -> str:
    folder = platformdirs.user_data_path("mlpy", appauthor=False, ensure_exists=True)
    return f"sqlite:///{folder / 'bot.sqlite'}"


def _password(url: str) -> str:
    """What stands between the first colon after // and the last @ before the path."""
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return user.partition(":")[2]


def _ids(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError
    return tuple(sorted(set(found)))


def _seconds(text: str) -> float:
    if (value := float(text)) < 0:
        raise ValueError
    return value


def _port(text: str) -> int:
    if not 0 <= (value := int(text)) < 65536:
        raise ValueError
    return value
