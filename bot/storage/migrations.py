"""Upgrading a database that an older version of the bot created."""

from __future__ import annotations

STEPS: dict[int, tuple[str, ...]] = {
    1: (),
    2: (
        # BYTEA is PostgreSQL's word; SQLite takes any, and keeps bytes as bytes.
        "ALTER TABLE rulings ADD COLUMN fingerprint BYTEA",
        "ALTER TABLE rulings ADD COLUMN moderator_id BIGINT",
        "ALTER TABLE rulings ADD COLUMN reason VARCHAR(200) NOT NULL DEFAULT ''",
        "ALTER TABLE rulings ADD COLUMN origin VARCHAR(20) NOT NULL DEFAULT 'review'",
        "ALTER TABLE rulings ADD COLUMN link VARCHAR(80) NOT NULL DEFAULT ''",
        "ALTER TABLE rulings ADD COLUMN met INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE rulings ADD COLUMN met_at BIGINT",
    ),
}
"""Schema version -> SQL statements that change its existing tables to those of the next version.

New tables need no statement: missing ones are created first. A statement has to be valid in SQLite and PostgreSQL.
"""


def statements(found: int, wanted: int) -> list[str]:
    """The statements from one schema version to a later one, in order.

    Raises:
        KeyError: if there is no way from one to the other.
    """
    return [statement for version in range(found, wanted) for statement in STEPS[version]]
