"""The operator's settings: flags on the command line, secrets from the environment or from files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from yarl import URL

from bot.pictures.fetching import DISCORD, FetchCaps
from bot.pictures.judging import JudgeCaps
from stages.inference import MLpyError

ENVIRONMENT = """environment:
  MLPY_DISCORD_TOKEN        the bot's token, or
  MLPY_DISCORD_TOKEN_FILE   a file that contains it
  MLPY_BOT_DATABASE         SQLAlchemy URL, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, or
  MLPY_BOT_DATABASE_FILE    a file that contains it  [SQLite in the user's data folder]
  MLPY_DISCORD_API, MLPY_DISCORD_GATEWAY, MLPY_DISCORD_CDN
                            addresses of another server that speaks Discord's protocol
  MLPY_CACHE                folder for downloaded models  [the user's cache folder]
  MLPY_LOG                  log level  [INFO]
"""


class SettingsError(MLpyError):
    """A setting is missing or invalid; the message names it."""


@dataclass(frozen=True)
class Settings:
    """All settings, validated."""

    token: str = field(repr=False)
    database: str = field(repr=False)
    model: str
    """A gto stage or version, a git revision, or `workspace`."""
    repo: str | None = field(default=None, repr=False)
    """Folder or URL of the git repository with the model; None: the current folder's."""
    check: bool = False
    """Stop before connecting to Discord."""
    poll: float = 0.0
    """Seconds between checks for a new tag; 0: never."""
    retention: int = 90
    """Days that decisions, rulings and scores are stored."""
    lists: tuple[Path, ...] = ()
    """Files with decisions on pictures, which servers may follow by their names."""
    port: int = 0
    """Loopback port of /healthz and /metrics; 0: off."""
    grace: float = 20.0
    """Seconds that messages in progress have to finish after SIGTERM."""
    shard_ids: tuple[int, ...] | None = None
    shard_count: int | None = None
    origins: frozenset[str] = DISCORD
    """Origins of the CDN and the media proxy."""
    api: str = ""
    gateway: str = ""
    judge: JudgeCaps = field(default_factory=JudgeCaps)
    fetch: FetchCaps = field(default_factory=FetchCaps)

    def __post_init__(self) -> None:
        if not self.check:  # which loads the model first, and asks for the token then
            self.require_token()
        if self.shard_ids is not None:
            if self.shard_count is None:
                raise SettingsError("--shard-ids needs --shard-count, the number of shards of all processes together")
            if invalid := [shard for shard in self.shard_ids if not 0 <= shard < self.shard_count]:
                raise SettingsError(f"--shard-ids {invalid[0]} must be lower than --shard-count {self.shard_count}")
        if self.retention < 1:
            raise SettingsError("--retention must be at least 1 day")

    def require_token(self) -> None:
        """Raise a `SettingsError` if there is no token."""
        if not self.token:
            raise SettingsError(
                "there is no token; set MLPY_DISCORD_TOKEN, or MLPY_DISCORD_TOKEN_FILE to a file that contains it"
            )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no log may contain."""
        return tuple(filter(None, (self.token, _password(self.database), _password(self.repo or ""))))


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        SettingsError: if one is missing or invalid.
    """
    options = _parser().parse_args(arguments)
    cdn = environment.get("MLPY_DISCORD_CDN", "")
    return Settings(
        token=_secret(environment, "MLPY_DISCORD_TOKEN"),
        database=_secret(environment, "MLPY_BOT_DATABASE") or _default_database(),
        model=options.model,
        repo=options.repo,
        check=options.check,
        poll=options.poll,
        retention=options.retention,
        lists=tuple(options.list),
        port=options.port,
        grace=options.grace,
        shard_ids=options.shard_ids,
        shard_count=options.shard_count,
        origins=_origins(cdn) if cdn else DISCORD,
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
        description="Moderate the pictures of a Discord server with the exact model that a git tag points to.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="moderator#prod, moderator@v1.2.0, a git revision, or workspace"
    )
    parser.add_argument(
        "--repo", metavar="URL", help="git repository with the model, a folder or a URL [current folder]"
    )
    parser.add_argument(
        "--check", action="store_true", help="load model and database, then exit without connecting to Discord"
    )
    parser.add_argument(
        "--poll", type=_seconds, default=0.0, metavar="S", help="seconds between checks for a new tag [never]"
    )
    parser.add_argument("--retention", type=int, default=90, metavar="DAYS", help="days to store decisions [90]")
    parser.add_argument(
        "--list",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="decisions on pictures that servers may follow, as /pictures export writes them; may be repeated",
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="serve /healthz and /metrics on this port of 127.0.0.1 [off]"
    )
    parser.add_argument(
        "--grace", type=_seconds, default=20.0, metavar="S", help="seconds to finish checks after SIGTERM [20]"
    )
    parser.add_argument(
        "--shard-ids", type=_shard_ids, metavar="IDS", help="shards of this process, such as 0,1 or 0-3 [all]"
    )
    parser.add_argument(
        "--shard-count",
        type=int,
        metavar="N",
        help="number of shards of all processes together [as Discord recommends]",
    )
    _add_limits(parser)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    judge, fetch = JudgeCaps(), FetchCaps()
    group = parser.add_argument_group("limits per picture and of the queue")
    group.add_argument(
        "--max-bytes", type=int, default=judge.max_bytes, metavar="N", help=f"file size in bytes [{judge.max_bytes}]"
    )
    group.add_argument(
        "--max-pixels", type=int, default=judge.max_pixels, metavar="N", help=f"pixels of a frame [{judge.max_pixels}]"
    )
    group.add_argument(
        "--frames", type=int, default=judge.frames, metavar="N", help=f"frames of an animation [{judge.frames}]"
    )
    group.add_argument(
        "--seconds", type=_seconds, default=fetch.seconds, metavar="S", help=f"download time [{fetch.seconds:g}]"
    )
    group.add_argument(
        "--queue", type=int, default=judge.queue, metavar="N", help=f"pictures in progress [{judge.queue}]"
    )
    group.add_argument(
        "--threads", type=int, default=judge.threads, metavar="N", help=f"worker threads [{judge.threads}]"
    )


def _secret(environment: Mapping[str, str], name: str) -> str:
    """A secret from the file that NAME_FILE names, or from the variable NAME; empty if neither is set."""
    # A file, such as a container's secret, shows up in no list of processes or environment.
    if file := environment.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{name}_FILE: {file} cannot be read ({type(error).__name__}); check its path and permissions"
            ) from None
    return environment.get(name, "").strip()


def _origins(text: str) -> frozenset[str]:
    """Origins, separated by commas.

    Raises:
        SettingsError: if one is not a scheme, a host and perhaps a port.
    """
    origins = frozenset(filter(None, map(str.strip, text.split(","))))
    for origin in origins:
        try:
            url = URL(origin)
            valid = url.scheme in ("http", "https") and bool(url.host) and url.port != 0
            valid = valid and url.with_path("/") == url and not (url.query_string or url.fragment or url.raw_user)
        except ValueError:
            valid = False
        if not valid:
            # Not the text itself: it may be something else, such as a token in the wrong variable.
            raise SettingsError(
                "MLPY_DISCORD_CDN is not a list of origins; write it as in https://cdn.example,https://media.example:8443"
            )
    if not origins:
        raise SettingsError("MLPY_DISCORD_CDN names no origin; leave it out for Discord's own")
    return origins


def _default_database() -> str:
    folder = platformdirs.user_data_path("mlpy", appauthor=False, ensure_exists=True)
    return f"sqlite:///{folder / 'bot.sqlite'}"


def _password(url: str) -> str:
    """A URL's password, still quoted: from the first colon after // to the last @ before the path."""
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return user.partition(":")[2]


# argparse turns a ValueError of these into its usage message.


def _shard_ids(text: str) -> tuple[int, ...]:
    ids: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ids.update(range(int(first), int(last if dash else first) + 1))
    if not ids:
        raise ValueError
    return tuple(sorted(ids))


def _seconds(text: str) -> float:
    if (value := float(text)) < 0:
        raise ValueError
    return value


def _port(text: str) -> int:
    if not 0 <= (value := int(text)) < 65536:
        raise ValueError
    return value
