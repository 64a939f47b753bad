"""The bot's tables: settings, decisions, hashes and scores. Never pictures or message text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    or_,
)

SCHEMA = 3
"""Version of these tables. The bot upgrades an older database by `bot.storage.migrations`, and refuses a newer one."""

OPEN, CLOSED = "open", "closed"
"""States of a decision: waiting for review, or never posted for review."""
APPROVED, DELETED, TIMED_OUT, WRONG = "approved", "deleted", "timed_out", "wrong"
"""States that a moderator's click sets."""
LEFT, UNDONE = "left", "undone"
"""States that a moderator's click sets on a wave: nothing is done to its messages, or what was done is undone."""

UNJUDGED_ORIGIN = "unjudged"
"""Origin of a decision that no model and no moderator made. A later verdict on the same picture replaces it."""

PLANNED, ACTED, POSTED = "planned", "acted", "posted"
"""States of a row of `outbox`: to be done, done but not reported in the mod-log, reported."""

TOLD, SENT, APPEALED, UPHELD, REVERSED = "told", "sent", "appealed", "upheld", "reversed"
"""States of an appeal: its author was told, has written to the moderators, they can read it, and what they decided."""

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text, nullable=False))

policies = Table(
    "policies",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("policy", Text, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("guild_id", BigInteger, nullable=False),
    Column("channel_id", BigInteger, nullable=False),
    Column("message_id", BigInteger, nullable=False),
    Column("picture", String(80), nullable=False),
    Column("user_id", BigInteger, index=True),
    Column("sha256", String(64)),
    Column("phash", BigInteger),
    Column("verdict", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("threshold", Float),
    Column("scores", JSON, nullable=False),
    Column("action", SmallInteger, nullable=False),
    Column("done", SmallInteger, nullable=False),
    Column("origin", String(20), nullable=False),
    Column("model", String(120), nullable=False),
    Column("detail", String(300), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("state", String(12), nullable=False),
    Column("moderator_id", BigInteger),
    Column("decided_at", BigInteger),
    Index("one_decision_a_picture", "message_id", "picture", unique=True),
    Index("decisions_of_a_guild", "guild_id", "created_at"),
    info={
        "key": ("message_id", "picture"),
        # The first verdict stays. It replaces the note that there was none, and its own earlier state; never a click.
        "replaces": lambda old, new: or_(old.origin == UNJUDGED_ORIGIN, old.id == new.id) & old.moderator_id.is_(None),
        "keeps": ("id",),
    },
)

rulings = Table(
    "rulings",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("sha256", String(64), primary_key=True),
    Column("phash", BigInteger, nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    # What recognises copies, see `bot.pictures.copies`; None of rulings from before schema 3.
    Column("fingerprint", LargeBinary),
    Column("moderator_id", BigInteger),
    Column("reason", String(200), nullable=False, server_default=""),
    Column("origin", String(20), nullable=False, server_default="review"),
    # Of the mod-log entry or the message that was decided on: server/channel/message.
    Column("link", String(80), nullable=False, server_default=""),
    Column("met", Integer, nullable=False, server_default="0"),
    Column("met_at", BigInteger),
)

fingerprints = Table(
    "fingerprints",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    info={"key": ("sha256",), "replaces": lambda old, new: old.created_at < new.created_at},
)
"""Of pictures that wait for a moderator's decision: whoever makes it does not have the picture any more."""

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    # Another server's id, or the name of a file that the bot was started with.
    Column("list", String(80), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

scores = Table(
    "scores",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("md5", String(32), primary_key=True),
    Column("phash", BigInteger, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("detail", String(300), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)

channels = Table(
    "channels",
    metadata,
    Column("channel_id", BigInteger, primary_key=True, autoincrement=False),
    Column("guild_id", BigInteger, nullable=False, index=True),
    # All messages up to this one were checked: where to go on after a pause.
    Column("message_id", BigInteger, nullable=False),
    info={"key": ("channel_id",), "replaces": lambda old, new: old.message_id < new.message_id},
)

retries = Table(
    "retries",
    metadata,
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("picture", String(80), primary_key=True),
    Column("guild_id", BigInteger, nullable=False, index=True),
    Column("channel_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, index=True),
    Column("tries", SmallInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False, index=True),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("guild_id", BigInteger, nullable=False, index=True),
    Column("channel_id", BigInteger, nullable=False),
    Column("message_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, index=True),
    Column("state", String(12), nullable=False, index=True),
    Column("tries", SmallInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("entry", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    info={"key": ("id",), "replaces": lambda old, new: old.state != POSTED},
)

guilds = Table(
    "guilds",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    # Unix time at which the bot was last a member: what is stored of a server outlives that by the retention period.
    Column("seen_at", BigInteger, nullable=False, index=True),
    info={"key": ("guild_id",), "replaces": lambda old, new: old.seen_at < new.seen_at},
)

reposts = Table(
    "reposts",
    metadata,
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("guild_id", BigInteger, nullable=False),
    Column("repost_id", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)
"""The bot's own messages with other messages' pictures behind spoilers, in the same channel."""

appeals = Table(
    "appeals",
    metadata,
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("guild_id", BigInteger, nullable=False, index=True),
    Column("channel_id", BigInteger, nullable=False),
    Column("user_id", BigInteger, nullable=False, index=True),
    Column("label", Text, nullable=False),
    Column("action", SmallInteger, nullable=False),
    Column("state", String(12), nullable=False, index=True),
    # What the author wrote, until moderators can read it in the mod-log.
    Column("text", Text),
    Column("tries", SmallInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("appealed_at", BigInteger),
    Column("moderator_id", BigInteger),
)

waves = Table(
    "waves",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("guild_id", BigInteger, nullable=False, index=True),
    Column("user_id", BigInteger, index=True),
    Column("entry", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("state", String(12), nullable=False),
    Column("moderator_id", BigInteger),
    Column("decided_at", BigInteger),
    info={
        "key": ("id",),
        # More messages of the same wave; a click, or a deletion of the author's data, stays.
        "replaces": lambda old, new: old.created_at == new.created_at,
        "keeps": ("user_id", "state", "moderator_id", "decided_at"),
    },
)

wave_claims = Table(
    "wave_claims",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("wave_id", String(32), nullable=False),
    # The newest message of the wave: one posted long after it is of another wave.
    Column("message_id", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)
"""Which wave of an author is in progress, so that of several processes one acts on it."""

strikes = Table(
    "strikes",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    # The deleted message; of a wave, the first.
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False, index=True),
)
"""Deletions that count against their author, in servers that count them."""


@dataclass(frozen=True)
class Decision:
    """The verdict on one picture of a message, and what was done. A row of `decisions`."""

    id: str
    """32 hex digits."""
    guild_id: int
    channel_id: int
    message_id: int
    picture: str
    """Key of the picture in its message."""
    user_id: int | None
    """The author; None after they had their data deleted."""
    sha256: str | None
    """Of the file's bytes; None if it was not downloaded."""
    phash: int | None
    verdict: str
    label: str
    score: float
    threshold: float | None
    """Of the rule that matched."""
    scores: dict[str, float]
    action: int
    """The `bot.rules.policy.Action` that the rules asked for."""
    done: int
    """The action taken: milder in shadow and review mode, or if Discord refused."""
    origin: str
    """Where the verdict is from: model, cache, moderator or unjudged."""
    model: str
    """Version of the model that was serving."""
    detail: str
    created_at: int
    """Unix time, in s."""
    state: str = CLOSED
    moderator_id: int | None = None
    decided_at: int | None = None


@dataclass(frozen=True)
class Ruling:
    """A moderator's decision on a picture, which overrides the model in that server. A row of `rulings`."""

    guild_id: int
    sha256: str
    phash: int
    allowed: bool
    label: str
    created_at: int
    fingerprint: bytes | None = field(default=None, repr=False)
    """See `bot.pictures.copies.Fingerprint`."""
    moderator_id: int | None = None
    """Who decided; None after they had their data deleted, and of lists."""
    reason: str = ""
    origin: str = "review"
    """Where it was made: review, command, import or list."""
    link: str = ""
    """server/channel/message of what was decided on."""
    met: int = 0
    """How often the picture or a copy was posted again."""
    met_at: int | None = None
    """Unix time of the last time, in s."""


@dataclass(frozen=True)
class PictureScores:
    """A model's scores of a picture, so that equal bytes are not scored twice. A row of `scores`."""

    sha256: str
    md5: str
    """Of the model."""
    phash: int
    scores: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    created_at: int = 0


@dataclass(frozen=True)
class Retry:
    """A picture without a verdict, to be looked at again. A row of `retries`."""

    message_id: int
    picture: str
    guild_id: int
    channel_id: int
    user_id: int | None
    """The author; None after they had their data deleted."""
    tries: int
    due_at: int
    """Unix time of the next try, in s."""
    created_at: int


@dataclass(frozen=True)
class Job:
    """What is to be done to a message and reported in the mod-log. A row of `outbox`."""

    id: str
    """32 hex digits."""
    guild_id: int
    channel_id: int
    message_id: int
    user_id: int | None
    state: str
    """PLANNED, ACTED or POSTED."""
    tries: int
    """Failed attempts to finish it."""
    due_at: int
    """Unix time of the next attempt, in s."""
    entry: dict[str, Any]
    """See `bot.actions.modlog.Entry`."""
    created_at: int


@dataclass(frozen=True)
class Appeal:
    """A message that was acted on, whose author was told and may appeal once. A row of `appeals`."""

    message_id: int
    guild_id: int
    channel_id: int
    user_id: int
    label: str
    """Of the rule that matched."""
    action: int
    """The `bot.rules.policy.Action` that was taken."""
    created_at: int
    """Unix time, in s."""
    state: str = TOLD
    text: str | None = None
    """What the author wrote, until it is posted to the mod-log."""
    tries: int = 0
    """Failed attempts to post it."""
    due_at: int = 0
    """Unix time of the next attempt, in s."""
    appealed_at: int | None = None
    moderator_id: int | None = None


@dataclass(frozen=True)
class Wave:
    """One author's pictures in several channels, and what was done about them. A row of `waves`."""

    id: str
    """32 hex digits; of its job in the outbox, too."""
    guild_id: int
    user_id: int | None
    """The author; None after they had their data deleted."""
    entry: dict[str, Any]
    """See `bot.actions.waves.WaveEntry`."""
    created_at: int
    state: str = OPEN
    moderator_id: int | None = None
    decided_at: int | None = None


def signed(phash: int) -> int:
    """An unsigned 64-bit hash as a signed integer, which is what databases have."""
    return phash - 2**64 if phash >= 2**63 else phash


def unsigned(value: int) -> int:
    """The reverse of `signed`."""
    return value % 2**64
