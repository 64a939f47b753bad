"""What the bot keeps, as tables: settings, decisions, hashes and scores. Never a picture, never a message's text."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, MetaData, SmallInteger, String, Table, Text

SCHEMA = 1
"""Version of these tables. A database of another one is refused."""

OPEN, CLOSED = "open", "closed"
"""States of a decision: waiting for a moderator; not for one to look at."""
APPROVED, DELETED, TIMED_OUT, WRONG = "approved", "deleted", "timed_out", "wrong"
"""States that a moderator's click gives it."""

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


@dataclass(frozen=True)
class Decision:
    """What was found of one picture of a message, and what was done. A row of `decisions`."""

    id: str
    """32 hex digits."""
    guild_id: int
    channel_id: int
    message_id: int
    picture: str
    """Key of the picture within its message."""
    user_id: int | None
    """Who posted it; None once they had their rows removed."""
    sha256: str | None
    """Of its bytes; None if it was not fetched."""
    phash: int | None
    verdict: str
    label: str
    score: float
    threshold: float | None
    """Of the rule that was met, at that time."""
    scores: dict[str, float]
    action: int
    """What the rules asked for, of `bot.rules.policy.Action`."""
    done: int
    """What was done of it: less in shadow and review, or where Discord refused."""
    origin: str
    """How it was judged: model, cache, moderator or unjudged."""
    model: str
    """Version that was served."""
    detail: str
    created_at: int
    """Unix time, in s."""
    state: str = CLOSED
    moderator_id: int | None = None
    decided_at: int | None = None


@dataclass(frozen=True)
class Ruling:
    """What a moderator decided of a picture; it outranks the model, in that guild. A row of `rulings`."""

    guild_id: int
    sha256: str
    phash: int
    allowed: bool
    label: str
    created_at: int


@dataclass(frozen=True)
class Scored:
    """A model's scores of a picture, so that equal bytes need not be judged twice. A row of `scores`."""

    sha256: str
    md5: str
    """Of the model."""
    phash: int
    scores: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    created_at: int = 0


def signed(phash: int) -> int:
    """An unsigned 64-bit hash as databases hold it."""
    return phash - 2**64 if phash >= 2**63 else phash


def unsigned(value: int) -> int:
    """The reverse of `signed`."""
    return value % 2**64
