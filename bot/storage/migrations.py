"""Upgrading a database that an older version of the bot created."""

from __future__ import annotations

STEPS: dict[int, tuple[str, ...]] = {
    1: (),
    2: (),
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
